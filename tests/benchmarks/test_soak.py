"""A soak of seconds on a random-weight model; `benchmarks/soak.py` runs it for minutes."""

from __future__ import annotations

import asyncio
from importlib import import_module

from support.sounds import noise_clip

from relisten.engines.native import NativeEngine
from relisten.models import Family
from relisten.question import Question


def test_answers_come_and_go_and_nothing_is_left(untrained: Family) -> None:
    soak = import_module("soak")
    asked = [Question("How many?", ("1", "2"), noise_clip(1.0 + seed, seed)) for seed in range(3)]
    with NativeEngine(untrained, max_rows=8, encode_beside=True) as engine:
        seen = asyncio.run(soak.soak(engine, asked, seconds=4.0, in_flight=24))
    assert seen.failures(growth=float("inf")) == []  # seconds are too few to tell a leak by
    assert seen.ends["cancelled"] >= 24


def test_what_goes_wrong_is_told() -> None:
    soak = import_module("soak")
    flat = [(float(second), 100.0) for second in range(20)]
    assert soak.Seen(memory=flat, answers_after=True).failures(20.0) == []
    rising = [(float(second), 100.0 + 2 * second) for second in range(20)]
    seen = soak.Seen(memory=rising, leaked=2, stuck=1, lost=1)
    assert len(seen.failures(20.0)) == 5
