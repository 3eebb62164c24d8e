"""Small charts as inline SVG. Colours come from the page: class `s0`, `s1`, ... is the n-th run's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from relisten.report.html import Markup, tag

WIDTH: Final = 380
HEIGHT: Final = 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 12, 40
_LETTER, _LINE = 6.2, 13  # of a tick's text
_LONGEST = 48  # letters of a bar's name
SERIES: Final = 6
"""Colours that the page has; further runs begin again."""


class Point(NamedTuple):
    """A value with its interval; `title` is shown when pointed at."""

    value: float
    low: float
    high: float
    title: str = ""


@dataclass(frozen=True)
class Line:
    """One run's curve."""

    series: int
    points: Sequence[tuple[float, float]]
    dashed: bool = False
    title: str = ""


@dataclass(frozen=True)
class Axis:
    """A numeric axis from `low` to `high`."""

    low: float
    high: float
    label: str
    format: Callable[[float], str] = "{:g}".format

    @property
    def ticks(self) -> list[float]:
        """Three to six round values inside the axis."""
        span = self.high - self.low
        step = 10.0 ** math.floor(math.log10(span / 3))
        step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 5.01)
        first = math.ceil(self.low / step - 1e-9)
        return [round(k * step, 10) for k in range(first, math.floor(self.high / step + 1e-9) + 1)]


def percent(value: float) -> str:
    return f"{100 * value:g} %"


def round_up(value: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten, for the end of an axis; 1 for nothing."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * factor for factor in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if power * factor >= value - 1e-12)


def line_chart(label: str, x: Axis, y: Axis, lines: Sequence[Line]) -> Markup:
    """Curves over a numeric x axis."""
    frame = _Frame(x, y)
    marks = [
        tag(
            "polyline",
            tag("title", line.title) if line.title else None,
            points=" ".join(f"{frame.x(a):.1f},{frame.y(b):.1f}" for a, b in line.points),
            class_=f"line s{line.series % SERIES}" + (" dashed" if line.dashed else ""),
        )
        for line in lines
    ]
    ticks = [(frame.x(value), x.format(value)) for value in x.ticks]
    return frame.svg(label, ticks, marks)


def dot_chart(
    label: str, names: Sequence[str], x_label: str, y: Axis, runs: Sequence[Sequence[Point | None]]
) -> Markup:
    """Values with whiskers over named places, the runs side by side at each."""
    frame = _Frame(Axis(0, len(names), x_label), y)
    spread = min(14.0, frame.width / len(names) / (len(runs) + 1))
    marks = []
    for series, points in enumerate(runs):
        for place, point in enumerate(points):
            if point is not None:
                at = frame.x(place + 0.5) + spread * (series - (len(runs) - 1) / 2)
                low, high, middle = frame.y(point.low), frame.y(point.high), frame.y(point.value)
                marks.append(
                    tag(
                        "g",
                        tag("title", point.title),
                        tag("line", x1=f"{at:.1f}", x2=f"{at:.1f}", y1=f"{low:.1f}", y2=f"{high:.1f}"),
                        tag("circle", cx=f"{at:.1f}", cy=f"{middle:.1f}", r=3.5),
                        class_=f"dot s{series % SERIES}",
                    )
                )
    return frame.svg(label, _named_ticks(frame, names), marks)


def bar_chart(
    label: str, names: Sequence[str], x_label: str, y: Axis, runs: Sequence[tuple[int, Sequence[Point]]]
) -> Markup:
    """Bars over named places, the runs (number and values) side by side at each."""
    frame = _Frame(Axis(0, len(names), x_label), y)
    width = min(26.0, frame.width / len(names) * 0.78 / len(runs))
    marks = []
    for number, (series, points) in enumerate(runs):
        for place, point in enumerate(points):
            left = frame.x(place + 0.5) + width * (number - len(runs) / 2)
            top = frame.y(point.value)
            marks.append(
                tag(
                    "rect",
                    tag("title", point.title),
                    x=f"{left + 0.5:.1f}",
                    y=f"{top:.1f}",
                    width=f"{max(1.0, width - 1):.1f}",
                    height=f"{max(0.0, frame.y(y.low) - top):.1f}",
                    class_=f"bar s{series % SERIES}",
                )
            )
    return frame.svg(label, _named_ticks(frame, names), marks)


def histogram(label: str, x: Axis, counts: Sequence[int]) -> Markup:
    """Bars over equal parts of a numeric axis."""
    frame = _Frame(x, Axis(0, round_up(max(counts)), "", "{:,.10g}".format))
    edges = [x.low + number * (x.high - x.low) / len(counts) for number in range(len(counts) + 1)]
    marks = [
        tag(
            "rect",
            tag("title", f"{low:g} to {high:g}: {count:,}"),
            x=f"{frame.x(low) + 0.5:.1f}",
            y=f"{frame.y(count):.1f}",
            width=f"{frame.x(high) - frame.x(low) - 1:.1f}",
            height=f"{frame.y(0) - frame.y(count):.1f}",
            class_="bar s0",
        )
        for (low, high), count in zip(pairwise(edges), counts, strict=True)
    ]
    return frame.svg(label, [(frame.x(value), x.format(value)) for value in x.ticks], marks)


def count_bars(label: str, counts: Sequence[tuple[str, int]]) -> Markup:
    """A horizontal bar for each name, with the name and the number above it."""
    most = max(count for _, count in counts) or 1
    marks = []
    for number, (name, count) in enumerate(counts):
        top = 28 * number
        shown = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
        marks += [
            tag("text", shown, x=0, y=top + 12, class_="name"),
            tag("text", f"{count:,}", x=WIDTH, y=top + 12, text_anchor="end"),
            tag("rect", x=0, y=top + 17, width=f"{WIDTH * count / most:.1f}", height=7, class_="bar s0"),
        ]
    box = f"0 0 {WIDTH} {28 * len(counts)}"
    return tag("svg", marks, viewBox=box, role="img", aria_label=label, class_="chart")


def whiskers(label: str, rows: Sequence[tuple[int, Point]], axis: Axis, marks: Sequence[float] = ()) -> Markup:
    """A strip for a table cell: one line a run, its value and interval; `marks` are vertical reference lines."""
    width, step = 200, 13
    height = step * len(rows) + 4

    def x(value: float) -> float:
        return 4 + (width - 8) * (min(max(value, axis.low), axis.high) - axis.low) / (axis.high - axis.low)

    grid = [tag("line", x1=f"{x(t):.1f}", x2=f"{x(t):.1f}", y1=0, y2=height, class_="grid") for t in axis.ticks]
    grid += [tag("line", x1=f"{x(m):.1f}", x2=f"{x(m):.1f}", y1=0, y2=height, class_="mark") for m in marks]
    drawn = []
    for number, (series, point) in enumerate(rows):
        y = 2 + step * (number + 0.5)
        drawn.append(
            tag(
                "g",
                tag("title", point.title),
                tag("line", x1=f"{x(point.low):.1f}", x2=f"{x(point.high):.1f}", y1=y, y2=y),
                tag("circle", cx=f"{x(point.value):.1f}", cy=y, r=3.5),
                class_=f"dot s{series % SERIES}",
            )
        )
    return tag(
        "svg",
        grid,
        drawn,
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        aria_label=label,
        class_="strip",
    )


def stacked(label: str, x: Axis, rows: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> Markup:
    """Horizontal bars of parts: (name of the bar, (part, value) from left to right). Parts are `p0`, `p1`, ..."""
    frame = _Frame(x, Axis(0, len(rows), ""), height=_TOP + _BOTTOM + 40 * len(rows), y_axis=False)
    marks = []
    for number, (name, parts) in enumerate(rows):
        top = _TOP + 40 * number
        marks.append(tag("text", name, x=_LEFT, y=top + 10, class_="name"))
        begin = 0.0
        for part, (what, value) in enumerate(parts):
            left, right = frame.x(begin), frame.x(begin + value)
            marks.append(
                tag(
                    "rect",
                    tag("title", f"{name}: {what} {value:.3g} s"),
                    x=f"{left:.1f}",
                    y=top + 16,
                    width=f"{max(0.0, right - left):.1f}",
                    height=16,
                    class_=f"part p{part}",
                )
            )
            begin += value
    return frame.svg(label, [(frame.x(value), x.format(value)) for value in x.ticks], marks)


class _Frame:
    """Axes and the way from values to places on the page."""

    def __init__(self, x: Axis, y: Axis, *, height: int = HEIGHT, y_axis: bool = True) -> None:
        self._x, self._y, self._height, self._y_axis = x, y, height, y_axis
        self.width = WIDTH - _LEFT - _RIGHT

    def x(self, value: float) -> float:
        return _LEFT + self.width * (value - self._x.low) / (self._x.high - self._x.low)

    def y(self, value: float) -> float:
        inner = self._height - _TOP - _BOTTOM
        return _TOP + inner * (1 - (value - self._y.low) / (self._y.high - self._y.low))

    def svg(self, label: str, x_ticks: Sequence[tuple[float, str]], marks: Sequence[Markup]) -> Markup:
        bottom = self._height - _BOTTOM
        drawn = []
        for value in self._y.ticks if self._y_axis else ():
            y = f"{self.y(value):.1f}"
            drawn.append(tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
            text = self._y.format(value)
            drawn.append(tag("text", text, x=_LEFT - 6, y=y, class_="tick", text_anchor="end", dy="0.32em"))
        drawn.append(tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=bottom, y2=bottom, class_="axis"))
        lower = _LINE if _crowded(x_ticks) else 0
        for number, (place, text) in enumerate(x_ticks):
            at, line = f"{place:.1f}", bottom + 15 + lower * (number % 2)
            drawn.append(tag("text", text, x=at, y=line, class_="tick", text_anchor="middle"))
        middle, height = _LEFT + self.width / 2, self._height + lower
        drawn.append(tag("text", self._x.label, x=middle, y=height - 6, class_="label", text_anchor="middle"))
        return tag(
            "svg",
            drawn,
            marks,
            viewBox=f"0 0 {WIDTH} {height}",
            role="img",
            aria_label=label,
            class_="chart",
        )


def _crowded(ticks: Sequence[tuple[float, str]]) -> bool:
    """Would neighbours touch if they stood on one line?"""
    return any(
        (len(one) + len(other)) / 2 * _LETTER > right - left for (left, one), (right, other) in pairwise(ticks)
    )


def _named_ticks(frame: _Frame, names: Sequence[str]) -> list[tuple[float, str]]:
    return [(frame.x(place + 0.5), name) for place, name in enumerate(names)]
