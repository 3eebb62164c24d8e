"""Interval arithmetic against a count of small time steps, and the placement measures on cases done by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relisten.evaluate.segments import (
    coverage,
    duplicates,
    fit,
    intersection,
    iou,
    length,
    overlap,
    true_spans,
    union,
)

STEPS = 40
parts = st.lists(
    st.tuples(st.integers(0, STEPS - 1), st.integers(1, STEPS)).map(lambda p: (p[0], min(STEPS, p[0] + p[1]))),
    max_size=6,
)


def steps(spans: list[tuple[int, int]]) -> set[int]:
    return {step for start, end in spans for step in range(start, end)}


@given(parts, parts)
def test_unions_and_intersections_equal_sets_of_steps(
    one: list[tuple[int, int]], other: list[tuple[int, int]]
) -> None:
    a, b = union(one), union(other)
    assert length(a) == len(steps(one))
    assert all(first[1] < second[0] for first, second in pairwise(a))
    assert length(intersection(a, b)) == len(steps(one) & steps(other))
    either = steps(one) | steps(other)
    assert iou(one, other) == pytest.approx(len(steps(one) & steps(other)) / len(either) if either else 0.0)


@given(parts)
def test_overlap_is_what_was_heard_before(spans: list[tuple[int, int]]) -> None:
    heard: set[int] = set()
    again = total = 0
    for start, end in spans:
        now = set(range(start, end))
        again, total, heard = again + len(now & heard), total + len(now), heard | now
    assert overlap(spans) == pytest.approx(again / total if total else 0.0)


def test_duplicates_are_counted_once_each() -> None:
    assert duplicates([(1, 3), (1, 3), (1.0, 3.1), (2, 4)]) == 2
    assert duplicates([]) == 0


def test_coverage_asks_for_the_middle_of_a_part() -> None:
    assert coverage([(0.0, 5.0)], 10.0, 4).tolist() == [True, True, False, False]
    assert coverage([(0.0, 3.7)], 10.0, 4).tolist() == [True, False, False, False]
    assert np.count_nonzero(coverage([], 10.0, 4)) == 0


def test_fit_by_hand() -> None:
    found = fit([(0.0, 2.0), (8.0, 9.0)], [(1.0, 2.0), (4.0, 5.0)], 10.0)
    assert found is not None
    assert found.iou == pytest.approx(1 / 4)
    assert found.hit_rate == 0.5
    assert found.precision == 0.5
    # Three of ten seconds are heard; a stretch of one second counts as hit when half of it is.
    assert found.chance_hit_rate == pytest.approx(0.3, abs=0.02)


def test_chance_is_exact_for_a_clip_heard_whole() -> None:
    found = fit([(0.0, 10.0)], [(1.0, 2.0)], 10.0)
    assert found is not None
    assert found.hit_rate == found.chance_hit_rate == 1
    assert found.chance_iou == pytest.approx(found.iou)


def test_no_fit_without_segments_or_truth() -> None:
    assert fit([], [(1.0, 2.0)], 10.0) is None
    assert fit([(1.0, 2.0)], [], 10.0) is None


@pytest.mark.parametrize(
    ("listed", "spans"),
    [
        ([[1, 2.5]], ((1.0, 2.5),)),
        ([{"onset": 1.0, "offset": 2.0, "label": "beep"}, {"start": 3, "end": 4}], ((1.0, 2.0), (3.0, 4.0))),
        ([[-1, 2], [9, 99]], ((0.0, 2.0), (9.0, 10.0))),
        ([[3, 2], [5, 5], [11, 12]], ()),
        ([None, "1-2", [1], [1, 2, 3], ["a", "b"], [True, 2], {"onset": 1}], ()),
        ([[math.nan, 2], [1, math.nan], [1, math.inf], [1, 10**400]], ()),
        ("1, 2", ()),
        (None, ()),
    ],
)
def test_true_spans_take_what_is_a_stretch_and_pass_over_the_rest(
    listed: object, spans: tuple[tuple[float, float], ...]
) -> None:
    assert true_spans({"events": listed}, "events", 10.0) == spans
