"""Scores of routing against what they are by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from relisten.errors import InputError
from relisten.evaluate.routing import Effect, score_routing
from relisten.router.decision import Decision
from relisten.router.outcomes import Outcome, Outcomes
from relisten.router.routes import DIRECT, Route

PITCH, BOTH = Route(("pitch",)), Route(("pitch", "silence"))
ROUTES = (PITCH, DIRECT, BOTH)
RIGHT = ("010", "110", "001", "000", "100", "101")
"""Of each question: right by pitch, direct, both."""
KINDS = ("high", "high", "long", "long", "high", "high")


def table(right: tuple[str, ...] = RIGHT) -> Outcomes:
    rows = tuple(
        tuple(
            Outcome(f"q{q}", route.name, row[r] == "1", "x", 0.5 * len(route.tools) if q else None, 1.0, 10 + r, r)
            for r, route in enumerate(ROUTES)
        )
        for q, row in enumerate(right)
    )
    return Outcomes("weights", tuple(f"q{q}" for q in range(len(right))), ROUTES, rows)


def taken(*routes: Route) -> list[Decision]:
    return [Decision(route, 0.5 + number / 20) for number, route in enumerate(routes)]


DECISIONS = taken(DIRECT, DIRECT, BOTH, PITCH, PITCH, DIRECT)


def test_ways_to_answer() -> None:
    scores = score_routing(table(), DECISIONS, KINDS)
    assert scores.direct.accuracy == 2 / 6
    assert [(way.name, way.accuracy) for way in scores.always] == [
        ("always pitch", 3 / 6),
        ("always pitch+silence", 2 / 6),
    ]
    assert scores.best_single.name == "always pitch"
    assert scores.random.accuracy == pytest.approx(7 / 18)
    assert scores.random.interval.low < 7 / 18 < scores.random.interval.high
    assert scores.router.accuracy == 4 / 6
    assert scores.oracle.accuracy == 5 / 6
    assert scores.headroom == 3 / 6
    assert scores.realised == 2 / 3
    assert scores.realised_interval is not None
    assert scores.realised_interval.low <= 2 / 3 <= scores.realised_interval.high


def test_what_they_cost() -> None:
    scores = score_routing(table(), DECISIONS, KINDS)
    assert scores.router.calls == 4 / 6
    assert scores.call_rate == 3 / 6
    assert [way.calls for way in scores.always] == [1, 2]
    # The oracle takes the cheapest of the right routes, and direct where none is right.
    assert scores.oracle.calls == (0 + 0 + 2 + 0 + 1 + 1) / 6
    assert scores.router.tokens == np.mean([11, 11, 12, 10, 10, 11])
    assert scores.always[0].tool_seconds == 0.5  # over the five whose tools were timed


def test_the_router_is_compared_question_by_question() -> None:
    scores = score_routing(table(), DECISIONS, KINDS)
    against = scores.direct.against
    assert against is not None
    assert (against.gained, against.lost, against.both, against.neither) == (2, 0, 2, 2)
    assert scores.router.against is None
    assert "router against direct: +33.3 points" in scores.verdict[0]
    assert scores.verdict[0].endswith("overlap")
    assert scores.verdict[-1].startswith(
        "why: tools could make 50.0 points of answers right, of which the policy finds 67 %; most is left in the"
    )


def test_a_router_that_is_surely_better_is_told_so() -> None:
    rows = ("001",) * 40 + ("010",) * 40
    scores = score_routing(table(rows), taken(*[BOTH] * 40, *[DIRECT] * 40), [""] * 80)
    assert all("better; the two intervals do not overlap" in line for line in scores.verdict)
    assert scores.realised == 1.0
    worst = score_routing(table(rows), taken(*[PITCH] * 80), [""] * 80)
    assert "worse" in worst.verdict[0]
    assert "not told apart" in worst.verdict[1]  # always pitch: the very same


def test_help_and_harm_of_routes() -> None:
    uses = {use.name: use for use in score_routing(table(), DECISIONS, KINDS).uses}
    assert uses["pitch"].always == Effect(help=2, harm=1, neutral=3)
    assert uses["pitch"].taken == Effect(help=1, harm=0, neutral=1)
    assert uses["pitch+silence"].taken == Effect(help=1, harm=0, neutral=0)
    assert uses["direct"].always == Effect(0, 0, 6)


def test_kinds() -> None:
    high, long = score_routing(table(), DECISIONS, KINDS).kinds
    assert (high.kind, high.n, high.direct, high.router, high.oracle) == ("high", 4, 0.5, 0.75, 1.0)
    assert (high.best, high.best_accuracy) == ("pitch", 0.75)
    assert dict(high.taken) == {"direct": 3, "pitch": 1}
    assert (long.best, long.best_accuracy) == ("pitch+silence", 0.5)


def test_confidence_is_told_by_fifths() -> None:
    fifths = score_routing(table(), DECISIONS, KINDS).confidence
    assert [number for _, _, number in fifths] == [2, 1, 1, 1, 1]
    assert fifths[-1] == (0.75, 0.0, 1)  # direct on the last question, which both others answer


def test_without_headroom_nothing_can_be_realised() -> None:
    scores = score_routing(table(("010", "000")), taken(DIRECT, DIRECT), ["", ""])
    assert "no router could gain much" in scores.verdict[-1]
    assert (scores.headroom, scores.realised) == (0.0, None)


def test_numbers_are_json() -> None:
    told = json.loads(json.dumps(score_routing(table(), DECISIONS, KINDS).to_json()))
    assert told["best_single"] == "always pitch"
    assert told["against"]["direct"]["difference"] == pytest.approx(1 / 3)


def test_what_cannot_be_scored_is_told() -> None:
    with pytest.raises(InputError, match="give one for each"):
        score_routing(table(), DECISIONS[1:], KINDS)
    with pytest.raises(InputError, match="'onsets', which was not measured"):
        score_routing(table(), [*DECISIONS[1:], Decision(Route(("onsets",)), 1.0)], KINDS)
