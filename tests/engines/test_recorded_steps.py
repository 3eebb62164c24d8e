"""The native engine with CUDA graphs, which are played on the CPU: answers are those without."""

from __future__ import annotations

import asyncio

import pytest
from support.answers import listening
from support.recording import Recordings
from support.sounds import noise_question

from relisten.engines.native import NativeEngine
from relisten.models import Family, graphs
from relisten.trace import Sampling, Trace

ROWS = 11


async def answers(engine: NativeEngine) -> list[Trace]:
    samplings = [Sampling(temperature=1.0, top_p=0.95, seed=index) for index in range(ROWS)]
    return await asyncio.gather(
        *(listening(engine, noise_question(i), samplings[i], i, listens=i % 3, tokens=12) for i in range(ROWS))
    )


@pytest.mark.parametrize("lockstep", [False, True])
def test_answers_are_the_same(untrained: Family, monkeypatch: pytest.MonkeyPatch, lockstep: bool) -> None:
    async def work() -> None:
        recordings = Recordings()
        monkeypatch.setattr(graphs, "record", recordings.record)
        # Fewer places than answers: rows join, listen, wait for sound and leave while others decode.
        with NativeEngine(untrained, max_rows=5, lockstep=lockstep, graphs=True) as engine:
            recorded = await answers(engine)
            again = await answers(engine)
        assert 0 < recordings.recorded < recordings.repeated / 4
        with NativeEngine(untrained, max_rows=5, lockstep=lockstep) as engine:
            plain = await answers(engine)
        for trace in (recorded, again):
            assert [each.token_ids for each in trace] == [each.token_ids for each in plain]
            for mine, other in zip(trace, plain, strict=True):
                assert mine.logprobs == pytest.approx(other.logprobs, abs=1e-4)

    asyncio.run(work())


def test_an_engine_goes_on_without(untrained: Family) -> None:
    async def work() -> None:
        with NativeEngine(untrained) as engine:
            plain = await answers(engine)
        with (
            NativeEngine(untrained, graphs=True) as engine,
            pytest.warns(RuntimeWarning, match="without a GPU"),
        ):
            assert [trace.token_ids for trace in await answers(engine)] == [trace.token_ids for trace in plain]

    asyncio.run(work())
