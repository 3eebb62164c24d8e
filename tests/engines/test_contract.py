"""What every engine promises, whatever decodes inside it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from dataclasses import replace
from itertools import accumulate
from typing import Any

import pytest
from support.answers import pause_after
from support.sounds import noise_clip
from support.vllm import SharedVllm, needs_vllm

from relisten.engines.base import Engine, LookingStream, Stream
from relisten.engines.drive import answer, answer_or_failure
from relisten.engines.native import NativeEngine
from relisten.engines.scripted import ScriptedEngine
from relisten.errors import EngineError, InputError
from relisten.models import Family
from relisten.protocol import Finish, Format, Segment
from relisten.question import Question
from relisten.trace import GeneratedSpan, Sampling, Trace

CONTEXT = 700
SCRIPT = "<think>first <seg>0.5, 2.0</seg> then <seg>2.0, 3.0</seg> done.</think><answer>2</answer>"


@pytest.fixture(params=["scripted", "native", pytest.param("vllm", marks=needs_vllm)])
def engine(request: pytest.FixtureRequest, untrained: Family) -> Iterator[Engine]:
    made: Engine
    if request.param == "vllm":
        shared: SharedVllm = request.getfixturevalue("untrained_vllm")
        yield shared.engine()
        shared.tidy()
        return
    if request.param == "native":
        made = NativeEngine(untrained, max_rows=4, max_context=CONTEXT)
    else:
        made = ScriptedEngine(lambda question: SCRIPT * 100, max_context=CONTEXT)
    yield made
    made.close()


def question(seed: int = 0, seconds: float = 4.0) -> Question:
    return Question("How many?", ("1", "2"), noise_clip(seconds, seed), id=str(seed))


def open_stream(engine: Engine, asked: Question) -> Stream:
    return engine.open(asked, asked.clip(), Format.INTERLEAVED, Sampling())


def open_looking(engine: Engine, asked: Question) -> LookingStream:
    stream = open_stream(engine, asked)
    if not isinstance(stream, LookingStream):
        pytest.skip("this engine shows no hidden states")
    return stream


def assert_same(found: GeneratedSpan, expected: GeneratedSpan) -> None:
    """Log-probs to rounding: on some processors the last bits depend on what else is in the batch."""
    assert (found.ids, found.text, found.ends) == (expected.ids, expected.text, expected.ends)
    assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


def run(work: Awaitable[object]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))  # type: ignore[arg-type]


def test_decoding_pauses_exactly_where_it_is_told(engine: Engine) -> None:
    async def work() -> None:
        stream = open_stream(engine, question())
        for count in (1, 5, 3):
            seen: list[str] = []
            span = await stream.decode(pause_after(count, seen))
            assert len(span.ids) == len(span.logprobs) == len(seen) == count
            assert span.text == "".join(seen)
            assert span.ends == tuple(accumulate(map(len, seen)))
            assert all(logprob <= 0 for logprob in span.logprobs)
        stream.close()

    run(work())


def test_a_listen_inserts_begin_placeholders_end(engine: Engine) -> None:
    async def work() -> None:
        stream = open_stream(engine, question())
        await stream.decode(pause_after(2))
        heard = stream.listen(Segment(1.0, 2.0))
        assert heard is not None
        assert heard.segment == Segment(1.0, 2.0)
        begin, *inside, end = heard.ids
        assert len(inside) == heard.num_audio_tokens > 0
        assert len({begin, inside[0], end}) == 3
        assert set(inside) == {inside[0]}
        assert stream.prompt.ids.count(inside[0]) == stream.prompt.num_audio_tokens
        assert len((await stream.decode(pause_after(2))).ids) == 2
        stream.close()

    run(work())


def test_many_streams_at_once_do_not_mix(engine: Engine) -> None:
    async def one(seed: int) -> tuple[GeneratedSpan, GeneratedSpan]:
        stream = open_stream(engine, question(seed))
        first = await stream.decode(pause_after(3 + seed % 4))
        stream.listen(Segment(0.5, 1.0 + seed % 3))
        second = await stream.decode(pause_after(4))
        stream.close()
        return first, second

    async def work() -> None:
        together = await asyncio.gather(*(one(seed) for seed in range(12)))
        alone = [await one(seed) for seed in range(12)]
        assert [(a.ids, b.ids, a.text, b.text) for a, b in together] == [
            (a.ids, b.ids, a.text, b.text) for a, b in alone
        ]

    run(work())


def test_who_looks_first_hears_the_same_answer(engine: Engine) -> None:
    async def work() -> None:
        plain = open_stream(engine, question())
        expected = [await plain.decode(pause_after(1)), await plain.decode(pause_after(6))]
        looked = open_looking(engine, question())
        look = await looked.look()
        assert look.last.shape == look.sound.shape
        seen: list[str] = []
        found = [await looked.decode(pause_after(1, seen)), await looked.decode(pause_after(6, seen))]
        for span, wanted in zip(found, expected, strict=True):
            assert_same(span, wanted)
        assert "".join(seen) == "".join(span.text for span in expected)
        looked.close()
        plain.close()

    run(work())


@pytest.mark.parametrize("looks", [True, False])
@pytest.mark.parametrize("change", [{"findings": ("[length] 4 s", "[pitch] none")}, {"text": "When?"}])
def test_another_question_takes_the_place_of_the_first(engine: Engine, looks: bool, change: dict[str, Any]) -> None:
    other = replace(question(), **change)

    async def work() -> None:
        plain = open_stream(engine, other)
        expected = await plain.decode(pause_after(6))
        changed = open_looking(engine, question())
        if looks:
            await changed.look()
        assert changed.ask_again(other)
        assert changed.prompt == plain.prompt
        assert len(changed.prompt.findings) == len(other.findings)
        found = await changed.decode(pause_after(6))
        assert_same(found, expected)
        heard = changed.listen(Segment(0.5, 1.0))
        assert heard is not None
        await changed.decode(pause_after(2))

    run(work())


def test_a_question_too_long_leaves_the_first_in_place(engine: Engine) -> None:
    async def work() -> None:
        stream, plain = open_looking(engine, question()), open_stream(engine, question())
        await stream.look()
        assert not stream.ask_again(replace(question(), findings=("long " * CONTEXT,)))
        assert stream.prompt == plain.prompt
        assert_same(await stream.decode(pause_after(4)), await plain.decode(pause_after(4)))

    run(work())


def test_a_look_comes_first_and_once_and_else_harms_nobody(engine: Engine) -> None:
    async def work() -> None:
        plain, stream, changed = open_stream(engine, question()), *(open_looking(engine, question()) for _ in "ab")
        expected = await plain.decode(pause_after(4))
        await stream.look()
        await changed.look()
        assert changed.ask_again(replace(question(), findings=("[length] 4 s",)))
        for looked in (stream, changed):
            with pytest.raises(EngineError, match="read already"):
                await looked.look()
        assert_same(await stream.decode(pause_after(4)), expected)
        with pytest.raises(EngineError, match="read already"):
            await stream.look()
        await changed.decode(pause_after(2))

    run(work())


def test_closing_ends_a_look(engine: Engine) -> None:
    async def work() -> None:
        stream = open_looking(engine, question())
        stream.close()
        with pytest.raises(EngineError):
            await stream.look()

    run(work())


def test_a_full_context_stops_decoding(engine: Engine) -> None:
    async def work() -> None:
        stream = open_stream(engine, question())
        lengths = len(stream.prompt.ids)
        while not stream.full:
            lengths += len((await stream.decode(lambda piece, end: False)).ids)
        assert CONTEXT - 2 <= lengths <= CONTEXT
        assert stream.listen(Segment(0.0, 4.0)) is None
        stream.close()

    run(work())


def test_a_crop_that_does_not_fit_is_not_inserted(engine: Engine) -> None:
    async def work() -> None:
        stream = open_stream(engine, question())
        await stream.decode(pause_after(1))
        for _ in range(100):
            if stream.listen(Segment(0.0, 4.0)) is None:
                break
        assert stream.full
        stream.close()

    run(work())


def test_closing_cancels_what_is_awaited_and_frees_the_place(engine: Engine) -> None:
    async def work() -> None:
        for seed in range(10):  # more than fit at once
            stream = open_stream(engine, question(seed))
            decoding = asyncio.ensure_future(stream.decode(lambda piece, end: False))
            await asyncio.sleep(0.001)
            stream.close()
            stream.close()
            with pytest.raises(asyncio.CancelledError):
                await decoding
            with pytest.raises(EngineError):
                await stream.decode(pause_after(1))
        after = open_stream(engine, question())
        assert len((await after.decode(pause_after(2))).ids) == 2
        after.close()

    run(work())


@pytest.mark.parametrize("seconds", [0.0001, 0.01, 3000.0])
def test_a_clip_too_short_or_too_long_is_refused(engine: Engine, seconds: float) -> None:
    with pytest.raises(InputError, match=r"lasts|tokens"):
        open_stream(engine, question(seconds=seconds))


def test_an_answer_ends_with_a_named_finish_and_a_whole_trace(engine: Engine) -> None:
    trace = asyncio.run(answer(engine, question(), sampling=Sampling(max_tokens=20)))
    assert trace.finish is Finish.LENGTH
    assert len(trace.logprobs) == sum(trace.loss_mask) == 20
    assert trace.spans[0] == open_stream(engine, question()).prompt
    full = asyncio.run(answer(engine, question(), sampling=Sampling(max_tokens=10_000)))
    assert full.finish is Finish.CONTEXT
    assert full.error is not None


def test_bad_input_becomes_a_failed_trace_where_it_must_not_stop_others(engine: Engine) -> None:
    asked = question(seconds=0.01)
    trace = asyncio.run(answer_or_failure(engine, asked, format=Format.TEXT, sampling=Sampling()))
    assert trace.finish is Finish.FAILED
    assert trace.answer is None
    assert "0.01 s" in str(trace.error)


def test_leaving_the_engine_ends_every_answer(engine: Engine) -> None:
    async def work() -> None:
        with engine as entered:
            assert entered is engine
            streams = [open_stream(engine, question(seed)) for seed in range(6)]
            decoding = [asyncio.ensure_future(stream.decode(lambda piece, end: False)) for stream in streams]
            await asyncio.sleep(0.001)
        for task in decoding:
            with pytest.raises((EngineError, asyncio.CancelledError)):
                await task
        with pytest.raises(EngineError):
            await streams[0].decode(pause_after(1))

    run(work())


async def begun_answer(engine: Engine) -> asyncio.Task[Trace]:
    """One that has said its first words."""
    begun, loop = asyncio.Event(), asyncio.get_running_loop()

    def tell(happening: object) -> None:
        loop.call_soon_threadsafe(begun.set)

    answering = asyncio.ensure_future(
        answer(engine, question(), sampling=Sampling(max_tokens=10_000), on_event=tell)
    )
    await begun.wait()
    return answering


def test_closing_the_engine_makes_an_answer_in_the_making_a_failed_one(engine: Engine) -> None:
    async def work() -> None:
        answering = await begun_answer(engine)
        engine.close()
        trace = await answering
        assert (trace.finish, trace.error) == (Finish.FAILED, "the engine was closed")

    run(work())


def test_cancelling_an_answer_is_no_failure(engine: Engine) -> None:
    async def work() -> None:
        answering = await begun_answer(engine)
        answering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answering

    run(work())


def test_a_script_is_followed_to_the_letter() -> None:
    engine = ScriptedEngine(lambda question: SCRIPT)
    trace = asyncio.run(answer(engine, question()))
    assert trace.text == SCRIPT
    assert trace.answer == "2"
    assert trace.finish is Finish.ANSWER
    assert trace.segments == (Segment(0.5, 2.0), Segment(2.0, 3.0))
    assert [span.text for span in trace.generated] == [
        "<think>first <seg>0.5, 2.0</seg>",
        " then <seg>2.0, 3.0</seg>",
        " done.</think><answer>2</answer>",
    ]
    assert trace.loss_mask[-1] == 1  # the end of turn is trained


def test_a_script_that_fails_fails_its_answer_alone() -> None:
    def script(question: Question) -> str:
        if question.id == "1":
            raise KeyError("no line for this one")
        return SCRIPT

    engine = ScriptedEngine(script)

    async def work() -> None:
        traces = await asyncio.gather(*(answer(engine, question(seed)) for seed in range(3)))
        assert [trace.finish for trace in traces] == [Finish.ANSWER, Finish.FAILED, Finish.ANSWER]
        assert "no line" in str(traces[1].error)

    run(work())
