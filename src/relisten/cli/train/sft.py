"""`relisten train sft`: a checkpoint learns from questions with responses."""

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
from relisten.cli.statuses import BAD_INPUT, FAILED, INTERRUPTED
from relisten.cli.train.options import configured
from relisten.cli.train.sizes import positive, print_sizes
from relisten.cli.words import plural
from relisten.errors import DivergedError, InputError
from relisten.train.sft.config import FinetuneConfig


@configured(FinetuneConfig, shipped="sft-", needed=("data",))
def sft(
    config: FinetuneConfig,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run; the same command goes on with it. Needed, but for --dry-run."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what it would take, and train nothing.")
    ] = False,
    processes: Annotated[int, typer.Option(help="With --dry-run: for so many processes (GPUs).")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Fine-tune a Qwen2.5-Omni checkpoint on questions with responses, grounded or interleaved.

    On several processors or GPUs: `accelerate launch --multi_gpu --num_processes N -m relisten train sft ...`; the
    model is divided among them. OUT/checkpoint is the trained model. Stop it or kill it when you like, and
    give the same command to go on.

    Exit status: 0 trained, 1 the loss is no number any more, 2 bad input.
    """
    if dry_run:
        from relisten.train.sft.dryrun import dry_run as dry

        print_sizes(dry(config, positive(processes)), as_json)
        return
    if out is None:
        raise InputError("--out is not given: name a folder for the run, or try --dry-run")
    from relisten.train.parallel import Processes
    from relisten.train.sft.trainer import finetune  # slow to import
    from relisten.train.watch import Watch

    group = Processes(config.device)
    console = Console(file=sys.stderr)
    try:
        with noted_bar(console, shown=group.first) as progress:
            task = progress.add_task("step", total=None, note="reading sounds")

            def on_step(done: int, steps: int, values: Mapping[str, float]) -> None:
                told = f"loss {values['loss']:.4f}"
                progress.update(task, completed=done, total=steps, note=told)
                if not console.is_terminal and (done % config.log_every == 0 or done == steps):
                    print(f"step {done} of {steps}: {told}", file=sys.stderr, flush=True)

            watch = Watch(on_step=on_step, on_note=lambda note: print(note, file=sys.stderr))
            result = finetune(config, out, watch=watch, processes=group)
    except InputError:
        if group.first:
            raise
        raise typer.Exit(BAD_INPUT) from None  # the first process says it for all
    except KeyboardInterrupt:
        if group.first:
            print("stopped; the same command goes on from the last saved state", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    except DivergedError as error:
        if group.first:
            print(f"relisten: {error}", file=sys.stderr)
        raise typer.Exit(FAILED) from None
    finally:
        group.close()
    if not group.first:
        return
    if as_json:
        print(json.dumps({**asdict(result), "checkpoint": str(result.checkpoint)}))
        return
    validated = "" if result.validation_loss is None else f", on the validation set {result.validation_loss:.4f}"
    done = f"{plural(result.steps, 'step')} over {plural(result.examples, 'example')}"
    print(f"{done}; loss {result.loss:.4f}{validated}")
    print(f"-> {result.checkpoint}")
