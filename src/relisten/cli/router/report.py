"""`relisten router report`: what a trained router is worth on questions that it has not seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from relisten.cli.console import plain_console
from relisten.cli.router.train import RouterShow
from relisten.errors import InputError
from relisten.files import write_whole

if TYPE_CHECKING:
    from relisten.evaluate.routing import Way
    from relisten.evaluate.routing_run import RoutingReport


def report(
    run: Annotated[Path, typer.Argument(help="The --out of a relisten router train.")],
    questions: Annotated[
        Path, typer.Option(help="JSONL of questions with reference answers, held out from training.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The page to write.", show_default="report.html in the run's folder")
    ] = None,
    known: Annotated[
        Path | None, typer.Option(help="Folder that keeps answers and hidden states.", show_default="the run's")
    ] = None,
    latency: Annotated[
        int, typer.Option(help="Also time so many of the questions one by one, direct and routed.")
    ] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...; auto takes a GPU if there is one.")] = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the numbers as JSON; the page is written, too.")
    ] = False,
) -> None:
    """Compare the router with answering directly, with each tool always, by chance, and with the best there could
    be.

    Every question is answered on every route, once; what is known already is not asked again. Writes one HTML file,
    and the numbers as JSON beside it.
    """
    # Slow to import, and needless for --help.
    from relisten.evaluate.routing_run import judge_router
    from relisten.report.routing import write_routing_report
    from relisten.train.references import read_referenced

    if latency < 0:
        raise InputError(f"latency {latency}: it must be 0 (not measured) or a number of questions")
    with RouterShow() as show:
        asked = read_referenced(str(questions), show.note)
        found = judge_router(run, asked, known=known, latency=latency, device=device, watch=show.watch)
    page = write_routing_report(found, out or run / "report.html")
    write_whole(page.with_suffix(".json"), json.dumps(found.to_json(), indent=1) + "\n")
    if as_json:
        print(json.dumps(found.to_json(), indent=1))
        return
    print_report(plain_console(), found)
    print(f"-> {page}")


def print_report(console: Console, report: RoutingReport) -> None:
    """Ways to answer, then routes, then kinds of questions, then whether it pays."""
    scores = report.scores
    title = f"{report.model}, {scores.questions:,} questions"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("way", overflow="fold")
    for name in ("accuracy %", "router gains", "tools", "tool s", "tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    for way in (scores.direct, *scores.always, scores.random, scores.router, scores.oracle):
        table.add_row(*_way(way), style="bold" if way is scores.router else "")
    console.print(table)
    console.print(f"best single tool: {scores.best_single.name}", highlight=False)
    console.print()
    table = Table(box=None, pad_edge=False)
    table.add_column("route", overflow="fold")
    for name in ("always: helps", "harms", "taken", "helps", "harms", "tool failed"):
        table.add_column(name, justify="right", no_wrap=True)
    for use in scores.uses:
        a, t = use.always, use.taken
        cells = (a.help, a.harm, t.n, t.help, t.harm, use.failed)
        table.add_row(use.name, *map(str, cells))
    console.print(table)
    console.print()
    table = Table(box=None, pad_edge=False)
    table.add_column("kind", no_wrap=True)
    for name in ("n", "direct %", "router %", "oracle %"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("best route")
    table.add_column("taken most")
    for kind in scores.kinds:
        shares = (f"{100 * share:.1f}" for share in (kind.direct, kind.router, kind.oracle))
        taken = ", ".join(f"{name} {number}" for name, number in list(kind.taken.items())[:2])
        table.add_row(kind.kind, str(kind.n), *shares, f"{kind.best} {100 * kind.best_accuracy:.1f}", taken)
    console.print(table)
    console.print()
    for line in _conclusion(report):
        console.print(line, highlight=False, soft_wrap=True)


def _way(way: Way) -> list[str]:
    low, high = way.interval
    cells = [way.name, f"{100 * way.accuracy:.1f} ({100 * low:.1f} to {100 * high:.1f})"]
    gain = way.against
    if gain is None or gain.difference is None:
        cells.append("")
    else:
        span = gain.interval
        told = "" if span is None else f" ({100 * span.low:+.1f} to {100 * span.high:+.1f})"
        cells.append(f"{100 * gain.difference:+.1f}{told}")
    seconds = "" if way.tool_seconds is None else f"{way.tool_seconds:.3f}"
    return [*cells, f"{way.calls:.2f}", seconds, f"{way.tokens:.0f}"]


def _conclusion(report: RoutingReport) -> list[str]:
    scores = report.scores
    lines = list(scores.verdict)
    room = f"oracle {100 * scores.headroom:+.1f} points over direct"
    if scores.realised is not None and scores.realised_interval is not None:
        low, high = scores.realised_interval
        room += f"; realised {100 * scores.realised:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"
    lines.append(f"{room}; a tool runs on {100 * scores.call_rate:.0f} % of the questions")
    share = report.weights / report.reasoner_weights
    lines.append(f"{report.policy}: {report.weights:,} parameters, {100 * share:.2f} % of the reasoner's")
    if (timed := report.latency) is not None:
        lines.append(
            f"alone, median of {timed.questions}: direct {timed.direct:.3f} s, routed {timed.router:.3f} s "
            f"(decision {timed.decision:.3f} s, prompt included; tools {timed.tools:.3f} s on average)"
        )
    return lines
