"""Numbers as a reader wants them: with their 95 % interval and with what they were counted over."""

from __future__ import annotations

from collections.abc import Sequence

from relisten.evaluate.analysis import Mean
from relisten.evaluate.scoring import Interval, Tally
from relisten.report.charts import Point
from relisten.report.html import Child, Markup, tag

NOTHING = Markup('<span class="none">–</span>')


def share(value: float | None, interval: Interval | None = None, n: int | None = None, unit: str = "") -> Markup:
    """A share as a percentage; `unit` is what `n` counts, where that is not rows."""
    if value is None:
        return NOTHING
    ends = None if interval is None else (f"{100 * interval.low:.1f}", f"{100 * interval.high:.1f}")
    return _figure(f"{100 * value:.1f} %", ends, n, unit)


def accuracy(tally: Tally) -> Markup:
    return share(tally.accuracy, tally.interval, tally.total)


def mean(value: Mean | None, digits: int = 2, unit: str = "", percent: bool = False) -> Markup:
    """A mean with its bootstrap interval."""
    if value is None:
        return NOTHING
    if percent:
        return share(value.mean, Interval(value.low, value.high), value.n)
    ends = (f"{value.low:,.{digits}f}", f"{value.high:,.{digits}f}")
    return _figure(f"{value.mean:,.{digits}f}{unit}", ends, value.n)


def points(value: float | None, interval: Interval | None) -> Markup:
    """A difference of two accuracies, in percentage points."""
    if value is None:
        return NOTHING
    ends = None if interval is None else (_signed(interval.low), _signed(interval.high))
    return _figure(_signed(value), ends, None)


def p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def accuracy_point(tally: Tally, name: str) -> Point | None:
    """For charts; None where nothing was scored."""
    value, interval = tally.accuracy, tally.interval
    if value is None or interval is None:
        return None
    title = f"{name}: {100 * value:.1f} % [{100 * interval.low:.1f}, {100 * interval.high:.1f}], n = {tally.total}"
    return Point(value, interval.low, interval.high, title)


def count(number: int) -> str:
    return f"{number:,}"


def table(head: Sequence[Child], rows: Sequence[Sequence[Child]], *, caption: str = "", class_: str = "") -> Markup:
    """A table whose first column names the row. It scrolls sideways where the page is narrow."""
    body = [tag("tr", tag("th", row[0], scope="row"), [tag("td", cell) for cell in row[1:]]) for row in rows]
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption) if caption else None,
            tag("thead", tag("tr", [tag("th", cell, scope="col") if cell else tag("td") for cell in head])),
            tag("tbody", body),
            class_=class_ or None,
        ),
        class_="scroll",
        tabindex=0,
        role="region",
        aria_label=caption or "table",
    )


def swatch(series: int, name: str) -> Markup:
    """A run's name with its colour."""
    return tag("span", tag("i", class_=f"swatch s{series}", aria_hidden="true"), name, class_="run")


def _signed(share: float) -> str:
    """In points, with a true minus sign; what rounds to nothing has no sign."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "\N{MINUS SIGN}")


def _figure(value: str, ends: tuple[str, str] | None, n: int | None, unit: str = "") -> Markup:
    small: list[Child] = []
    if ends is not None:
        small.append(f"{ends[0]} to {ends[1]}")
    if n is not None:
        small.append(f"{n:,} {unit}" if unit else f"n = {n:,}")
    return tag("span", tag("b", value), tag("small", ", ".join(map(str, small))) if small else None, class_="fig")
