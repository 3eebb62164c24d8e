"""What a routing policy is worth, from what becomes of every question on every route. Pure: no file, no model.

| way to answer | the route of a question |
|---|---|
| `direct` | no tool |
| `always X` | route X for every question |
| `best single` | that of `always X` which does best on these very questions, so that it is rather too good |
| `random` | any route by chance; its accuracy is the expectation, nothing is drawn |
| `router` | what the policy decides |
| `oracle` | a right one where there is any: the most that routing could reach |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from relisten.errors import InputError
from relisten.evaluate.compare import Paired
from relisten.evaluate.scoring import Interval, wilson
from relisten.router.decision import Decision
from relisten.router.outcomes import Outcomes
from relisten.router.routes import DIRECT

_RESAMPLES: Final = 10_000
_LITTLE: Final = 0.05


@dataclass(frozen=True)
class Way:
    """One way to answer all questions."""

    name: str
    accuracy: float
    interval: Interval
    calls: float
    """Tools run a question."""
    tool_seconds: float | None
    """Mean a question, each route at its median over the questions whose tools were timed, so that what a tool
    loads when it first runs does not count; None where a route that is taken was never timed."""
    tokens: float
    """Sampled, mean a question."""
    listens: float
    against: Paired | None = None
    """This way (first) and the router (second); None for the router, `random` and `oracle`."""


@dataclass(frozen=True)
class Effect:
    """What a route does to answers, against direct ones."""

    help: int
    """Wrong before, right now."""
    harm: int
    neutral: int

    @property
    def n(self) -> int:
        return self.help + self.harm + self.neutral


@dataclass(frozen=True)
class RouteUse:
    """One route: taken for every question, and as the router took it."""

    name: str
    always: Effect
    taken: Effect
    failed: int
    """Questions on which one of its tools found nothing out."""


@dataclass(frozen=True)
class KindRow:
    """Questions of one kind."""

    kind: str
    n: int
    direct: float
    router: float
    oracle: float
    best: str
    """The route that does best when it is taken for all of them."""
    best_accuracy: float
    taken: Mapping[str, int]
    """How often the router took each route, those that it took."""


@dataclass(frozen=True)
class RoutingScores:
    """All of it, for one set of questions."""

    questions: int
    routes: tuple[str, ...]
    direct: Way
    always: tuple[Way, ...]
    """Every route but direct, in order."""
    random: Way
    router: Way
    oracle: Way
    headroom: float
    """Accuracy of the oracle less that of direct."""
    realised: float | None
    """Share of it that the router gains; None where there is none."""
    realised_interval: Interval | None
    call_rate: float
    """Share of questions on which the router runs a tool."""
    uses: tuple[RouteUse, ...]
    kinds: tuple[KindRow, ...]
    confidence: tuple[tuple[float, float, int], ...]
    """Mean confidence, share of decisions that cost no answer against the best route, and number: by fifths of
    confidence."""

    @property
    def best_single(self) -> Way:
        """The best of the routes that always run a tool."""
        return max(self.always, key=lambda way: way.accuracy)

    @property
    def verdict(self) -> list[str]:
        """Whether the router beats direct and every route that is always taken, by the two measures, in words."""
        lines = []
        for way in (self.direct, *self.always):
            paired = way.against
            assert paired is not None
            interval, gap = paired.interval, paired.difference or 0.0
            apart = self.router.interval.low > way.interval.high
            sure = interval is not None and interval.low > 0
            word = "better" if sure else "worse" if interval is not None and interval.high < 0 else "not told apart"
            span = "" if interval is None else f" [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
            lines.append(
                f"router against {way.name}: {100 * gap:+.1f} points{span}, {word}; the two intervals "
                f"{'do not overlap' if apart else 'overlap'}"
            )
        return [*lines, self._why] if self._why else lines

    @property
    def _why(self) -> str:
        """Why the router is not surely better than every route that is always taken; "" where it is."""
        others = [way.against for way in (self.direct, *self.always)]
        if all(one is not None and one.interval is not None and one.interval.low > 0 for one in others):
            return ""
        if self.headroom < _LITTLE:
            return (
                f"why: tools make hardly any wrong answer of this reasoner right ({100 * self.headroom:.1f} points "
                "at most), so that no router could gain much"
            )
        left = max(self.kinds, key=lambda kind: kind.n * (kind.oracle - kind.router))
        of = f" of {left.kind}" if left.kind else ""
        return (
            f"why: tools could make {100 * self.headroom:.1f} points of answers right, of which the policy finds "
            f"{100 * (self.realised or 0):.0f} %; most is left in the {left.n} questions{of}: router "
            f"{100 * left.router:.1f} %, {left.best} always {100 * left.best_accuracy:.1f} %, oracle "
            f"{100 * left.oracle:.1f} %. More questions to learn from, or to test with, may tell more"
        )

    def to_json(self) -> dict[str, Any]:
        """Accuracies are shares from 0 to 1, intervals are of 95 %."""
        ways = [self.direct, *self.always, self.random, self.router, self.oracle]
        return asdict(self) | {
            "best_single": self.best_single.name,
            "verdict": self.verdict,
            "against": {
                way.name: {
                    "difference": way.against.difference,
                    "interval": way.against.interval,
                    "p": way.against.p_value,
                }
                for way in ways
                if way.against is not None
            },
        }


def score_routing(outcomes: Outcomes, decisions: Sequence[Decision], kinds: Sequence[str]) -> RoutingScores:
    """Scores of decisions on questions whose outcomes are known.

    Args:
        decisions, kinds: of the table's questions, in its order; a kind may be "".

    Raises:
        InputError: no question, no route with a tool, or a decision for a route that was not measured.
    """
    routes = outcomes.routes
    count = len(outcomes.questions)
    if not count or not (len(decisions) == len(kinds) == count):
        raise InputError(f"{count} questions, {len(decisions)} decisions, {len(kinds)} kinds; give one for each")
    if len(routes) < 2:
        raise InputError("direct is the only route; there is nothing to choose")
    if unknown := [one.route.name for one in decisions if one.route not in routes]:
        raise InputError(f"the policy takes route {unknown[0]!r}, which was not measured; measure its own routes")
    table = _Table(outcomes)
    chosen = np.array([routes.index(one.route) for one in decisions])
    at = np.arange(count)
    direct, correct = routes.index(DIRECT), table.correct
    right = correct[at, chosen]
    router = table.way("router", chosen)

    def against(name: str, route: int) -> Way:
        return table.way(name, np.full(count, route), _paired(correct[:, route], right))

    solvable: NDArray[np.bool_] = np.any(correct, axis=1)
    best = np.where(solvable, _cheapest_right(correct, table.calls), direct)
    ranks = np.argsort([one.confidence for one in decisions], kind="stable")
    lost = solvable & ~right
    headroom, realised, span = _realised(correct[:, direct], right, solvable)
    return RoutingScores(
        questions=count,
        routes=tuple(route.name for route in routes),
        direct=against("direct", direct),
        always=tuple(
            against(f"always {route.name}", number) for number, route in enumerate(routes) if number != direct
        ),
        random=table.random(),
        router=router,
        oracle=table.way("oracle", best),
        headroom=headroom,
        realised=realised,
        realised_interval=span,
        call_rate=float((table.calls[chosen] > 0).mean()),
        uses=tuple(
            RouteUse(
                route.name,
                _effect(correct[:, direct], correct[:, number]),
                _effect(correct[chosen == number, direct], correct[chosen == number, number]),
                int(table.failed[:, number].sum()),
            )
            for number, route in enumerate(routes)
        ),
        kinds=tuple(
            _kind(kind, np.array([one == kind for one in kinds]), table, chosen, direct)
            for kind in sorted(set(kinds))
        ),
        confidence=tuple(
            (
                float(np.mean([decisions[i].confidence for i in part])),
                float(1 - lost[part].mean()),
                len(part),
            )
            for part in np.array_split(ranks, min(5, count))
        ),
    )


class _Table:
    def __init__(self, outcomes: Outcomes) -> None:
        arrays = outcomes.as_arrays()
        self.routes = outcomes.routes
        self.correct = arrays.correct
        self.failed = arrays.failed
        self.calls = np.array([len(route.tools) for route in outcomes.routes])
        self._seconds = [_median(column[~np.isnan(column)]) for column in arrays.tool_seconds.T]
        self._tokens = arrays.tokens
        self._listens = arrays.listens

    def way(self, name: str, chosen: NDArray[np.int64], against: Paired | None = None) -> Way:
        at = np.arange(len(chosen))
        right = self.correct[at, chosen]
        return Way(
            name=name,
            accuracy=float(right.mean()),
            interval=wilson(int(right.sum()), len(right)),
            calls=float(self.calls[chosen].mean()),
            tool_seconds=self._cost(chosen),
            tokens=float(self._tokens[at, chosen].mean()),
            listens=float(self._listens[at, chosen].mean()),
            against=against,
        )

    def _cost(self, chosen: NDArray[np.int64]) -> float | None:
        """Mean seconds of the tools of these routes."""
        known = [self._seconds[int(route)] for route in chosen]
        return None if None in known else float(np.mean([seconds or 0.0 for seconds in known]))

    def random(self) -> Way:
        """Every route as often as any other; its interval is that of drawing questions again."""
        each = self.correct.mean(1)
        draws = np.random.default_rng(0).integers(0, len(each), (_RESAMPLES, len(each)))
        low, high = np.quantile(each[draws].mean(1), (0.025, 0.975))
        return Way(
            name="random",
            accuracy=float(each.mean()),
            interval=Interval(float(low), float(high)),
            calls=float(self.calls.mean()),
            tool_seconds=self._cost(np.arange(len(self.routes))),
            tokens=float(self._tokens.mean()),
            listens=float(self._listens.mean()),
        )


def _median(values: NDArray[np.float64]) -> float | None:
    return float(np.median(values)) if len(values) else None


def _paired(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Paired:
    return Paired(
        both=int((first & second).sum()),
        gained=int((~first & second).sum()),
        lost=int((first & ~second).sum()),
        neither=int((~first & ~second).sum()),
    )


def _effect(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Effect:
    paired = _paired(before, after)
    return Effect(paired.gained, paired.lost, paired.both + paired.neither)


def _cheapest_right(correct: NDArray[np.bool_], calls: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of the right routes the one with the fewest tools."""
    order = np.argsort(calls, kind="stable")
    found: NDArray[np.int64] = order[correct[:, order].argmax(1)]
    return found


def _realised(
    direct: NDArray[np.bool_], router: NDArray[np.bool_], oracle: NDArray[np.bool_]
) -> tuple[float, float | None, Interval | None]:
    """Headroom, the share of it that is realised, and that share's interval under the paired bootstrap."""
    gain, room = router.astype(float) - direct, oracle.astype(float) - direct
    if not room.any():
        return 0.0, None, None
    rng = np.random.default_rng(0)
    # A question adds one of a few pairs (gain, room), so that drawing n of them is one multinomial draw.
    pairs, counts = np.unique(np.stack([gain, room], 1), axis=0, return_counts=True)
    draws = rng.multinomial(len(gain), counts / len(gain), size=_RESAMPLES) @ pairs
    shares = draws[:, 0] / np.maximum(draws[:, 1], 1)
    low, high = np.quantile(shares, (0.025, 0.975))
    return float(room.mean()), float(gain.sum() / room.sum()), Interval(float(low), float(high))


def _kind(kind: str, members: NDArray[np.bool_], table: _Table, chosen: NDArray[np.int64], direct: int) -> KindRow:
    correct, taken = table.correct[members], chosen[members]
    means = correct.mean(0)
    best = int(means.argmax())
    names = [route.name for route in table.routes]
    counts = {names[number]: int((taken == number).sum()) for number in range(len(names))}
    return KindRow(
        kind=kind,
        n=len(correct),
        direct=float(means[direct]),
        router=float(correct[np.arange(len(correct)), taken].mean()),
        oracle=float(correct.any(1).mean()),
        best=names[best],
        best_accuracy=float(means[best]),
        taken={name: number for name, number in sorted(counts.items(), key=lambda item: -item[1]) if number},
    )
