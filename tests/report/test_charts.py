"""Charts are readable: names of places do not touch."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from relisten.report.charts import Axis, Point, dot_chart

TICK = re.compile(r'<text[^>]* y="(\d+)"[^>]*class="tick"[^>]*text-anchor="middle"')


@pytest.mark.parametrize(
    ("names", "lines"), [(["direct", "pitch"], 1), (["direct", "loudness", "count_window", "longest_gap"] * 2, 2)]
)
def test_names_of_places_that_would_touch_stand_on_two_lines(names: list[str], lines: int) -> None:
    points = [Point(0.5, 0.4, 0.6) for _ in names]
    drawn = str(dot_chart("accuracy", names, "way", Axis(0, 1, "accuracy"), [points]))
    heights = [int(y) for y in TICK.findall(drawn)]
    assert len(heights) == len(names)
    assert len(set(heights)) == lines
    assert all(one != other for one, other in pairwise(heights)) == (lines == 2)
