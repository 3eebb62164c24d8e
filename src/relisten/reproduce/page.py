"""One HTML file that needs nothing else: the table, what it says, and curves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from relisten.evaluate.analysis import Mean
from relisten.evaluate.scoring import Interval
from relisten.report import figures
from relisten.report.charts import SERIES, Axis, Line, Point, dot_chart, line_chart, percent, round_up
from relisten.report.html import Child, Markup, tag
from relisten.report.page import write_page
from relisten.report.sections import section
from relisten.reproduce.arms import ARMS
from relisten.reproduce.curves import QUANTITIES, Curve, curves, losses
from relisten.reproduce.evaluations import TEMPERATURE
from relisten.reproduce.plan import CLIP_SECONDS, LONG_SECONDS, Plan
from relisten.reproduce.table import Table

_SAMPLED = "means over seeds, of answers that were sampled for training, but for the accuracy."
_SHARES = ("right", "val_right", "overlap")


def write_reproduction(plan: Plan, table: Table, folder: Path, path: Path) -> None:
    """Write the page of a finished reproduction.

    Raises:
        InputError: it cannot be written.
    """
    reinforced = curves(plan, folder)
    parts = [
        _results(plan, table),
        _comparisons(table),
        _kinds(table),
        _curves("steps", "Reinforcement at equal steps", reinforced, _SAMPLED.capitalize()),
        _at_equal_time(table, reinforced),
        _curves("losses", "Supervised training", losses(plan, folder), "Means over seeds."),
        _about(plan),
    ]
    write_page(path, f"Ablation, budget {plan.budget.name}", "relisten reproduce", parts)


def notes(plan: Plan, table: Table) -> list[str]:
    """What a reader must know before any figure."""
    budget = plan.budget
    told = [
        f"The base started from the weights of {plan.start}, but for its tags, whose rows were random. "
        f"{len(plan.seeds)} seed{'s' * (len(plan.seeds) > 1)}, {budget.base_steps} steps of the base, "
        f"{budget.sft_steps} of SFT, {budget.rl_steps} of RL with {budget.rl_batch} x {budget.group} answers. "
        f"Answers are sampled at temperature {TEMPERATURE:g}, as in the paper, where it does not say greedy."
    ]
    if budget.name != "full":
        told.append(
            f"Budget {budget.name}: far too few steps and seeds for the order of the arms to mean anything; it "
            "shows that everything runs."
        )
    told += [
        f"Arm {one.arm}: {one.failed} questions failed or were never asked; they count as not right."
        for one in table.figures
        if one.failed
    ]
    return told


def _results(plan: Plan, table: Table) -> Markup:
    head: list[Child] = [
        "Arm", "", f"Accuracy, {CLIP_SECONDS:g} s", "Seeds", "Greedy", f"Accuracy, {LONG_SECONDS:g} s",
        "No answer", "Words", "Listens", "Listened at all", "Segment", "Overlap", "Latency",
    ]  # fmt: skip
    rows: list[list[Child]] = []
    for one in table.figures:
        low, high = min(one.by_seed), max(one.by_seed)
        rows.append(
            [
                one.arm,
                one.about,
                _share(one.accuracy),
                f"{100 * low:.1f} to {100 * high:.1f}" if len(one.by_seed) > 1 else f"{100 * low:.1f}",
                _share(one.greedy),
                _share(one.long),
                percent(round(one.unanswered, 3)),
                figures.mean(one.words, 0),
                figures.mean(one.listens),
                percent(round(one.listened, 3)),
                figures.mean(one.length, 1, " s"),
                figures.mean(one.overlap, percent=True),
                figures.NOTHING if one.latency is None else f"{one.latency:.2f} s",
            ]
        )
    return section(
        "table",
        "The table",
        [tag("p", note, class_="notice") for note in notes(plan, table)],
        figures.table(head, rows, caption="Arms of the ablation", class_="wide"),
        lead=f"{table.questions:,} held-out questions, {table.long_questions:,} about clips of {LONG_SECONDS:g} s. "
        "Intervals: 95 %, over clips with all their questions. Latency: median of answers asked for one at a time, "
        "beside other work.",
    )


def _comparisons(table: Table) -> Markup | None:
    if not table.differences:
        return None
    rows: list[list[Child]] = [
        [
            f"{one.arm} over {one.over}",
            one.tells,
            *(figures.points(mean.mean, _ends(mean)) for mean in (one.difference, one.greedy)),
        ]
        for one in table.differences
    ]
    return section(
        "differences",
        "What each step brings",
        figures.table(
            ["Arms", "What it tells", "Points", "Points, greedy"], rows, caption="Differences of accuracies"
        ),
        lead="Over the same questions; the interval resamples clips with all their questions.",
    )


def _kinds(table: Table) -> Markup:
    kinds = list(dict.fromkeys(kind for one in table.figures for kind in one.kinds))
    points = [
        [
            Point(m.mean, m.low, m.high, f"{one.arm}, {kind}: {100 * m.mean:.1f} %, n = {m.n}")
            if (m := one.kinds.get(kind)) is not None
            else None
            for kind in kinds
        ]
        for one in table.figures
    ]
    charts = [
        tag("figure", tag("figcaption", _legend(names)), dot_chart("accuracy by kind", kinds, "", _ACCURACY, drawn))
        for names, drawn in (
            ([one.arm for one in table.figures[first : first + SERIES]], points[first : first + SERIES])
            for first in range(0, len(points), SERIES)
        )
    ]
    head: list[Child] = ["Kind", *(one.arm for one in table.figures)]
    rows: list[list[Child]] = [
        [kind, *(_share(one.kinds[kind]) if kind in one.kinds else figures.NOTHING for one in table.figures)]
        for kind in kinds
    ]
    body = figures.table(head, rows, caption="Accuracy by kind", class_="wide")
    return section("kinds", "By kind of question", tag("div", charts, class_="charts"), body)


def _at_equal_time(table: Table, lines: Mapping[str, list[Curve]]) -> Markup | None:
    if not lines:
        return None
    rows: list[list[Child]] = [
        [
            f"{one.arm} over {one.over}",
            ", ".join(map(str, one.steps)),
            *(_share(mean) for mean in (one.accuracy, one.greedy)),
            *(figures.points(mean.mean, _ends(mean)) for mean in (one.difference, one.greedy_difference)),
        ]
        for one in table.at_equal_time
    ]
    head: list[Child] = ["Arms", "Steps, by seed", "Accuracy", "Greedy", "Points", "Points, greedy"]
    told = figures.table(head, rows, caption="One arm as it was when another was done") if rows else None
    lead = (
        "Held-out questions answered by an arm as it was when another had done all its steps, the time of SFT "
        f"included; then {_SAMPLED}"
    )
    return section("time", "Reinforcement at equal time", told, _charts(lines, "minutes of training"), lead=lead)


def _curves(id: str, title: str, lines: Mapping[str, list[Curve]], lead: str) -> Markup | None:
    return section(id, title, _charts(lines, "steps"), lead=lead) if lines else None


def _charts(lines: Mapping[str, list[Curve]], along: str) -> Markup:
    """A chart for every quantity, by steps or by minutes."""
    place = 1 if along.startswith("minutes") else 0
    charts = []
    for quantity, drawn in lines.items():
        high = round_up(max(point[2] for curve in drawn for point in curve.points))
        y = _ACCURACY if quantity in _SHARES else Axis(0, high, "")
        x = Axis(0, max(point[place] for curve in drawn for point in curve.points) or 1.0, along)
        shown = [
            Line(number, [(point[place], max(y.low, point[2])) for point in curve.points], title=curve.name)
            for number, curve in enumerate(drawn)
        ]
        name = QUANTITIES.get(quantity, quantity)
        legend = _legend([curve.name for curve in drawn])
        charts.append(tag("figure", tag("figcaption", name, legend), line_chart(name, x, y, shown)))
    return tag("div", charts, class_="charts")


def _about(plan: Plan) -> Markup:
    told = [
        tag("li", f"{arm.name}: {arm.about}; {arm.format}, reward {arm.reward or 'none'}")
        for arm in (ARMS[name] for name in plan.arms)
    ]
    settings = tag("pre", json.dumps(plan.to_json(), indent=2))
    return section("about", "What was run", tag("ul", told), tag("details", tag("summary", "Settings"), settings))


def _legend(names: Sequence[str]) -> Markup:
    return tag(
        "span", [[figures.swatch(number % SERIES, name), " "] for number, name in enumerate(names)], class_="legend"
    )


def _share(mean: Mean) -> Markup:
    return figures.share(mean.mean, _ends(mean), mean.n)


def _ends(mean: Mean) -> Interval:
    return Interval(mean.low, mean.high)


_ACCURACY = Axis(0, 1, "", percent)
