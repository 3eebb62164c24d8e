"""The released way that ours is compared with computes what ours does, or the comparison would say nothing."""

from __future__ import annotations

from importlib import import_module

import pytest
from support.answers import TOLERANCE, sampled
from support.sounds import noise_question

from relisten.models import Family


def test_replaying_an_answer_gives_its_log_probs(untrained: Family) -> None:
    asked = noise_question(2)
    (trace,) = sampled(untrained, [(asked, asked.clip())], listens=[2])
    replayed = import_module("_stock").Stock(untrained).replay(trace, asked.clip())
    assert replayed.logprobs == pytest.approx(trace.logprobs, abs=TOLERANCE)
    assert replayed.seconds > 0


def test_answers_to_replay_are_spread_over_what_they_cost(untrained: Family) -> None:
    asked = [noise_question(index) for index in range(4)]
    traces = sampled(untrained, [(one, one.clip()) for one in asked], listens=[1, 0, 2, 0])
    stock = import_module("_stock")
    order = stock.spread(traces, 9)
    assert [len(traces[place].listens) for place in order] == [0, 0, 1, 2]
    assert len(traces[order[0]].logprobs) <= len(traces[order[1]].logprobs)
    assert stock.spread(traces, 2) == [order[1], order[3]]
