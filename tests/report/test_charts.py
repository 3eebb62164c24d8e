"""Charts are readable: names of places do not touch."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from relisten.report.charts import WIDTH, Axis, Point, count_bars, dot_chart, histogram

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


def test_bars_are_as_long_as_their_counts() -> None:
    drawn = str(count_bars("labels", [("dog <b>", 1_000), ("c" * 60, 250), ("none", 0)]))
    assert re.findall(r'<rect[^>]* width="([\d.]+)"', drawn) == [f"{part * WIDTH:.1f}" for part in (1, 0.25, 0)]
    assert "dog &lt;b&gt;" in drawn
    assert "1,000" in drawn
    assert "c" * 47 + "…" in drawn


@pytest.mark.parametrize("counts", [[0, 3, 1], [0, 0, 0], [20_000, 200, 0]])
def test_a_histogram_has_a_bar_for_each_count(counts: list[int]) -> None:
    drawn = str(histogram("lengths", Axis(0, 30, "seconds"), counts))
    heights = [float(height) for height in re.findall(r'<rect[^>]* height="([\d.]+)"', drawn)]
    assert len(heights) == 3
    assert [height > 0 for height in heights] == [count > 0 for count in counts]
    assert f"0 to 10: {counts[0]:,}" in drawn
