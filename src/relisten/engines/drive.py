"""One answer from question to trace: the interleaver decides, a stream obeys. Every caller that wants an answer
(listener, rollouts, evaluation, server) comes through here, whatever the engine."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Protocol

from relisten.audio import Clip
from relisten.engines.base import Engine, Stream
from relisten.errors import EngineError, InputError, RelistenError
from relisten.protocol import Event, Finish, Format, Interleaver, Listen, Skip, Stop
from relisten.question import Question
from relisten.trace import Routing, Sampling, Span, Trace


@dataclass(frozen=True)
class Piece:
    """Text that was just decoded."""

    text: str


Happening = Piece | Event | Routing
"""What is told while an answer is made. A `Routing` comes when a route is chosen, and once more with its reports
when its tools have run."""
OnEvent = Callable[[Happening], None]
_AHEAD = 32


class Ask(Protocol):
    """How answers are made: `answer`, or the method of a router."""

    def __call__(
        self,
        engine: Engine,
        question: Question,
        /,
        *,
        format: Format,
        sampling: Sampling,
        on_event: OnEvent | None = None,
    ) -> Coroutine[Any, Any, Trace]: ...


def open_at_once(engine: Engine) -> int:
    """How many questions to have open, of many: enough to keep the engine's rows full, few enough to bound the
    sounds in memory and to leave the rest to other processes."""
    return engine.max_rows + _AHEAD


async def answer(
    engine: Engine,
    question: Question,
    *,
    format: Format = Format.INTERLEAVED,
    sampling: Sampling | None = None,
    on_event: OnEvent | None = None,
) -> Trace:
    """Answer one question; start as many of these side by side as you like.

    A sampling seed of None is drawn here and written into the trace, so that every answer can be repeated.

    Args:
        on_event: told of every piece of text and every decision as it happens, from whatever thread decodes; of a
            listen once the sound is in the context.

    Returns:
        The trace, also where the answer ended early: `finish` says how, and `error` why. Closing the engine
        meanwhile is `Finish.FAILED`. Cancelling the task closes the stream and raises as usual.

    Raises:
        InputError: the sound cannot be read, or the question does not fit the model. Nothing was decoded.
    """
    began = time.perf_counter()
    sampling = seeded(sampling or Sampling())
    clip = await sound_of(question)
    stream = engine.open(question, clip, format, sampling)
    return await complete(
        stream, question, clip, model=engine.model, format=format, sampling=sampling, began=began, on_event=on_event
    )


def seeded(sampling: Sampling) -> Sampling:
    """With a seed, drawn here where chance needs one and nobody gave it."""
    if sampling.temperature > 0 and sampling.seed is None:
        return replace(sampling, seed=secrets.randbits(63))
    return sampling


async def sound_of(question: Question) -> Clip:
    """The question's clip. Only files are read in a thread, so answers about clips in memory begin in the order in
    which they were asked for.

    Raises:
        InputError: it cannot be read.
    """
    in_memory = isinstance(question.audio, Clip)
    return question.clip() if in_memory else await asyncio.to_thread(question.clip)


async def complete(
    stream: Stream,
    question: Question,
    clip: Clip,
    *,
    model: str,
    format: Format,
    sampling: Sampling,
    began: float,
    on_event: OnEvent | None = None,
) -> Trace:
    """The answer of a stream that was opened for `question` with the same `format` and `sampling`; closes it.

    Args:
        began: when work on the question began, by `time.perf_counter`.
    """
    interleaver = Interleaver(
        clip.duration, format=format, max_listens=sampling.max_listens, max_tokens=sampling.max_tokens
    )
    spans: list[Span] = [stream.prompt]
    skipped: list[Skip] = []
    error: str | None = None
    try:
        finish = await _run(stream, interleaver, spans, skipped, on_event)
        if finish is Finish.CONTEXT:
            error = "the context window is full; ask for fewer tokens or a shorter clip"
    except EngineError as failure:
        finish, error = Finish.FAILED, str(failure)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        finish, error = Finish.FAILED, "the engine was closed"  # which cancels what its streams await
    finally:
        stream.close()
    return Trace(
        question=question.text,
        choices=question.choices,
        spans=tuple(spans),
        finish=finish,
        format=format,
        id=question.id,
        audio=clip.name,
        audio_hash=clip.hash,
        duration=clip.duration,
        model=model,
        sampling=sampling,
        skipped=tuple(skipped),
        timings=replace(stream.timings, total=time.perf_counter() - began),
        findings=question.findings,
        error=error,
    )


async def _run(
    stream: Stream,
    interleaver: Interleaver,
    spans: list[Span],
    skipped: list[Skip],
    on_event: OnEvent | None,
) -> Finish:
    while True:
        events: list[Event] = []

        def feed(piece: str, end_of_turn: bool, events: list[Event] = events) -> bool:
            new = interleaver.feed(piece, tokens=1, end_of_turn=end_of_turn)
            events += new
            if on_event is not None:
                if piece:
                    on_event(Piece(piece))
                for event in new:
                    if not isinstance(event, Listen):  # told once it is done
                        on_event(event)
            return any(not isinstance(event, Skip) for event in new)

        spans.append(await stream.decode(feed))
        skipped += (event for event in events if isinstance(event, Skip))
        if interleaver.finish is not None:
            return interleaver.finish
        for event in events:
            if isinstance(event, Listen) and (heard := stream.listen(event.segment)) is not None:
                spans.append(heard)
                if on_event is not None:
                    on_event(Listen(heard.segment))
        if stream.full:
            if on_event is not None:
                on_event(Stop(Finish.CONTEXT))
            return Finish.CONTEXT


async def answer_or_failure(
    engine: Engine, question: Question | InputError, *, format: Format, sampling: Sampling, ask: Ask = answer
) -> Trace:
    """Like `answer`, but bad input too becomes a trace with `Finish.FAILED`, so that it stops nothing else; also a
    row of a questions file that is no question."""
    if isinstance(question, InputError):
        return failed_trace(None, str(question), format, engine.model)
    try:
        return await ask(engine, question, format=format, sampling=sampling)
    except RelistenError as failure:
        return failed_trace(question, str(failure), format, engine.model)


def failed_trace(question: Question | None, error: str, format: Format, model: str) -> Trace:
    """The trace of an answer that never began."""
    return Trace(
        question=question.text if question else "",
        choices=question.choices if question else (),
        findings=question.findings if question else (),
        spans=(),
        finish=Finish.FAILED,
        format=format,
        id=question.id if question else "",
        audio=str(question.audio or "") if question else "",
        model=model,
        error=error,
    )


def question_seed(seed: int, question: Question) -> int:
    """A seed of its own for each of many questions, whatever their order and company."""
    digest = hashlib.sha256(f"{seed}\0{question.id}\0{question.text}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "little") >> 1
