"""What a run's answers did with listening again: how often, where, how well placed, and what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from relisten.evaluate.results import ResultRow
from relisten.evaluate.scoring import Rule, Tally
from relisten.evaluate.segments import Fit, coverage, duplicates, fit, length, overlap, spans, true_spans, union
from relisten.protocol import MARKUP
from relisten.trace import Trace

BINS: Final = 50
"""Parts that a clip is cut into for coverage over time."""
TRUTHS: Final = {"segments": "reference segments", "events": "events"}
"""Metadata keys that tell where something is, and what reports call it."""
PHASES: Final = ("encode", "prefill", "decode", "listen")
_RESAMPLES: Final = 2000


@dataclass(frozen=True)
class Mean:
    """A mean over `n` values, with its 95 % percentile bootstrap interval."""

    n: int
    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float], groups: Sequence[str] | None = None) -> Mean | None:
        """None where there is no value: nothing has no mean.

        Args:
            groups: for every value what it shares with others, such as a clip; whole groups are drawn then.
        """
        array = np.fromiter(values, dtype=np.float64)
        if not len(array):
            return None
        sums: NDArray[np.float64] = array
        counts: NDArray[np.float64] = np.ones(len(array))
        if groups is not None:
            places = np.unique(np.array(groups), return_inverse=True)[1]
            sums = np.bincount(places, array).astype(np.float64)
            counts = np.bincount(places).astype(np.float64)
        means = _resampled_means(sums, counts)
        low, high = np.quantile(means, (0.025, 0.975))
        return cls(len(array), float(array.mean()), float(low), float(high))


@dataclass(frozen=True)
class PlacedListen:
    """How well segments lie on what is known to be there; see `relisten.evaluate.segments.Fit`."""

    iou: Mean
    chance_iou: Mean
    hit_rate: Mean
    chance_hit_rate: Mean
    precision: Mean


@dataclass(frozen=True)
class Latency:
    """Wall seconds an answer, waiting for others of its batch included."""

    phases: Mapping[str, Mean]
    """By name of `PHASES`."""
    total: Mean
    median: float
    p95: float


@dataclass(frozen=True, eq=False)
class Analysis:
    """Of every answer of a run that did not fail. A mean is None where no answer has the quantity."""

    answers: int
    listened: int
    """Answers that listened at least once."""
    listened_twice: int
    """At least twice."""
    listens: Mean | None
    """Listens an answer."""
    listen_counts: tuple[int, ...]
    """How many answers listened 0, 1, 2, ... times."""
    lengths: tuple[float, ...]
    """Seconds of each segment."""
    length: Mean | None
    """Seconds a segment."""
    covered: Mean | None
    """Share of the clip that was listened to again; of answers that listened, as are the next two."""
    overlap: Mean | None
    duplicate: Tally
    """Segments: those that repeat an earlier one of their answer are `right`, the others `wrong`."""
    coverage: tuple[float, ...]
    """(`BINS`,) share of the answers that listened that heard each part of their clip again, from start to end."""
    placed: Mapping[str, PlacedListen]
    """By key of `TRUTHS`, where rows have it."""
    by_listens: tuple[Tally, ...]
    """Outcomes of the answers that listened 0, 1, 2, ... times."""
    skipped: Mapping[str, int]
    """Tags that were not played, by reason."""
    finishes: Mapping[str, int]
    words: Mean | None
    """Words an answer, tags left out."""
    tokens: Mean | None
    """Sampled tokens an answer."""
    heard_tokens: Mean | None
    """Audio tokens an answer added by listening."""
    latency: Latency | None


def analyse(rows: Sequence[ResultRow], rule: Rule = Rule.OFFICIAL) -> Analysis:
    """Everything in `Analysis`, of rows as `read_run` gives them."""
    answered = [(row, row.trace) for row in rows if row.trace is not None and row.error is None]
    traces = [trace for _, trace in answered]
    counts = [len(trace.listens) for trace in traces]
    heard = [(row, trace) for row, trace in answered if trace.listens]
    lengths = tuple(segment.duration for trace in traces for segment in trace.segments)
    repeated = sum(duplicates(spans(trace.segments)) for trace in traces)
    most = max(counts, default=-1) + 1
    return Analysis(
        answers=len(traces),
        listened=len(heard),
        listened_twice=sum(count > 1 for count in counts),
        listens=Mean.of(counts),
        listen_counts=tuple(counts.count(number) for number in range(most)),
        lengths=lengths,
        length=Mean.of(lengths),
        covered=Mean.of(length(union(spans(t.segments))) / t.duration for _, t in heard),
        overlap=Mean.of(overlap(spans(t.segments)) for _, t in heard),
        duplicate=Tally(right=repeated, wrong=len(lengths) - repeated),
        coverage=_coverage([trace for _, trace in heard]),
        placed={key: found for key in TRUTHS if (found := _placed(heard, key)) is not None},
        by_listens=tuple(
            Tally.count(row.outcome(rule) for row, trace in answered if len(trace.listens) == number)
            for number in range(most)
        ),
        skipped=_counts(str(skip.reason) for trace in traces for skip in trace.skipped),
        finishes=_counts(str(trace.finish) for trace in traces),
        words=Mean.of(num_words(trace.text) for trace in traces),
        tokens=Mean.of(sum(len(span.ids) for span in trace.generated) for trace in traces),
        heard_tokens=Mean.of(sum(span.num_audio_tokens for span in trace.listens) for trace in traces),
        latency=_latency(traces),
    )


def num_words(text: str) -> int:
    """Words of a response without its tags and without the times in them."""
    return len(MARKUP.sub(" ", text).split())


def row_fit(row: ResultRow, key: str) -> Fit | None:
    """How one answer's segments lie on what its row lists under `key`; None where either is missing."""
    if row.question is None or row.trace is None:
        return None
    truth = true_spans(row.question.metadata, key, row.trace.duration)
    return fit(spans(row.trace.segments), truth, row.trace.duration)


def _placed(heard: Sequence[tuple[ResultRow, Trace]], key: str) -> PlacedListen | None:
    fits = [found for row, _ in heard if (found := row_fit(row, key)) is not None]
    values = {
        name: Mean.of(getattr(found, name) for found in fits)
        for name in (field.name for field in fields(PlacedListen))
    }
    known = {name: value for name, value in values.items() if value is not None}
    return PlacedListen(**known) if len(known) == len(values) else None


def _counts(names: Iterable[str]) -> dict[str, int]:
    """The most frequent first."""
    return dict(Counter(names).most_common())


def _coverage(traces: Sequence[Trace]) -> tuple[float, ...]:
    if not traces:
        return ()
    covered = np.stack([coverage(spans(trace.segments), trace.duration, BINS) for trace in traces])
    return tuple(covered.mean(0).tolist())


def _latency(traces: Sequence[Trace]) -> Latency | None:
    timed = [trace.timings for trace in traces if trace.timings.total > 0]
    totals = [timings.total for timings in timed]
    mean = Mean.of(totals)
    if mean is None:
        return None
    phases = {name: Mean.of(getattr(timings, name) for timings in timed) for name in PHASES}
    return Latency(
        phases={name: value for name, value in phases.items() if value is not None},
        total=mean,
        median=float(np.median(totals)),
        p95=float(np.quantile(totals, 0.95)),
    )


def _resampled_means(sums: NDArray[np.float64], counts: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
    """Means over `_RESAMPLES` samples of groups drawn with replacement, some at a time to bound memory."""
    rng = np.random.default_rng(seed)
    means = []
    at_once = max(1, (1 << 22) // len(sums))
    for begin in range(0, _RESAMPLES, at_once):
        number = min(at_once, _RESAMPLES - begin)
        drawn = rng.integers(0, len(sums), (number, len(sums)))
        means.append(sums[drawn].sum(1) / counts[drawn].sum(1))
    return np.concatenate(means)
