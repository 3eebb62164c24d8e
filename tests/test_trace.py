"""Traces: what they derive, and that JSON keeps every bit."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from relisten.errors import InputError
from relisten.protocol import Finish, Format, Reason, Segment, Skip
from relisten.trace import GeneratedSpan, ListenSpan, PromptSpan, Sampling, Timings, Trace

TRACE = Trace(
    question="How many snares?",
    choices=("1", "2"),
    spans=(
        PromptSpan((1, 2, 9, 9, 3), 2, ((4, 5),)),
        GeneratedSpan((10, 11, 12), (-0.1, -1 / 3, -2.5), "<think>so <seg>2.0, 5.0</seg>", (7, 10, 29)),
        ListenSpan(Segment(2.0, 5.0), (2, 9, 9, 9, 3), 3),
        GeneratedSpan((13, 14), (-1e-9, -0.25), " two.</think><answer>2</answer>"),
    ),
    finish=Finish.ANSWER,
    format=Format.INTERLEAVED,
    id="q1",
    audio="drums.wav",
    audio_hash="ab",
    duration=8.0,
    model="echo-tiny",
    sampling=Sampling(temperature=0.7, top_p=0.9, seed=2**62 + 1, max_tokens=64, max_listens=3),
    skipped=(
        Skip("<seg>5, 3</seg>", Reason.REVERSED),
        Skip("<seg>1, 3</seg>", Reason.OVER_LIMIT, Segment(1, 3)),
    ),
    timings=Timings(0.1, 0.2, 0.3, 0.4, 1.0),
    findings=("[onsets] 2 onsets",),
)


def test_what_a_trace_derives() -> None:
    assert TRACE.text == "<think>so <seg>2.0, 5.0</seg> two.</think><answer>2</answer>"
    assert TRACE.answer == "2"
    assert TRACE.segments == (Segment(2.0, 5.0),)
    assert TRACE.token_ids == (1, 2, 9, 9, 3, 10, 11, 12, 2, 9, 9, 9, 3, 13, 14)
    assert TRACE.loss_mask == (0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1)
    assert TRACE.logprobs == (-0.1, -1 / 3, -2.5, -1e-9, -0.25)


def test_json_round_trip_is_exact() -> None:
    text = json.dumps(TRACE.to_json())
    assert Trace.from_json(json.loads(text)) == TRACE


def test_a_seed_of_numpy_has_json_too() -> None:
    trace = replace(TRACE, sampling=Sampling(seed=np.int64(5)))  # type: ignore[arg-type]
    assert json.loads(json.dumps(trace.to_json()))["sampling"]["seed"] == 5


def test_a_trace_written_before_token_ends_were_kept_is_read() -> None:
    data = json.loads(json.dumps(TRACE.to_json()))
    for span in data["spans"]:
        span.pop("ends", None)
    assert [span.ends for span in Trace.from_json(data).generated] == [(), ()]


def test_json_says_first_what_a_reader_wants() -> None:
    data = TRACE.to_json()
    assert data["answer"] == "2"
    assert data["segments"] == [{"start": 2.0, "end": 5.0}]
    assert data["finish"] == "answer"
    assert data["timings"]["total"] == 1.0


@pytest.mark.parametrize(
    "broken", [{}, {"spans": [{"kind": "other"}]}, {"finish": "maybe"}, {"sampling": {"heat": 1}}]
)
def test_what_is_no_trace_is_refused(broken: dict[str, object]) -> None:
    data = TRACE.to_json() | broken if broken else {}
    with pytest.raises(InputError, match="not a trace"):
        Trace.from_json(data)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_p": 0},
        {"top_p": 1.1},
        {"max_tokens": 0},
        {"max_listens": -1},
        {"seed": -1},
        {"seed": 2**63},
    ],
)
def test_sampling_out_of_range_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Sampling(**options)  # type: ignore[arg-type]
