"""Answers of the native engine that fail, are cancelled, or find it closing: alone, and leaving nothing behind."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.answers import (
    TOLERANCE,
    begin_together,
    noise_answer,
    plain_logprobs,
)
from support.sounds import noise_clip, noise_question

from relisten.audio import SAMPLE_RATE, Clip
from relisten.engines.drive import Happening, answer
from relisten.engines.native import NativeEngine
from relisten.errors import EngineError, InputError
from relisten.models import Family, load
from relisten.models.decoder import KVCache
from relisten.models.tower import ChunkCache
from relisten.protocol import Finish, Format
from relisten.trace import Sampling


def test_one_failing_clip_fails_its_answer_alone(untrained: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    real = untrained.encode_audio

    def encode(clips: list[Clip], cache: ChunkCache | None = None) -> list[torch.Tensor]:
        if any(clip.name == "noise-1" for clip in clips):
            raise MemoryError("out of memory")
        return real(clips, cache)

    monkeypatch.setattr(untrained, "encode_audio", encode)

    async def work() -> None:
        with NativeEngine(untrained) as engine:
            first = asyncio.ensure_future(noise_answer(engine, 0, Sampling()))
            await asyncio.sleep(0.05)
            with pytest.raises(EngineError, match="out of memory"):
                await noise_answer(engine, 1, Sampling())
            await first
            trace = await answer(engine, noise_question(1), sampling=Sampling(max_tokens=4))
            assert trace.finish is Finish.FAILED
            assert (
                await answer(engine, noise_question(2), sampling=Sampling(max_tokens=4))
            ).finish is Finish.LENGTH

    asyncio.run(work())


def test_an_answer_too_long_for_the_memory_there_is_fails_alone(
    untrained: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = KVCache.reserve

    def scarce(cache: KVCache, num_slots: int, capacity: int) -> None:
        if capacity > 400:
            raise MemoryError("out of memory")
        reserve(cache, num_slots, capacity)

    monkeypatch.setattr(KVCache, "reserve", scarce)

    async def work() -> None:
        asked = [noise_question(index) for index in range(8)]
        asked[3] = replace(asked[3], audio=noise_clip(25.0, 3))
        with NativeEngine(untrained, max_rows=8, lockstep=True) as engine:
            traces = await begin_together(engine, asked, [Sampling(max_tokens=6)] * 8)
            later = await answer(engine, asked[0], sampling=Sampling(max_tokens=6))
        assert [trace.finish is Finish.FAILED for trace in traces] == [index == 3 for index in range(8)]
        assert "out of memory" in str(traces[3].error)
        for trace, question in zip([*traces, later], [*asked, asked[0]], strict=True):
            if trace.finish is not Finish.FAILED:
                expected = plain_logprobs(untrained, trace, question.clip())
                assert trace.logprobs == pytest.approx(expected, abs=TOLERANCE)

    asyncio.run(work())


def test_the_encoders_thread_may_end_the_engine(untrained: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the garbage collector does that happens to run there."""
    before = set(threading.enumerate())
    engine = NativeEngine(untrained, encode_beside=True)
    threads = set(threading.enumerate()) - before
    assert len(threads) == 2
    encode = untrained.encode_audio

    def ending(clips: list[Clip], cache: ChunkCache | None = None) -> list[torch.Tensor]:
        engine.close()
        return encode(clips, cache)

    monkeypatch.setattr(untrained, "encode_audio", ending)
    trace = asyncio.run(answer(engine, noise_question(0), sampling=Sampling(max_tokens=4)))
    assert trace.finish is Finish.FAILED
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def deafening(seconds: float) -> Clip:
    """What no file may hold, and no mel energy can be of: the model makes NaN of it."""
    return Clip(np.full(int(seconds * SAMPLE_RATE), 1e30, np.float32), name="deafening")


def test_an_answer_without_numbers_fails_alone_and_leaves_nothing_behind(untrained: Family) -> None:
    async def work() -> None:
        bad = replace(noise_question(4), audio=deafening(6.0))
        asked = [bad, noise_question(0), bad, noise_question(1), noise_question(3)]
        with NativeEngine(untrained, max_rows=5, lockstep=True) as engine:
            failed, first, other, *rest = await begin_together(engine, asked, [Sampling(max_tokens=6)] * 5)
            assert failed.finish is other.finish is Finish.FAILED
            assert "no numbers" in str(failed.error)
            assert failed.logprobs == ()
            # In the places of those, shorter beside longer: what stands behind the shorter one is masked.
            later = await begin_together(engine, asked[1:2] + asked[3:], [Sampling(max_tokens=6)] * 3)
        heard = zip([asked[1], *asked[3:], asked[1], *asked[3:]], [first, *rest, *later], strict=True)
        for question, trace in heard:
            expected = plain_logprobs(untrained, trace, question.clip())
            assert trace.logprobs == pytest.approx(expected, abs=TOLERANCE)

    asyncio.run(work())


def test_who_moves_to_the_place_of_a_failed_answer_keeps_all_it_has(untrained: Family) -> None:
    def burst(happening: Happening) -> None:
        raise ValueError("nobody wants to hear it")

    async def work() -> None:
        asked = [noise_question(0), noise_question(1)]
        with NativeEngine(untrained, lockstep=True) as engine:
            with engine.together():
                told = asyncio.ensure_future(answer(engine, asked[0], on_event=burst))
                await asyncio.sleep(0)
                other = asyncio.ensure_future(answer(engine, asked[1], sampling=Sampling(max_tokens=8)))
                await asyncio.sleep(0)
            assert "nobody wants" in str((await told).error)
            trace = await other
        assert trace.logprobs == pytest.approx(plain_logprobs(untrained, trace, asked[1].clip()), abs=TOLERANCE)

    asyncio.run(work())


def test_the_last_of_those_who_hold_steps_lets_them_go(untrained: Family) -> None:
    async def work() -> None:
        with NativeEngine(untrained) as engine:
            with engine.together():
                with engine.together():
                    pass
                decoding = asyncio.ensure_future(answer(engine, noise_question(0), sampling=Sampling(max_tokens=1)))
                await asyncio.sleep(0.2)
                assert not decoding.done()
            assert (await decoding).finish is Finish.LENGTH

    asyncio.run(work())


@pytest.mark.parametrize("tokens", [0, -5])
def test_a_context_of_nothing_is_refused(untrained: Family, tokens: int) -> None:
    with pytest.raises(InputError, match=f"max context {tokens}: it must be at least 1"):
        NativeEngine(untrained, max_context=tokens)


def test_closing_before_the_first_step_moves_nothing(untrained: Family) -> None:
    async def work() -> None:
        with NativeEngine(untrained) as engine:
            with engine.together():
                streams = [
                    engine.open(one, one.clip(), Format.TEXT, Sampling()) for one in map(noise_question, range(3))
                ]
                tasks = [asyncio.ensure_future(stream.decode(lambda piece, end: True)) for stream in streams]
                await asyncio.sleep(0.05)
                streams[0].close()
                await asyncio.sleep(0.05)
            assert [len(span.ids) for span in await asyncio.gather(*tasks[1:])] == [1, 1]
            assert tasks[0].cancelled()

    asyncio.run(work())


def test_who_is_cancelled_while_waiting_and_asks_again_takes_one_slot(untrained: Family) -> None:
    async def work() -> None:
        asked = noise_question(1)
        with NativeEngine(untrained, max_rows=1) as engine:
            first, second = (engine.open(asked, asked.clip(), Format.TEXT, Sampling()) for _ in range(2))
            with engine.together():
                decoding = [asyncio.ensure_future(first.decode(lambda piece, end: True))]
                await asyncio.sleep(0.05)
                given_up = asyncio.ensure_future(second.decode(lambda piece, end: True))
                await asyncio.sleep(0.05)
                given_up.cancel()
                await asyncio.sleep(0.05)
                decoding.append(asyncio.ensure_future(second.decode(lambda piece, end: True)))
                await asyncio.sleep(0.05)
                assert engine.open_rows == 2
            await decoding[0]
            first.close()
            assert len((await decoding[1]).ids) == 1

    asyncio.run(asyncio.wait_for(work(), 60))


def test_cancelling_at_random_moments_leaks_no_slot(untrained: Family) -> None:
    async def one(engine: NativeEngine, index: int, random: np.random.Generator) -> str:
        task = asyncio.ensure_future(answer(engine, noise_question(index), sampling=Sampling(max_tokens=12)))
        await asyncio.sleep(random.uniform(0, 0.4))
        if index % 2:
            task.cancel()
        try:
            return str((await task).finish)
        except asyncio.CancelledError:
            return "cancelled"

    async def work() -> None:
        random = np.random.default_rng(0)
        with NativeEngine(untrained, max_rows=5) as engine:
            ends = await asyncio.gather(*(one(engine, index, random) for index in range(40)))
            assert set(ends) <= {"cancelled", *map(str, Finish)}
            assert ends.count("length") >= 20
            after = await asyncio.gather(
                *(answer(engine, noise_question(i), sampling=Sampling(max_tokens=3)) for i in range(5))
            )
            assert all(trace.finish is Finish.LENGTH for trace in after)
            for _ in range(500):
                if engine.open_rows == 0:
                    break
                await asyncio.sleep(0.01)
            assert engine.open_rows == 0

    asyncio.run(work())


def test_an_engine_that_is_closed_holds_nothing(untrained_folder: Path) -> None:
    family = load(untrained_folder)
    with NativeEngine(family, encode_beside=True, graphs=True) as engine:
        with pytest.warns(RuntimeWarning, match="without a GPU"):
            asyncio.run(noise_answer(engine, 2, Sampling()))
        cache = weakref.ref(engine._worker._cache)
    assert cache() is None
    weights = weakref.ref(family)
    gc.disable()  # as good as: memory of a GPU calls no garbage collector
    try:
        del engine, family
        assert weights() is None
    finally:
        gc.enable()
