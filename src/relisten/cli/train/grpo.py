"""`relisten train grpo`: reinforcement learning on questions with reference answers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from relisten.cli.bars import noted_bar
from relisten.cli.statuses import BAD_INPUT, FAILED, INTERRUPTED
from relisten.cli.train.options import configured
from relisten.cli.train.sizes import positive, print_sizes
from relisten.cli.words import plural
from relisten.errors import DivergedError, EngineError, InputError
from relisten.train.grpo.config import GrpoConfig


@configured(GrpoConfig, shipped="grpo-", needed=("questions",), repeated={"engine_options": "--engine-option"})
def grpo(
    config: GrpoConfig,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run; the same command goes on with it. Needed, but for --dry-run."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what it would take, and train nothing.")
    ] = False,
    processes: Annotated[int, typer.Option(help="With --dry-run: for so many processes (GPUs).")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the last step's numbers as JSON.")] = False,
) -> None:
    """Reinforce answers that earn more than their group (Echo, stage 2).

    Every step samples a group of answers to each of some questions, re-listening as they go, and learns from the
    tokens that were sampled. Stop it or kill it when you like, and give the same command to go on.

    On several processors or GPUs: `accelerate launch --multi_gpu --num_processes N -m relisten train grpo ...`;
    each has its share of the answers, and the whole model or, with --divided, a part of what is trained.

    Exit status: 0 trained, 1 training cannot go on (the loss is no number, all answers fail), 2 bad input.
    """
    if dry_run:
        from relisten.train.grpo.dryrun import dry_run_grpo

        print_sizes(dry_run_grpo(config, positive(processes)), as_json)
        return
    if out is None:
        raise InputError("--out is not given: name a folder for the run, or try --dry-run")
    # Slow to import, and needless for --help.
    from relisten.train.grpo.trainer import train_grpo
    from relisten.train.parallel import Processes
    from relisten.train.watch import Watch

    group = Processes(config.device) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None
    speaks = group is None or group.first
    with _Show(speaks) as show:
        watch = Watch(on_step=show.stepped, on_note=show.note, on_answer=show.answered)
        try:
            trained = train_grpo(config, out, watch=watch, processes=group)
        except KeyboardInterrupt:
            show.note("stopped; the same command goes on from the last saved state")
            raise typer.Exit(INTERRUPTED) from None
        except InputError:
            if speaks:
                raise
            raise typer.Exit(BAD_INPUT) from None  # the first process says it for all
        except (DivergedError, EngineError) as error:
            show.note(f"relisten: {error}")
            raise typer.Exit(FAILED) from None
        finally:
            if group is not None:
                group.close()
    if not speaks:
        return
    if as_json:
        row = {"checkpoint": str(trained.checkpoint), "steps": trained.steps, **trained.last}
        print(json.dumps(row, indent=1))
    else:
        print(f"{plural(trained.steps, 'step')} -> {trained.checkpoint}")


class _Show:
    """Steps and answers on standard error: a bar on a terminal, else a line a step; of several processes by one."""

    def __init__(self, speaks: bool) -> None:
        self._speaks = speaks
        self._console = Console(stderr=True)
        self._bar = noted_bar(self._console, shown=speaks)
        self._task = self._bar.add_task("steps", total=None, note="")
        self._answers = 0
        self._told = ""

    def __enter__(self) -> _Show:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def answered(self) -> None:
        self._answers += 1
        self._bar.update(self._task, note=f"{self._answers} answers  {self._told}")

    def stepped(self, done: int, steps: int, values: Mapping[str, float]) -> None:
        told = (
            f"reward {values['reward']:.3f}, {100 * values['right']:.0f} % right, {values['listens']:.2f} listens"
        )
        if "val_right" in values:
            told += f"; validation {100 * values['val_right']:.1f} % right"
        self._told = told
        self._bar.update(self._task, completed=done, total=steps, note=told)
        if self._speaks and not self._console.is_terminal:
            print(f"step {done} of {steps}: {told}", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        if not self._speaks:
            return
        if self._console.is_terminal:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)
