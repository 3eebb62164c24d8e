"""Measures of re-listening on a few answers whose numbers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from relisten.evaluate.analysis import BINS, Mean, analyse, num_words
from relisten.evaluate.results import ResultRow
from relisten.evaluate.scoring import Rule, Tally, grade
from relisten.protocol import Finish, Format, Reason, Segment, Skip, split_at_listens
from relisten.question import Question
from relisten.trace import GeneratedSpan, ListenSpan, PromptSpan, Span, Timings, Trace

EVENTS = [{"onset": 1.0, "offset": 2.0, "label": "beep"}]


def row(text: str, *, answer: str = "2", skipped: tuple[Skip, ...] = (), seconds: float = 1.0) -> ResultRow:
    spans: list[Span] = [PromptSpan((1, 2, 3), 1)]
    for part in split_at_listens(text, 10.0):
        if isinstance(part, Segment):
            spans.append(ListenSpan(part, (7, 8, 8, 9), 2))
        else:
            spans.append(GeneratedSpan(tuple(map(ord, part)), (0.0,) * len(part), part))
    trace = Trace(
        "q",
        ("1", "2"),
        tuple(spans),
        Finish.ANSWER,
        Format.INTERLEAVED,
        duration=10.0,
        skipped=skipped,
        timings=Timings(0.1, 0.1, 0.5, 0.3, seconds),
    )
    question = Question("q", ("1", "2"), Path("x.wav"), answer=answer, metadata={"events": EVENTS})
    return ResultRow(0, "x", question, trace, None, grade(trace.answer, answer, ("1", "2")))


def failed() -> ResultRow:
    trace = Trace("q", (), (), Finish.FAILED, Format.INTERLEAVED, error="no sound")
    return ResultRow(0, "f", Question("q", answer="2"), trace, "no sound")


TWICE = "<think>so <seg>1.0, 3.0</seg> one, again <seg>2.0, 4.0</seg> two.</think><answer>2</answer>"
ONCE = "<think><seg>5.0, 6.0</seg> none.</think><answer>1</answer>"
NEVER = "<think>I guess.</think><answer>2</answer>"


def test_counts_lengths_and_cost() -> None:
    skip = Skip("<seg>x</seg>", Reason.MALFORMED)
    found = analyse([row(TWICE, seconds=2.0), row(ONCE, skipped=(skip,)), row(NEVER), failed()])
    assert (found.answers, found.listened, found.listened_twice) == (3, 2, 1)
    assert found.listen_counts == (1, 1, 1)
    assert found.listens is not None
    assert (found.listens.n, found.listens.mean) == (3, 1.0)
    assert found.lengths == (2.0, 2.0, 1.0)
    assert found.by_listens == (Tally(right=1), Tally(wrong=1), Tally(right=1))
    assert found.covered is not None
    assert found.covered.mean == pytest.approx((0.3 + 0.1) / 2)
    assert found.overlap is not None
    assert found.overlap.mean == pytest.approx((0.25 + 0) / 2)
    assert found.duplicate == Tally(right=0, wrong=3)
    assert found.skipped == {"malformed": 1}
    assert found.finishes == {"answer": 3}
    assert found.heard_tokens is not None
    assert found.heard_tokens.mean == pytest.approx(2.0)
    assert found.latency is not None
    assert found.latency.median == 1.0
    assert found.latency.phases["listen"].mean == pytest.approx(0.3)


def test_coverage_over_time_is_of_the_answers_that_listened() -> None:
    covered = analyse([row(TWICE), row(ONCE), row(NEVER)]).coverage
    assert len(covered) == BINS
    assert covered[BINS // 10 * 2] == 0.5
    assert covered[BINS // 10 * 5] == 0.5
    assert covered[0] == covered[-1] == 0.0


def test_placement_needs_labels_and_a_listen() -> None:
    found = analyse([row(TWICE), row(ONCE), row(NEVER)])
    assert set(found.placed) == {"events"}
    placed = found.placed["events"]
    assert (placed.iou.n, placed.hit_rate.mean, placed.precision.mean) == (2, 0.5, 0.25)


def test_a_run_without_answers_has_no_means() -> None:
    found = analyse([failed()])
    assert (found.answers, found.listens, found.words, found.latency) == (0, None, None, None)
    assert (found.coverage, found.placed, found.by_listens, found.listen_counts) == ((), {}, (), ())


def test_outcomes_follow_the_rule() -> None:
    lettered = row("<think>a.</think><answer>b</answer>")
    assert analyse([lettered], Rule.LETTER).by_listens == (Tally(right=1),)
    assert analyse([lettered], Rule.STRICT).by_listens == (Tally(wrong=1),)


def test_words_are_counted_without_tags_and_times() -> None:
    assert num_words(TWICE) == 5  # so one, again two. 2


def test_mean_has_the_bootstrap_interval() -> None:
    values = np.random.default_rng(0).normal(3.0, 1.0, 400)
    found = Mean.of(values)
    assert found is not None
    assert found.n == 400
    assert found.mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.012)
    assert Mean.of([]) is None


def test_values_of_one_group_are_drawn_together() -> None:
    """Four questions about each of 50 clips, all right or all wrong, are no more than 50 questions."""
    clips = [float(i % 2) for i in range(50)]
    alone = Mean.of(clips)
    many = Mean.of([value for value in clips for _ in range(4)], [str(i) for i in range(50) for _ in range(4)])
    assert alone is not None
    assert many is not None
    assert many.n == 200
    assert (many.mean, many.low, many.high) == pytest.approx((alone.mean, alone.low, alone.high), abs=0.03)
    apart = Mean.of([value for value in clips for _ in range(4)])
    assert apart is not None
    assert apart.high - apart.low < 0.6 * (many.high - many.low)
    uneven = Mean.of([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"])
    assert uneven is not None
    assert (uneven.mean, uneven.low, uneven.high) == (0.75, 0.0, 1.0)
