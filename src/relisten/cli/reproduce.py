"""`relisten reproduce`: the paper's ablation at tiny scale, by one command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table as Grid

from relisten.cli.bars import noted_bar
from relisten.cli.statuses import FAILED, INTERRUPTED
from relisten.files import write_whole
from relisten.listener import DEFAULT_MODEL
from relisten.processes import usable_processors

if TYPE_CHECKING:
    from relisten.evaluate.analysis import Mean
    from relisten.reproduce.table import Table


def reproduce(
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the reproduction; the same command goes on with it. Needed, but for --probe."),
    ] = None,
    budget: Annotated[
        str, typer.Option(help="quick (7 minutes) or full (two hours or more), on two processors.")
    ] = "quick",
    seeds: Annotated[
        int | None, typer.Option(help="Number of seeds.", show_default="1 for quick, 3 for full")
    ] = None,
    arms: Annotated[str, typer.Option(help="Some of A B B' C D D' E E' F, by comma; empty: all.")] = "",
    start: Annotated[
        str, typer.Option(help="The checkpoint that the base starts from; it forgets its tags.")
    ] = DEFAULT_MODEL,
    workers: Annotated[
        int, typer.Option(help="Trainings and evaluations at once; 0: as many as there are processors.")
    ] = 0,
    probe: Annotated[
        str,
        typer.Option(
            help="Instead of the ablation: measure how much of a scene this checkpoint misses without listening "
            "again."
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON and nothing else.")] = False,
) -> None:
    """Train and compare the arms of the paper's ablation on simulated scenes, from a base model that it trains
    first.

    OUT/index.html is the page with the table and all curves, OUT/results.json the figures. Stop it or kill it when
    you like, and give the same command to go on; arms and seeds may be added later.

    Exit status: 0 done, 1 a training failed, 2 bad input.
    """
    # Slow to import, and needless for --help.
    from relisten.errors import InputError
    from relisten.models.checkpoint import find_folder
    from relisten.reproduce.arms import find_arms
    from relisten.reproduce.plan import BUDGETS, Plan

    if probe:
        from relisten.reproduce.probe import measure

        found = measure(probe, on_row=None if as_json else print)
        if as_json:
            print(json.dumps(found, indent=1))
        return
    if out is None:
        raise InputError("--out is not given: name a folder for the reproduction, or a checkpoint with --probe")
    if budget not in BUDGETS:
        raise InputError(f"budget {budget!r}: it must be quick or full")
    chosen = BUDGETS[budget]
    count = chosen.seeds if seeds is None else seeds
    if workers < 0:
        raise InputError(f"--workers {workers}: give 1 or more, or 0 for as many as there are processors")
    find_folder(start)  # before anything is written: a folder keeps to the start that it was begun with
    names = tuple(arm.name for arm in find_arms(name for name in arms.split(",") if name.strip()))
    plan = Plan(chosen, tuple(range(count)), names, start)

    from relisten.reproduce.page import notes, write_reproduction
    from relisten.reproduce.runner import JobError, State
    from relisten.reproduce.runner import reproduce as run
    from relisten.reproduce.table import collect

    console = Console(stderr=True)
    with noted_bar(console) as bar:
        task = bar.add_task("jobs", total=None, note="")
        told: set[str] = set()

        def on_state(state: State) -> None:
            note = ", ".join(f"{name} {far}".strip() for name, far in state.running)
            bar.update(task, completed=state.done, total=state.total, note=note)
            if not console.is_terminal:
                for name, _ in state.running:
                    if name not in told:
                        told.add(name)
                        print(f"{state.done} of {state.total} done; {name}", file=sys.stderr, flush=True)

        try:
            run(plan, out, workers or usable_processors(), on_state)
        except KeyboardInterrupt:
            print("stopped; the same command goes on", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        except JobError as error:
            print(f"relisten: {error}", file=sys.stderr)
            raise typer.Exit(FAILED) from None
    table = collect(plan, out)
    result = {"notes": notes(plan, table), "plan": plan.to_json(), **table.to_json()}
    write_whole(out / "results.json", json.dumps(result, indent=1) + "\n")
    write_reproduction(plan, table, out, out / "index.html")
    if as_json:
        print(json.dumps(result, indent=1))
        return
    for note in notes(plan, table):
        print(note)
    _print(table)
    print(f"-> {out / 'index.html'}")


def _print(table: Table) -> None:
    grid = Grid("arm", "", "accuracy %", "greedy %", "long clips %", "words", "listens", "latency s")
    for one in table.figures:
        latency = "" if one.latency is None else f"{one.latency:.2f}"
        grid.add_row(
            one.arm, one.about, _share(one.accuracy), _share(one.greedy), _share(one.long),
            _plain(one.words, 0), _plain(one.listens, 2), latency,
        )  # fmt: skip
    Console().print(grid)
    for change in table.differences:
        sampled, greedy = map(_points, (change.difference, change.greedy))
        print(f"{change.arm} over {change.over} ({change.tells}): {sampled}; greedy {greedy}")
    for early in table.at_equal_time:
        sampled, greedy = map(_points, (early.difference, early.greedy_difference))
        steps = ", ".join(map(str, early.steps))
        print(f"{early.arm} over {early.over} at equal time (after {steps} steps): {sampled}; greedy {greedy}")


def _share(mean: Mean) -> str:
    return f"{100 * mean.mean:.1f} ({100 * mean.low:.1f} to {100 * mean.high:.1f})"


def _points(mean: Mean) -> str:
    return f"{100 * mean.mean:+z.1f} points ({100 * mean.low:+z.1f} to {100 * mean.high:+z.1f})"


def _plain(mean: Mean | None, digits: int) -> str:
    return "" if mean is None else f"{mean.mean:.{digits}f}"
