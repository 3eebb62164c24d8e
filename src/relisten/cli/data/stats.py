"""`relisten data stats`: what a manifest or a file of questions is like."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from relisten.cli.console import plain_console
from relisten.cli.data.progress import counting
from relisten.cli.outputs import refuse_same
from relisten.cli.words import plural
from relisten.data.statistics import FileStatistics
from relisten.jsonl import dump_json
from relisten.report.statistics import write_statistics

_MOST = 25


def stats(
    files: Annotated[list[Path], typer.Argument(help="Manifests and files of questions (JSONL).")],
    html: Annotated[Path | None, typer.Option(help="Also write one self-contained page with plots.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON, one object a file.")] = False,
) -> None:
    """Counts, lengths, balance of answers, kinds of questions, and how varied the reasoning is."""
    if html is not None:
        refuse_same(html, *files)
    found = []
    for path in files:
        measured = FileStatistics(path)
        for _ in counting(measured.read(), str(path), sys.stderr):
            pass
        for error in measured.bad:
            print(error, file=sys.stderr)
        if measured.num_bad > len(measured.bad):
            print(f"... and {plural(measured.num_bad - len(measured.bad), 'more bad row')}", file=sys.stderr)
        found.append(measured.to_json())
    if html is not None:
        write_statistics(found, html)
    if as_json:
        for row in found:
            print(dump_json(row))
        return
    console = plain_console()
    for row in found:
        console.print(_table(row))


def _table(found: Mapping[str, Any]) -> Table:
    table = Table(title=str(found["file"]), title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in found.items():
        if name in ("file", "reasoning"):
            continue
        for label, text in _rows(name, value):
            table.add_row(label, text)
    for name, value in found.get("reasoning", {}).items():
        for label, text in _rows(f"reasoning: {name}", value):
            table.add_row(label, text)
    return table


def _rows(name: str, value: Any) -> list[tuple[str, str]]:
    name = name.replace("_", " ")
    if isinstance(value, dict) and "count" in value:
        if not value["count"]:
            return []
        return [(name, f"mean {value['mean']:.2f}, {value['min']:.2f} to {value['max']:.2f}")]
    if isinstance(value, dict) and name == "answer places":
        return [
            (f"answer at place 1..{count}", "  ".join(f"{n / max(1, sum(places)):.1%}" for n in places))
            for count, places in value.items()
        ]
    if isinstance(value, dict) and name == "commonest answer":
        return [(name, ", ".join(f"{kind} {one['answer']!r} {one['share']:.0%}" for kind, one in value.items()))]
    if isinstance(value, dict):
        shown = ", ".join(f"{key} {number:,}" for key, number in list(value.items())[:_MOST])
        return [(name, f"{shown}, ... ({len(value)} in all)" if len(value) > _MOST else shown or "-")]
    return [(name, "-" if value is None else f"{value:,}")]
