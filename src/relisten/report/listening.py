"""The section on listening again: a table of measures, and charts with the numbers behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from relisten.evaluate.analysis import BINS, PHASES, TRUTHS, Analysis, Mean
from relisten.evaluate.attention_curve import SETTLED
from relisten.evaluate.scoring import Tally, wilson
from relisten.report import figures
from relisten.report.charts import Axis, Line, Point, bar_chart, dot_chart, line_chart, percent, round_up, stacked
from relisten.report.html import Child, Markup, tag
from relisten.report.sections import Shown, section

_PARTS = (*PHASES, "waiting")
_LENGTH_BINS = 12


def listening(runs: Sequence[Shown]) -> Markup | None:
    """None where no run has an answer yet."""
    if not any(shown.analysis.answers for shown in runs):
        return None
    charts = [
        _listens(runs),
        _accuracy_by_listens(runs),
        _lengths(runs),
        _coverage(runs),
        _latency(runs),
        _attention(runs),
    ]
    legend = tag("p", [shown.label for shown in runs], class_="legend") if len(runs) > 1 else None
    return section(
        "listening",
        "Listening again",
        _measures(runs),
        legend,
        tag("div", charts, class_="charts"),
        lead="How often the answers listened again, where, how well placed, and what it cost.",
    )


def _measures(runs: Sequence[Shown]) -> Markup:
    found = [shown.analysis for shown in runs]
    rows: list[list[Child]] = [
        ["Answers", *(figures.count(a.answers) for a in found)],
        ["Listened at least once", *(figures.accuracy(_part(a.listened, a.answers)) for a in found)],
        ["Listened twice or more", *(figures.accuracy(_part(a.listened_twice, a.answers)) for a in found)],
        ["Listens an answer", *(figures.mean(a.listens) for a in found)],
        ["Length of a segment", *(figures.mean(a.length, unit=" s") for a in found)],
        ["Share of the clip heard again", *(figures.mean(a.covered, percent=True) for a in found)],
        ["Overlap of an answer's segments", *(figures.mean(a.overlap, percent=True) for a in found)],
        ["Segments that repeat an earlier one", *(figures.accuracy(a.duplicate) for a in found)],
    ]
    for key, name in TRUTHS.items():
        if any(key in a.placed for a in found):
            rows += _placement(found, key, name)
    rows += [
        ["Words an answer", *(figures.mean(a.words, 1) for a in found)],
        ["Sampled tokens an answer", *(figures.mean(a.tokens, 1) for a in found)],
        ["Audio tokens heard again", *(figures.mean(a.heard_tokens, 1) for a in found)],
        ["Seconds an answer", *(figures.mean(a.latency.total if a.latency else None, unit=" s") for a in found)],
        ["Slowest 5 %, from", *(f"{a.latency.p95:.2f} s" if a.latency else figures.NOTHING for a in found)],
        ["Tags not played", *(_counted(a.skipped) for a in found)],
        ["Endings", *(_counted(a.finishes) for a in found)],
    ]
    return figures.table(
        ["", *(shown.label for shown in runs)], rows, caption="Measures of listening again", class_="inline"
    )


def _placement(found: Sequence[Analysis], key: str, name: str) -> list[list[Child]]:
    placed = [a.placed.get(key) for a in found]

    def values(name: str) -> list[Mean | None]:
        return [None if one is None else getattr(one, name) for one in placed]

    def row(title: str, means: Sequence[Mean | None], chances: Sequence[Mean | None]) -> list[Child]:
        cells: list[Child] = []
        for value, chance in zip(means, chances, strict=True):
            by_chance = None if chance is None else tag("small", f"by chance {100 * chance.mean:.1f} %")
            cells.append([figures.mean(value, percent=True), by_chance])
        return [title, *cells]

    return [
        row(f"IoU with {name}", values("iou"), values("chance_iou")),
        row(f"Hit rate on {name}", values("hit_rate"), values("chance_hit_rate")),
        row(f"Segments that meet {name}", values("precision"), [None] * len(placed)),
    ]


def _listens(runs: Sequence[Shown]) -> Markup:
    most = max(len(shown.analysis.listen_counts) for shown in runs)
    names = [str(number) for number in range(most)]
    bars, rows = [], []
    for shown in runs:
        counts = [*shown.analysis.listen_counts, *[0] * most][:most]
        tallies = [_part(count, shown.analysis.answers) for count in counts]
        points = [_point(tally, f"{shown.name}, {name}") for tally, name in zip(tallies, names, strict=True)]
        bars.append((shown.series, points))
        rows.append([shown.label, *(figures.share(tally.accuracy, tally.interval) for tally in tallies)])
    chart = bar_chart("Listens an answer", names, "listens", _share_axis(bars), bars)
    return _figure("Listens an answer", "share of the answers", chart, ["", *names], rows, _answers(runs))


def _accuracy_by_listens(runs: Sequence[Shown]) -> Markup:
    most = max(len(shown.analysis.by_listens) for shown in runs)
    names = [str(number) for number in range(most)]
    points, rows = [], []
    for shown in runs:
        tallies = [*shown.analysis.by_listens, *[Tally()] * most][:most]
        points.append([figures.accuracy_point(t, f"{shown.name}, {n} listens") for n, t in enumerate(tallies)])
        rows.append([shown.label, *(figures.accuracy(tally) for tally in tallies)])
    chart = dot_chart("Accuracy by number of listens", names, "listens", Axis(0, 1, "", percent), points)
    note = "with 95 % intervals; not a cause"
    return _figure("Accuracy by number of listens", note, chart, ["", *names], rows)


def _lengths(runs: Sequence[Shown]) -> Markup | None:
    heard = [shown for shown in runs if shown.analysis.lengths]
    if not heard:
        return None
    longest = float(np.quantile([length for shown in heard for length in shown.analysis.lengths], 0.99))
    step = round_up(longest / _LENGTH_BINS)
    edges = np.arange(math.ceil(longest / step) + 1) * step
    names = [f"{edge:g}" for edge in edges[:-1].round(6)]
    bars, rows = [], []
    for shown in heard:
        lengths = np.minimum(shown.analysis.lengths, edges[-1])  # the longest percent counts in the last bar
        tallies = [_part(int(count), len(lengths)) for count in np.histogram(lengths, edges)[0]]
        points = [_point(t, f"{shown.name}, from {n} s") for t, n in zip(tallies, names, strict=True)]
        bars.append((shown.series, points))
        rows.append([shown.label, *(figures.share(tally.accuracy, tally.interval) for tally in tallies)])
    chart = bar_chart("Length of segments", names, "seconds, from", _share_axis(bars), bars)
    n = ", ".join(f"n = {len(shown.analysis.lengths):,}" for shown in heard)
    return _figure("Length of segments", "share of the segments", chart, ["from s", *names], rows, n)


def _coverage(runs: Sequence[Shown]) -> Markup | None:
    heard = [shown for shown in runs if shown.analysis.coverage]
    if not heard:
        return None
    middles = (np.arange(BINS) + 0.5) / BINS
    lines, rows = [], []
    tenths = range(0, BINS, BINS // 10)
    for shown in heard:
        curve = shown.analysis.coverage
        lines.append(Line(shown.series, list(zip(middles.tolist(), curve, strict=True)), title=shown.name))
        cells = [_part(round(curve[b] * shown.analysis.listened), shown.analysis.listened) for b in tenths]
        rows.append([shown.label, *(figures.share(tally.accuracy, tally.interval) for tally in cells)])
    y = Axis(0, round_up(max(max(shown.analysis.coverage) for shown in heard)), "", percent)
    chart = line_chart("Coverage over time", Axis(0, 1, "place in the clip, start to end", percent), y, lines)
    n = ", ".join(f"n = {shown.analysis.listened:,}" for shown in heard)
    head = ["at", *(percent(round(b / BINS, 2)) for b in tenths)]
    note = "share of the answers that listened that heard this part again"
    return _figure("Coverage over time", note, chart, head, rows, n)


def _latency(runs: Sequence[Shown]) -> Markup | None:
    bars, rows = [], []
    for shown in runs:
        latency = shown.analysis.latency
        if latency is None:
            continue
        spent = {name: value.mean for name, value in latency.phases.items()}
        waiting = max(0.0, latency.total.mean - sum(spent.values()))
        parts = [(name, spent.get(name, waiting)) for name in _PARTS]
        bars.append((shown.name, parts))
        cells = [figures.mean(latency.phases.get(name), 3) for name in PHASES]
        rows.append([shown.label, *cells, f"{waiting:.3f}", figures.mean(latency.total, 3)])
    if not bars:
        return None
    longest = max(sum(value for _, value in parts) for _, parts in bars)
    chart = stacked("Seconds an answer", Axis(0, round_up(longest), "seconds an answer"), bars)
    keys = [tag("span", tag("i", class_=f"swatch p{number}"), name) for number, name in enumerate(_PARTS)]
    note = ["mean wall time; a batch is shared. ", tag("span", keys, class_="legend")]
    return _figure("Time", note, chart, ["seconds", *_PARTS, "total"], rows)


def _attention(runs: Sequence[Shown]) -> Markup | None:
    lines: list[Line] = []
    rows: list[list[Child]] = []
    highest = 0.0
    for shown in runs:
        curve = shown.attention
        if curve is None or not curve.counts:
            continue
        enough = [step for step, count in enumerate(curve.counts) if count >= max(1, curve.answers // 5)]
        total = [(float(step), curve.clip[step] + curve.again[step]) for step in enough]
        lines.append(Line(shown.series, total, title=f"{shown.name}: all sound"))
        lines.append(Line(shown.series, [(float(s), curve.clip[s]) for s in enough], True, "the clip alone"))
        highest = max(highest, *(value for _, value in total))
        settled = Mean.of(curve.settled)
        first = sum(value for step, value in total if step < SETTLED) / max(1, min(SETTLED, len(total)))
        rows.append([shown.label, f"{100 * first:.1f} %", figures.mean(settled, percent=True), curve.answers])
    if not lines:
        return None
    x = Axis(0, max(point[0] for line in lines for point in line.points) or 1, "decoding step")
    chart = line_chart("Attention on sound", x, Axis(0, round_up(highest), "", percent), lines)
    note = "share of attention, mean over layers and heads; dashed: on the clip in the prompt alone"
    head = ["", f"steps 0 to {SETTLED - 1}", "later steps, mean of an answer", "answers"]
    return _figure("Attention on sound", note, chart, head, rows)


def _figure(
    title: str, note: Child, chart: Markup, head: Sequence[Child], rows: Sequence[Sequence[Child]], n: str = ""
) -> Markup:
    numbers = tag("details", tag("summary", "Numbers"), figures.table(head, rows, caption=title))
    about = tag("small", note, f"; {n}" if n and note else n)
    return tag("figure", tag("figcaption", tag("b", title), about), chart, numbers)


def _answers(runs: Sequence[Shown]) -> str:
    return ", ".join(f"n = {shown.analysis.answers:,}" for shown in runs)


def _share_axis(bars: Sequence[tuple[int, Sequence[Point]]]) -> Axis:
    return Axis(0, round_up(max(point.value for _, points in bars for point in points)), "", percent)


def _part(count: int, total: int) -> Tally:
    """Counts of something that answers have or have not, for the interval."""
    return Tally(right=count, wrong=total - count)


def _point(tally: Tally, name: str) -> Point:
    if not tally.total:
        return Point(0, 0, 0, f"{name}: n = 0")
    interval = wilson(tally.right, tally.total)
    title = f"{name}: {100 * tally.right / tally.total:.1f} %, n = {tally.right:,} of {tally.total:,}"
    return Point(tally.right / tally.total, interval.low, interval.high, title)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {number:,}" for name, number in counts.items()) or "0"
