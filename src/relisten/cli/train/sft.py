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
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from relisten.cli.train.options import configured
from relisten.errors import InputError
from relisten.train.finetune_config import FinetuneConfig


@configured(FinetuneConfig)
def sft(
    config: FinetuneConfig,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; the same command goes on with it.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what it would take, and train nothing.")
    ] = False,
    processes: Annotated[int, typer.Option(help="With --dry-run: for so many processes (GPUs).")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Fine-tune a Qwen2.5-Omni checkpoint on questions with responses, grounded or interleaved.

    On several processors or GPUs: `accelerate launch --multi_gpu --num_processes N -m relisten train sft ...`; the
    model is divided among them. OUT/checkpoint is the trained model. Exit status: 0, or 2 for bad input.
    """
    if dry_run:
        _print_dry_run(config, processes, as_json)
        return
    if out is None:
        raise InputError("--out is not given: name a folder for the run, or try --dry-run")
    from relisten.train.finetune import finetune  # slow to import
    from relisten.train.parallel import Processes

    group = Processes(config.device)
    console = Console(file=sys.stderr)
    try:
        with Progress(
            TextColumn("step"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not (group.first and console.is_terminal),
        ) as progress:
            task = progress.add_task("", total=None, note="reading sounds")

            def on_step(done: int, steps: int, values: Mapping[str, float]) -> None:
                progress.update(task, completed=done, total=steps, note=f"loss {values['loss']:.4f}")

            result = finetune(config, out, group, on_step, lambda note: print(note, file=sys.stderr))
    finally:
        group.close()
    if not group.first:
        return
    if as_json:
        print(json.dumps({**asdict(result), "checkpoint": str(result.checkpoint)}))
        return
    validated = "" if result.validation_loss is None else f", on the validation set {result.validation_loss:.4f}"
    print(f"{result.steps} steps over {result.examples} examples; loss {result.loss:.4f}{validated}")
    print(f"-> {result.checkpoint}")


def _print_dry_run(config: FinetuneConfig, processes: int, as_json: bool) -> None:
    from relisten.train.dryrun import dry_run

    if processes < 1:
        raise InputError(f"--processes {processes}: it must be 1 or more")
    found = dry_run(config, processes)
    if as_json:
        print(json.dumps(found.to_json()))
        return
    about = "" if found.exact else " (not at hand: sizes of the published model, lengths from the size of texts)"
    print(f"{found.model}{about}")
    print("parameters")
    for name, number in found.parameters.items():
        print(f"  {name:<18}{number / 1e6:>12,.1f} M")
    print(f"memory of each of {processes} processes, estimated")
    for name, size in {**found.memory, "total": sum(found.memory.values())}.items():
        print(f"  {name:<18}{size / 2**30:>12,.2f} GiB")
    if found.data is None:
        print("no --data: steps and tokens are not known")
        return
    print("data")
    for name, value in found.data.items():
        print(
            f"  {name:<18}{value:>12,.0f}"
            if value >= 100 or value == int(value)
            else f"  {name:<18}{value:>12,.1f}"
        )
