"""The scores of a set of rows by all rules, with controls and what failed: what is printed, and `summary.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from relisten.evaluate.results import SUMMARY, Run
from relisten.evaluate.scoring import (
    Breakdown,
    Controls,
    Graded,
    Rule,
    Scorecard,
    Tally,
    controls,
    scorecard,
)
from relisten.files import write_whole
from relisten.jsonl import dump_json


class Failure(NamedTuple):
    """A row that could not be asked."""

    id: str
    error: str


@dataclass(frozen=True)
class Summary:
    """What is known of a run or of a prediction file."""

    title: str
    rule: Rule
    """The rule to show first."""
    rows: int
    cards: Mapping[Rule, Scorecard]
    controls: Mapping[Rule, Controls]
    failures: tuple[Failure, ...] = ()
    problems: tuple[str, ...] = ()
    listens: float | None = None
    """Mean over answers; None for a prediction file."""
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def main(self) -> Scorecard:
        return self.cards[self.rule]

    def to_json(self) -> dict[str, Any]:
        """Accuracies are shares from 0 to 1, null where there is nothing to score; intervals are of 95 %."""
        return {
            "title": self.title,
            "rule": str(self.rule),
            "rows": self.rows,
            "listens": self.listens,
            "scores": {str(rule): card_to_json(card) for rule, card in self.cards.items()},
            "controls": {str(rule): asdict(found) for rule, found in self.controls.items()},
            "failures": [failure._asdict() for failure in self.failures],
            "problems": list(self.problems),
            "config": dict(self.config),
        }


class Reference(NamedTuple):
    """What is right in a row, and among what."""

    answer: str | None
    choices: tuple[str, ...]


def summarize(
    title: str,
    rule: Rule,
    keys: Sequence[str],
    rows: Sequence[Graded],
    references: Sequence[Reference],
    **further: Any,
) -> Summary:
    """Score `rows` by every rule; `references` are those of the rows that could be asked."""
    return Summary(
        title=title,
        rule=rule,
        rows=len(rows),
        cards={each: scorecard(rows, each, keys) for each in Rule},
        controls={each: controls(references, each) for each in Rule},
        **further,
    )


def summarize_run(run: Run) -> Summary:
    """The scores of a run folder, finished or not."""
    answered = [row.trace for row in run.rows if row.trace is not None and row.error is None]
    return summarize(
        f"{run.config.benchmark}, {run.config.model}",
        run.config.rule,
        run.config.breakdowns,
        [row.graded for row in run.rows],
        [Reference(row.question.answer, row.question.choices) for row in run.rows if row.question is not None],
        failures=tuple(Failure(row.id, row.error or "") for row in run.failed),
        problems=run.problems,
        listens=sum(len(trace.listens) for trace in answered) / len(answered) if answered else None,
        config=run.config.to_json(),
    )


def write_summary(folder: Path, summary: Summary) -> None:
    """Write `summary.json` into a run folder."""
    write_whole(folder / SUMMARY, dump_json(summary.to_json(), indent=1) + "\n")


def card_to_json(card: Scorecard) -> dict[str, Any]:
    """A tally with its breakdowns."""
    return _tally(card.overall) | {"breakdowns": {found.key: _breakdown(found) for found in card.breakdowns}}


def _breakdown(breakdown: Breakdown) -> dict[str, Any]:
    return {
        "macro": breakdown.macro,
        "macro_interval": breakdown.macro_interval,
        "groups": {value: _tally(tally) for value, tally in breakdown.groups.items()},
    }


def _tally(tally: Tally) -> dict[str, Any]:
    return {
        "accuracy": tally.accuracy,
        "interval": tally.interval,
        "total": tally.total,
        "no_answer_rate": tally.no_answer_rate,
        **asdict(tally),
    }
