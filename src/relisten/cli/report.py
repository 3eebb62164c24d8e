"""`relisten report`: run folders into one HTML file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from relisten.cli.outputs import refuse_same
from relisten.errors import InputError
from relisten.evaluate.scoring import Rule
from relisten.jsonl import dump_json
from relisten.report.sound import AudioMode

if TYPE_CHECKING:
    from relisten.evaluate.results import Run

_MAX_AUDIO = 64.0


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Run folders; the first is what others are compared with."),
    ],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    rule: Annotated[
        Rule | None, typer.Option(help="Which answers are right; by default the rule of the first run's benchmark.")
    ] = None,
    audio: Annotated[
        AudioMode, typer.Option(help="Sounds in the page, as links to their files, or not at all.")
    ] = AudioMode.EMBED,
    max_audio: Annotated[
        float, typer.Option(help="MB of sound in the page; further sounds are left out.")
    ] = _MAX_AUDIO,
    attention: Annotated[
        int, typer.Option(help="Measure attention on sound over this many answers of each run; needs its model.")
    ] = 0,
    device: Annotated[str, typer.Option(help="Where that model runs: cpu, cuda, ...; auto takes a GPU.")] = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the numbers as JSON instead of writing a page.")
    ] = False,
) -> None:
    """Write scores, comparisons, measures of listening again and every answer as one HTML file.

    The file needs no network and nothing beside it. Runs that are not finished may be reported on, too.
    """
    # Slow to import, and needless for --help.
    from relisten.evaluate.results import read_run
    from relisten.report.build import write_report

    if attention < 0:
        raise InputError(f"attention {attention}: it must be 0 (not measured) or a number of answers")
    if not as_json:  # a page of before may be written anew
        refuse_same(
            out, *(path for run in runs for path in run.rglob("*") if path.is_file() and path.suffix != ".html")
        )
    read = [read_run(folder) for folder in runs]
    if attention:
        for run in read:
            _measure_attention(run, attention, device)
    if as_json:
        print(dump_json(_numbers(read, rule), indent=1))
        return
    errors = Console(stderr=True)
    columns = (TextColumn("sounds"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("sounds", total=None)
        done = write_report(
            read,
            out,
            rule=rule,
            audio=audio,
            max_audio=max_audio,
            on_progress=lambda ready, total: bar.update(task, completed=ready, total=total),
        )
    sounds = f"{done.playable:,} of {done.sounds:,} sounds"
    print(f"{done.path}: {done.entries:,} questions, {sounds}, {done.bytes / 1e6:.1f} MB")
    for problem in done.problems[:5]:
        errors.print(f"sound left out: {problem}", markup=False, highlight=False)
    if len(done.problems) > 5:
        errors.print(f"and {len(done.problems) - 5:,} more, named in the page")


def _measure_attention(run: Run, sample: int, device: str) -> None:
    from relisten.evaluate.attention import measure
    from relisten.evaluate.provenance import model_hash
    from relisten.models import load, resolve_device
    from relisten.models.checkpoint import model_folder

    folder = model_folder(run.config.model)
    if model_hash(folder) != run.config.model_hash:
        raise InputError(f"{run.folder}: was made by another model than {folder}; put that one back")
    device = resolve_device(device)
    measure(load(folder, device=device, dtype=run.config.dtype), run, sample).write(run.folder)


def _numbers(runs: list[Run], rule: Rule | None) -> dict[str, Any]:
    """What the page says in numbers: each run's scores and measures, and each further run against the first."""
    from relisten.evaluate.analysis import analyse
    from relisten.evaluate.compare import compare
    from relisten.evaluate.summary import summarize_run

    rule = rule or runs[0].config.rule
    listed = []
    for run in runs:
        measures = asdict(analyse(run.rows, rule))
        del measures["lengths"]  # one number a segment; its mean is there
        listed.append({"run": str(run.folder), **summarize_run(run).to_json(), "listening": measures})
    comparisons = []
    for other in runs[1:]:
        paired = compare(runs[0], other, rule)
        found = {"difference": paired.difference, "interval": paired.interval, "p": paired.p_value}
        comparisons.append({"first": str(runs[0].folder), "second": str(other.folder), **asdict(paired), **found})
    return {"rule": str(rule), "runs": listed, "comparisons": comparisons}
