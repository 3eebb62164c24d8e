"""Arithmetic on stretches of time, and how well what was listened to fits what is there.

A *span* is a pair (start, end) in seconds with start < end; a *union* is a sorted tuple of spans that neither
overlap nor touch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from relisten.audio import MAX_DURATION
from relisten.protocol import Segment

Span = tuple[float, float]
Union = tuple[Span, ...]

DUPLICATE_IOU: Final = 0.9
"""A segment is a duplicate of an earlier one of the same answer from this intersection over union on."""
CHANCE_SHIFTS: Final = 64
"""Circular shifts of the segments that the chance level is averaged over."""


def spans(segments: Iterable[Segment]) -> tuple[Span, ...]:
    return tuple((segment.start, segment.end) for segment in segments)


def union(parts: Iterable[Span]) -> Union:
    """The stretches covered by any of `parts`."""
    joined: list[Span] = []
    for start, end in sorted(parts):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return tuple(joined)


def length(parts: Iterable[Span]) -> float:
    """Summed length in seconds; overlaps count as often as they occur."""
    return math.fsum(end - start for start, end in parts)


def intersection(one: Union, other: Union) -> Union:
    """What two unions share."""
    shared: list[Span] = []
    i = j = 0
    while i < len(one) and j < len(other):
        start, end = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if start < end:
            shared.append((start, end))
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1
    return tuple(shared)


def iou(one: Iterable[Span], other: Iterable[Span]) -> float:
    """Intersection over union of all that `one` covers with all that `other` covers; 0 where both are empty."""
    a, b = union(one), union(other)
    shared = length(intersection(a, b))
    total = length(a) + length(b) - shared
    return shared / total if total > 0 else 0.0


def overlap(parts: Sequence[Span]) -> float:
    """Share of the summed length that had been heard before: 1 - union / sum; 0 for one segment or none.

    It is one minus the non-overlap factor of the released reward variants 11 and 12.
    """
    total = length(parts)
    return 1 - length(union(parts)) / total if total > 0 else 0.0


def duplicates(parts: Sequence[Span]) -> int:
    """How many segments repeat an earlier one (`DUPLICATE_IOU`)."""
    return sum(
        any(iou([part], [earlier]) >= DUPLICATE_IOU for earlier in parts[:number])
        for number, part in enumerate(parts)
    )


def coverage(parts: Iterable[Span], duration: float, bins: int) -> NDArray[np.bool_]:
    """(bins,): whether the middle of each bin of a clip cut into `bins` equal ones was listened to."""
    middles = (np.arange(bins) + 0.5) * (duration / bins)
    covered = np.zeros(bins, dtype=bool)
    for start, end in parts:
        covered |= (middles >= start) & (middles < end)
    return covered


@dataclass(frozen=True)
class Fit:
    """How what was listened to fits the truth of one answer; every value lies in 0 to 1."""

    iou: float
    """Union of the segments against union of the true stretches."""
    hit_rate: float
    """Share of the true stretches at least half of which was listened to."""
    precision: float
    """Share of the segments that hold at least half of a true stretch, or lie at least half in one."""
    chance_iou: float
    """Mean of `iou` after moving all segments together, around the clip's end, by evenly spread shifts."""
    chance_hit_rate: float


def fit(heard: Sequence[Span], truth: Sequence[Span], duration: float) -> Fit | None:
    """None where nothing was heard or nothing is known to be there: such an answer has no fit, not a bad one."""
    if not heard or not truth:
        return None
    moved = [_shifted(heard, duration * k / CHANCE_SHIFTS, duration) for k in range(1, CHANCE_SHIFTS)]
    right = sum(any(_half_in(span, part) or _half_in(part, span) for span in truth) for part in heard)
    return Fit(
        iou=iou(heard, truth),
        hit_rate=_hit_rate(heard, truth),
        precision=right / len(heard),
        chance_iou=math.fsum(iou(parts, truth) for parts in moved) / len(moved),
        chance_hit_rate=math.fsum(_hit_rate(parts, truth) for parts in moved) / len(moved),
    )


def true_spans(metadata: Mapping[str, Any], key: str, duration: float) -> tuple[Span, ...]:
    """The stretches that a row's metadata lists under `key`, in order; empty where it lists none.

    Each is a pair `[start, end]`, or an object with `start` and `end`, or `onset` and `offset`. Times are clamped
    to the clip; an entry that is none of this is passed over, since labels are other people's data.
    """
    entries = metadata.get(key)
    if not isinstance(entries, (list, tuple)):
        return ()
    return tuple(span for entry in entries if (span := _span(entry, duration)) is not None)


def _span(entry: object, duration: float) -> Span | None:
    if isinstance(entry, Mapping):
        pair = (entry.get("start", entry.get("onset")), entry.get("end", entry.get("offset")))
    elif isinstance(entry, (list, tuple)) and len(entry) == 2:
        pair = (entry[0], entry[1])
    else:
        return None
    start, end = max(_seconds(pair[0]), 0.0), min(_seconds(pair[1]), duration)
    return (start, end) if start < end else None  # NaN compares to nothing, and stays first in max and min


def _seconds(value: object) -> float:
    """NaN for what is no number, or none that a clip could have."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > MAX_DURATION:
        return math.nan
    return float(value)


def _hit_rate(heard: Sequence[Span], truth: Sequence[Span]) -> float:
    covered = union(heard)
    hits = sum(length(intersection((span,), covered)) >= (span[1] - span[0]) / 2 for span in truth)
    return hits / len(truth)


def _half_in(span: Span, other: Span) -> bool:
    """Whether at least half of `span` lies in `other`."""
    return min(span[1], other[1]) - max(span[0], other[0]) >= (span[1] - span[0]) / 2


def _shifted(parts: Sequence[Span], by: float, duration: float) -> list[Span]:
    """All parts moved by `by` seconds; what leaves the clip at its end comes in at its start."""
    moved: list[Span] = []
    for start, end in parts:
        start, end = start + by, end + by
        if start >= duration:
            moved.append((start - duration, end - duration))
        elif end > duration:
            moved += [(start, duration), (0.0, end - duration)]
        else:
            moved.append((start, end))
    return moved
