"""`relisten router train`: a policy learns when to call which tool; the model that answers stays as it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from relisten.cli.bars import noted_bar
from relisten.cli.statuses import FAILED, INTERRUPTED
from relisten.cli.train.options import configured
from relisten.cli.words import plural
from relisten.errors import DivergedError, EngineError, InputError
from relisten.router.training.config import RouterConfig


@configured(RouterConfig, needed=("questions",))
def train(
    config: RouterConfig,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; the same command goes on with it. Needed.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a routing policy on questions with reference answers (AudioRouter).

    The reasoner answers every question on every route once, which is what takes the time; the policy itself is
    learned in seconds. Stop it or kill it when you like, and give the same command to go on. OUT/policy is the
    policy, for `relisten ask --router OUT` and `relisten router report OUT`.

    Exit status: 0 trained, 1 training cannot go on (the loss is no number, all answers fail), 2 bad input.
    """
    if out is None:
        raise InputError("--out is not given: name a folder for the run")
    # Slow to import, and needless for --help.
    from relisten.router.training.trainer import train_router

    with RouterShow() as show:
        try:
            done = train_router(config, out, watch=show.watch)
        except KeyboardInterrupt:
            show.note("stopped; the same command goes on from what is kept")
            raise typer.Exit(INTERRUPTED) from None
        except (DivergedError, EngineError) as error:
            show.note(f"relisten: {error}")
            raise typer.Exit(FAILED) from None
    if as_json:
        print(json.dumps({**asdict(done), "policy": str(done.policy)}, indent=1))
        return
    found = done.validation
    print(
        f"{plural(done.steps, 'step')}; {done.weights:,} parameters, {100 * done.share:.2f} % of the reasoner's"
        + (f", reading {done.reads}" if done.reads else "")
    )
    print(
        f"validation ({found['questions']:.0f} questions): direct {100 * found['direct']:.1f} %, router "
        f"{100 * found['router']:.1f} %, oracle {100 * found['oracle']:.1f} %; {found['calls']:.2f} tools a "
        f"question, threshold {done.threshold:.2f}, temperature {done.temperature:.2f}"
    )
    print(f"answers and hidden states {done.seconds['prepare']:.0f} s, training {done.seconds['train']:.0f} s")
    print(f"the reasoner is untouched: {done.reasoner} before and after")
    print(f"-> {done.policy}")


class RouterShow:
    """What a run tells, on standard error: a bar on a terminal, else notes and a line for each stage."""

    def __init__(self) -> None:
        from relisten.train.watch import Watch

        self._console = Console(stderr=True)
        self._bar = noted_bar(self._console)
        self._task = self._bar.add_task("", total=None, note="")
        self._stage = ""
        self.watch = Watch(on_step=self._step, on_note=self.note, on_progress=self._progress)

    def __enter__(self) -> RouterShow:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        """A line for the user."""
        if self._console.is_terminal:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def _progress(self, what: str, done: int, total: int) -> None:
        self._tell(what, done, total, "")

    def _step(self, done: int, steps: int, values: Mapping[str, float]) -> None:
        note = f"reward {values['reward']:+.3f}, entropy {values['entropy']:.2f}"
        if "val_gained" in values:
            note += f"; validation {values['val_gained']:+.3f}"
        self._tell("training", done, steps, note)

    def _tell(self, what: str, done: int, total: int, note: str) -> None:
        self._bar.update(self._task, description=what, completed=done, total=total, note=note)
        if not self._console.is_terminal and (what != self._stage or done == total):
            self._stage = what
            print(f"{what}: {done} of {total}{f' ({note})' if note else ''}", file=sys.stderr, flush=True)
