"""How scores look in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from relisten.cli.words import plural
from relisten.evaluate.predictions import first_problems
from relisten.evaluate.scoring import Breakdown, Interval, Scorecard, Tally
from relisten.evaluate.summary import Summary


def print_summary(console: Console, summary: Summary) -> None:
    """All rules over all rows, controls, then each breakdown by the rule to show, and what went wrong."""
    table = Table(title=summary.title, title_justify="left", box=None, pad_edge=False)
    table.add_column("rule", no_wrap=True)
    for name in ("accuracy %", "95 %", "right", "of", "no answer %", "first %", "chance %"):
        table.add_column(name, justify="right", no_wrap=True)
    for rule, card in summary.cards.items():
        tally, control = card.overall, summary.controls[rule]
        style = "bold" if rule is summary.rule else ""
        table.add_row(
            str(rule),
            percent(tally.accuracy),
            interval(tally.interval),
            str(tally.right),
            str(tally.total),
            percent(tally.no_answer_rate),
            percent(control.first),
            percent(control.random),
            style=style,
        )
    console.print(table)
    for breakdown in summary.main.breakdowns:
        console.print()
        console.print(_breakdown(breakdown, str(summary.rule)))
    counts = summary.main.overall
    notes = [plural(summary.rows, "row")]
    notes += [f"{count} {what}" for what, count in _others(counts) if count]
    if summary.listens is not None:
        notes.append(f"{summary.listens:.2f} listens per answer")
    console.print()
    console.print(", ".join(notes))
    failed = [f"{failure.id}: {failure.error}" for failure in summary.failures]
    _print_list(console, "Failed, and in no score:", failed)
    _print_list(console, "Noted:", list(summary.problems))


def print_official(console: Console, card: Scorecard) -> None:
    """What the official script prints, group by group."""
    console.print("As the official script counts:")
    for breakdown in card.breakdowns:
        console.print(f"  {breakdown.key}-wise accuracy")
        for value, tally in breakdown.groups.items():
            console.print(Text(f"    {value}: {percent(tally.accuracy)} % over {tally.total} samples"))
    console.print(f"  total accuracy: {percent(card.overall.accuracy)} % over {card.overall.total} samples")
    console.print()


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def interval(found: Interval | None) -> str:
    return "" if found is None else f"{100 * found.low:.1f} to {100 * found.high:.1f}"


def _breakdown(breakdown: Breakdown, rule: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(f"{breakdown.key} ({rule})", overflow="fold")
    for name in ("accuracy %", "95 %", "right", "of", "no answer %"):
        table.add_column(name, justify="right", no_wrap=True)
    for value, tally in breakdown.groups.items():
        table.add_row(
            Text(value),
            percent(tally.accuracy),
            interval(tally.interval),
            str(tally.right),
            str(tally.total),
            percent(tally.no_answer_rate),
        )
    table.add_row("macro average", percent(breakdown.macro), interval(breakdown.macro_interval), style="bold")
    return table


def _others(tally: Tally) -> list[tuple[str, int]]:
    return [("failed", tally.failed), ("without a reference", tally.unscored), ("not asked yet", tally.pending)]


def _print_list(console: Console, title: str, found: list[str]) -> None:
    if found:
        console.print(title, style="yellow")
        for line in first_problems(found):
            console.print(Text(f"  {line}"), soft_wrap=True)
