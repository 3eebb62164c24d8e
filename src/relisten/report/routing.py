"""The report of a router as one HTML file, without script or network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from relisten.evaluate.routing import RoutingScores, Way
from relisten.evaluate.routing_run import RoutingReport
from relisten.report import figures
from relisten.report.charts import Axis, Line, Point, bar_chart, dot_chart, line_chart, percent
from relisten.report.html import Child, Markup, tag
from relisten.report.page import write_page
from relisten.report.sections import section


def write_routing_report(report: RoutingReport, path: Path) -> Path:
    """Write the page.

    Raises:
        InputError: it cannot be written.
    """
    title = f"Router of {report.model}"
    parts = [
        _overview(report),
        _verdict(report.scores),
        _routes(report.scores),
        _kinds(report.scores),
        _confidence(report.scores),
    ]
    return write_page(path, title, "When to call an audio tool", parts)


def _overview(report: RoutingReport) -> Markup:
    scores = report.scores
    ways = [scores.direct, *scores.always, scores.random, scores.router, scores.oracle]
    rows: list[list[Child]] = []
    for way in ways:
        name: Child = tag("b", way.name) if way is scores.router else way.name
        if way is scores.best_single:
            name = [way.name, tag("small", " best single tool here")]
        against = way.against
        gain: Child = figures.NOTHING if against is None else figures.points(against.difference, against.interval)
        p: Child = figures.NOTHING if against is None else figures.p_value(against.p_value)
        rows.append([name, figures.share(way.accuracy, way.interval), gain, p, *_costs(way)])
    head = ["Way to answer", "Accuracy", "Router gains, points", "p", "Tools a question", "Their seconds", "Tokens",
            "Listens"]  # fmt: skip
    share = report.weights / report.reasoner_weights
    lead = (
        f"{scores.questions:,} questions. The policy ({report.policy}) has {report.weights:,} parameters, "
        f"{100 * share:.2f} % of the reasoner's {report.reasoner_weights:,}; threshold {report.threshold:.2f}. "
        f"It runs a tool on {100 * scores.call_rate:.0f} % of the questions. Small figures are 95 % intervals, "
        "those of gains by the paired bootstrap; p is McNemar's."
    )
    chart = dot_chart(
        "accuracy by way to answer",
        [way.name.removeprefix("always ") for way in ways],
        "way to answer",
        _span(ways),
        [[Point(way.accuracy, *way.interval, _title(way)) for way in ways]],
    )
    return section(
        "overview",
        "Ways to answer",
        figures.table(head, rows, caption="Accuracy and cost of each way to answer", class_="wide"),
        tag("div", tag("figure", tag("figcaption", tag("b", "Accuracy")), chart), class_="charts"),
        _latency(report),
        lead=lead,
    )


def _costs(way: Way) -> list[Child]:
    seconds: Child = figures.NOTHING if way.tool_seconds is None else f"{way.tool_seconds:.3f}"
    return [f"{way.calls:.2f}", seconds, f"{way.tokens:.0f}", f"{way.listens:.2f}"]


def _span(ways: Sequence[Way]) -> Axis:
    low = min(way.interval.low for way in ways)
    high = max(way.interval.high for way in ways)
    return Axis(max(0.0, low - 0.02), min(1.0, high + 0.02), "accuracy", lambda value: percent(round(value, 3)))


def _title(way: Way) -> str:
    return f"{way.name}: {100 * way.accuracy:.1f} % [{100 * way.interval.low:.1f}, {100 * way.interval.high:.1f}]"


def _latency(report: RoutingReport) -> Child:
    found = report.latency
    if found is None:
        return None
    return tag(
        "p",
        f"Alone on the machine, median of {found.questions} answers: direct {found.direct:.3f} s, by the router "
        f"{found.router:.3f} s, of which {found.decision:.3f} s to the decision (reading the prompt, which a "
        f"direct answer does, too); its tools take {found.tools:.3f} s a question on average, {found.calls:.2f} of "
        "them.",
    )


def _verdict(scores: RoutingScores) -> Markup:
    realised: Child = "There is no headroom: no route is ever right where direct is wrong."
    if scores.realised is not None:
        span = scores.realised_interval
        within = "" if span is None else f" ({100 * span.low:.0f} to {100 * span.high:.0f})"
        realised = (
            f"The oracle is {100 * scores.headroom:.1f} points above direct; the router realises "
            f"{100 * scores.realised:.0f} %{within} of them."
        )
    lines = [tag("li", line) for line in scores.verdict]
    return section("verdict", "Does it pay?", tag("p", realised), tag("ul", lines))


def _routes(scores: RoutingScores) -> Markup:
    rows: list[list[Child]] = []
    for use in scores.uses:
        always, taken = use.always, use.taken
        rows.append(
            [
                use.name,
                always.help,
                always.harm,
                always.neutral,
                taken.n,
                taken.help,
                taken.harm,
                taken.neutral,
                use.failed,
            ]
        )
    head = [
        "Route",
        "Always: helps",
        "harms",
        "neither",
        "Router takes it",
        "helps",
        "harms",
        "neither",
        "Tool failed",
    ]
    lead = "Against answering directly: how many answers a route makes right, makes wrong, and leaves as they are."
    return section("routes", "What each route does", figures.table(head, rows, caption="Help and harm"), lead=lead)


def _kinds(scores: RoutingScores) -> Markup:
    rows: list[list[Child]] = []
    for kind in scores.kinds:
        taken = ", ".join(f"{name} {number}" for name, number in list(kind.taken.items())[:3])
        shares = (f"{100 * share:.1f} %" for share in (kind.direct, kind.router, kind.oracle))
        best = f"{kind.best} ({100 * kind.best_accuracy:.1f} %)"
        rows.append([kind.kind or "(no kind)", kind.n, *shares, best, taken])
    head = ["Kind", "n", "Direct", "Router", "Oracle", "Best single route", "Routes taken most"]
    chart = bar_chart(
        "accuracy by kind",
        [kind.kind for kind in scores.kinds],
        "kind of question",
        Axis(0, 1, "accuracy", percent),
        [
            (
                0,
                [
                    Point(kind.direct, 0, 0, f"{kind.kind}, direct: {100 * kind.direct:.1f} %")
                    for kind in scores.kinds
                ],
            ),
            (
                1,
                [
                    Point(kind.router, 0, 0, f"{kind.kind}, router: {100 * kind.router:.1f} %")
                    for kind in scores.kinds
                ],
            ),
            (
                2,
                [
                    Point(kind.oracle, 0, 0, f"{kind.kind}, oracle: {100 * kind.oracle:.1f} %")
                    for kind in scores.kinds
                ],
            ),
        ],
    )
    legend = tag(
        "p", [figures.swatch(n, name) for n, name in enumerate(("direct", "router", "oracle"))], class_="legend"
    )
    return section(
        "kinds",
        "By kind of question",
        figures.table(head, rows, caption="Accuracy by kind of question"),
        tag("div", tag("figure", tag("figcaption", tag("b", "Accuracy by kind")), legend, chart), class_="charts"),
    )


def _confidence(scores: RoutingScores) -> Markup:
    points = [(mean, kept) for mean, kept, _ in scores.confidence]
    axis = Axis(0, 1, "confidence of the decision", percent)
    chart = line_chart(
        "decisions that cost no answer, by confidence",
        axis,
        Axis(0, 1, "", percent),
        [Line(0, points)],
    )
    rows: list[list[Child]] = [
        [f"{100 * mean:.0f} %", f"{100 * kept:.1f} %", number] for mean, kept, number in scores.confidence
    ]
    head = ["Mean confidence", "Decisions that cost no answer", "n"]
    return section(
        "confidence",
        "Confidence",
        figures.table(head, rows, caption="Confidence and what came of it"),
        tag("div", tag("figure", tag("figcaption", tag("b", "By fifths of confidence")), chart), class_="charts"),
        lead="A decision costs an answer where another route would have been right and the one taken is wrong.",
    )
