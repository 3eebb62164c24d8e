"""What came out: every arm's figures over all seeds, and what one arm has over another.

An accuracy is the mean over seeds of each question's outcome, then over questions; its interval resamples
clips with all their questions, which all arms and seeds share. How far seeds are apart is told beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from relisten.evaluate.analysis import Mean, analyse
from relisten.evaluate.results import ResultRow, Run, read_run
from relisten.evaluate.scoring import Outcome, Rule
from relisten.reproduce import folders
from relisten.reproduce.arms import ARMS, PAIRS, Arm
from relisten.reproduce.evaluations import ALONE, GREEDY, steps_in_time_of, unfinished
from relisten.reproduce.jobs import pairs_at_equal_time, seeds_of
from relisten.reproduce.plan import Plan
from relisten.reproduce.sets import LONG, TEST

Shares = Mapping[tuple[str, str], float]
"""By clip and id of a question."""

_RULE = Rule.STRICT


@dataclass(frozen=True)
class Figures:
    """One arm."""

    arm: str
    about: str
    accuracy: Mean
    """At the paper's temperature."""
    by_seed: tuple[float, ...]
    greedy: Mean
    long: Mean
    """On clips 2.5 times as long as those of training."""
    kinds: Mapping[str, Mean]
    """Accuracy by kind of question."""
    words: Mean | None
    listens: Mean | None
    listened: float
    """Share of the answers that listened at least once."""
    length: Mean | None
    """Seconds of a segment."""
    overlap: Mean | None
    latency: float | None
    """Median seconds of an answer that is asked for alone."""
    unanswered: float
    failed: int
    """Questions of all evaluations that failed or were never asked; they count as not right."""


@dataclass(frozen=True)
class Difference:
    """One arm's accuracy less another's, over the same questions."""

    arm: str
    over: str
    tells: str
    difference: Mean
    greedy: Mean


@dataclass(frozen=True)
class EqualTime:
    """One arm as it was when another had done all its steps, over that other."""

    arm: str
    over: str
    steps: tuple[int, ...]
    """That the arm had done, by seed."""
    accuracy: Mean
    greedy: Mean
    difference: Mean
    greedy_difference: Mean


@dataclass(frozen=True)
class Table:
    figures: tuple[Figures, ...]
    differences: tuple[Difference, ...]
    at_equal_time: tuple[EqualTime, ...]
    questions: int
    long_questions: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def collect(plan: Plan, folder: Path) -> Table:
    """The table of a finished reproduction.

    Raises:
        InputError: an evaluation is missing or cannot be read.
    """
    outcomes: dict[str, Shares] = {}
    greedy: dict[str, Shares] = {}
    found = []
    for name in plan.arms:
        runs = {
            what: [_read(folder, seed, name, what) for seed in seeds_of(plan, ARMS[name])]
            for what in (TEST, GREEDY, LONG, ALONE)
        }
        outcomes[name], greedy[name] = _right(runs[TEST]), _right(runs[GREEDY])
        found.append(_figures(name, runs, outcomes[name], greedy[name]))
    differences = [
        Difference(one, other, tells, _less(outcomes[one], outcomes[other]), _less(greedy[one], greedy[other]))
        for one, other, tells in PAIRS
        if one in outcomes and other in outcomes
    ]
    early = [
        _at_equal_time(plan, folder, one, two, outcomes[two.name], greedy[two.name])
        for one, two in pairs_at_equal_time(plan)
    ]
    return Table(tuple(found), tuple(differences), tuple(early), found[0].accuracy.n, found[0].long.n)


def _at_equal_time(plan: Plan, folder: Path, one: Arm, two: Arm, other: Shares, other_greedy: Shares) -> EqualTime:
    places = [folders.at_equal_time(folder, seed, one, two) for seed in plan.seeds]
    right, greedy = (_right([read_run(place / what) for place in places]) for what in (TEST, GREEDY))
    return EqualTime(
        arm=one.name,
        over=two.name,
        steps=tuple(steps_in_time_of(folder, seed, one, two) for seed in plan.seeds),
        accuracy=_of(right),
        greedy=_of(greedy),
        difference=_less(right, other),
        greedy_difference=_less(greedy, other_greedy),
    )


def _figures(name: str, runs: Mapping[str, list[Run]], right: Shares, greedy: Shares) -> Figures:
    tested = runs[TEST]
    rows = [row for run in tested for row in run.rows]
    told = analyse(rows, _RULE)
    alone = analyse([row for run in runs[ALONE] for row in run.rows], _RULE)
    kinds: dict[str, dict[tuple[str, str], float]] = {}
    for row in tested[0].rows:
        if row.question is not None:
            kinds.setdefault(str(row.question.metadata.get("kind", "")), {})[_key(row)] = right[_key(row)]
    return Figures(
        arm=name,
        about=ARMS[name].about,
        accuracy=_of(right),
        by_seed=tuple(float(np.mean(list(_right([run]).values()))) for run in tested),
        greedy=_of(greedy),
        long=_of(_right(runs[LONG])),
        kinds={kind: _of(shares) for kind, shares in sorted(kinds.items())},
        words=told.words,
        listens=told.listens,
        listened=told.listened / max(1, told.answers),
        length=told.length,
        overlap=told.overlap,
        latency=None if alone.latency is None else alone.latency.median,
        unanswered=sum(row.outcome(_RULE) is Outcome.NO_ANSWER for row in rows) / max(1, len(rows)),
        failed=sum(len(unfinished(run)) for each in runs.values() for run in each),
    )


def _read(folder: Path, seed: int, name: str, what: str) -> Run:
    return read_run(folders.arm_folder(folder, seed, ARMS[name]) / what)


def _key(row: ResultRow) -> tuple[str, str]:
    clip = row.question.metadata.get("clip") if row.question is not None else None
    return str(clip or row.id), row.id


def _right(runs: list[Run]) -> Shares:
    """For every question the share of the runs that have it right."""
    shares: dict[tuple[str, str], list[bool]] = {}
    for run in runs:
        for row in run.rows:
            shares.setdefault(_key(row), []).append(row.outcome(_RULE) is Outcome.RIGHT)
    return {key: float(np.mean(values)) for key, values in shares.items()}


def _less(one: Shares, other: Shares) -> Mean:
    return _of({key: one[key] - other[key] for key in one})


def _of(shares: Shares) -> Mean:
    """Questions about one clip are not independent, so that whole clips are drawn for the interval."""
    mean = Mean.of(shares.values(), [clip for clip, _ in shares])
    assert mean is not None  # for the type checker: there is always a question
    return mean
