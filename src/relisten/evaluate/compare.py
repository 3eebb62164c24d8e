"""Two runs on the same questions: who is better, by how much, and whether chance explains it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from relisten.evaluate.results import ResultRow, Run
from relisten.evaluate.scoring import Interval, Outcome, Rule

SCORED: Final = frozenset({Outcome.RIGHT, Outcome.WRONG, Outcome.NO_ANSWER})
_RESAMPLES: Final = 10_000


@dataclass(frozen=True)
class Paired:
    """Outcomes of two runs on the questions that both were scored on."""

    both: int = 0
    """Both right."""
    gained: int = 0
    """Only the second is right."""
    lost: int = 0
    """Only the first is right."""
    neither: int = 0

    @property
    def n(self) -> int:
        return self.both + self.gained + self.lost + self.neither

    @property
    def difference(self) -> float | None:
        """Accuracy of the second less that of the first; None where there is no pair."""
        return (self.gained - self.lost) / self.n if self.n else None

    @property
    def interval(self) -> Interval | None:
        """95 % percentile interval of the difference under the paired bootstrap: questions drawn again.

        A drawn question adds +1, -1 or 0, so that drawing n of them is one multinomial draw. None where no question
        changed: every draw would be 0, which is no interval.
        """
        if not self.gained + self.lost:
            return None
        same = self.both + self.neither
        shares = np.array([self.gained, self.lost, same]) / self.n
        draws = np.random.default_rng(0).multinomial(self.n, shares, size=_RESAMPLES)
        low, high = np.quantile((draws[:, 0] - draws[:, 1]) / self.n, (0.025, 0.975))
        return Interval(float(low), float(high))

    @property
    def p_value(self) -> float:
        """McNemar's exact test, two-sided: were gains and losses as likely as each other, how often would they
        differ this much? 1 where nothing was gained or lost."""
        changed, fewer = self.gained + self.lost, min(self.gained, self.lost)
        tail = sum(math.comb(changed, k) for k in range(fewer + 1))
        return min(1.0, 2 * tail / (1 << changed))


def compare(first: Run, second: Run, rule: Rule = Rule.OFFICIAL) -> Paired:
    """The two runs over the rows that both have; see `pairs`."""
    return tally(pairs(first, second, rule), rule)


def compare_groups(first: Run, second: Run, key: str, rule: Rule = Rule.OFFICIAL) -> Mapping[str, Paired]:
    """The same for each value of a breakdown key, sorted; rows without it have no part."""
    groups: dict[str, list[tuple[ResultRow, ResultRow]]] = {}
    for pair in pairs(first, second, rule):
        if key in pair[0].groups:
            groups.setdefault(pair[0].groups[key], []).append(pair)
    return {value: tally(found, rule) for value, found in sorted(groups.items())}


def pairs(first: Run, second: Run, rule: Rule = Rule.OFFICIAL) -> list[tuple[ResultRow, ResultRow]]:
    """Rows with the same id, question, choices and reference that were scored in both runs; a row that failed or
    is pending in one of them is no evidence for or against either."""
    found = []
    for row in first.rows:
        other = second.by_id.get(row.id)
        if other is not None and {row.outcome(rule), other.outcome(rule)} <= SCORED and _same(row, other):
            found.append((row, other))
    return found


def tally(found: Iterable[tuple[ResultRow, ResultRow]], rule: Rule) -> Paired:
    """Counts over pairs of scored rows."""
    counts = {(a, b): 0 for a in (True, False) for b in (True, False)}
    for first, second in found:
        counts[first.outcome(rule) is Outcome.RIGHT, second.outcome(rule) is Outcome.RIGHT] += 1
    return Paired(counts[True, True], counts[False, True], counts[True, False], counts[False, False])


def _same(row: ResultRow, other: ResultRow) -> bool:
    a, b = row.question, other.question
    return a is not None and b is not None and (a.text, a.choices, a.answer) == (b.text, b.choices, b.answer)
