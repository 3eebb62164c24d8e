"""An engine that reads from a script: for tests of everything that stands on an engine, without a model."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from itertools import accumulate, pairwise
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from relisten.audio import Clip
from relisten.engines.base import Feed, Look
from relisten.errors import EngineError, InputError
from relisten.protocol import MIN_SEGMENT, Format, Segment, user_parts, user_text
from relisten.question import Question
from relisten.trace import GeneratedSpan, ListenSpan, PromptSpan, Sampling, Timings

TOKENS_PER_SECOND = 25
_BEYOND_UNICODE = 0x110000
END_OF_TURN, AUDIO_BEGIN, AUDIO, AUDIO_END = range(_BEYOND_UNICODE, _BEYOND_UNICODE + 4)


class ScriptedEngine:
    """Writes for each question what `script` returns for it, one token a character, then ends its turn.

    A token id is the character's code point; every log-prob is 0. Sound is counted (25 tokens a second), not
    heard. An exception raised by `script` fails that answer alone.
    """

    model = "scripted"
    max_rows = 64

    def __init__(self, script: Callable[[Question], str], *, max_context: int = 1 << 20) -> None:
        self._script = script
        self._context = max_context
        self._streams: set[ScriptedStream] = set()
        self.closed = False

    def open(self, question: Question, clip: Clip, format: Format, sampling: Sampling) -> ScriptedStream:
        """See `Engine.open`; `format` and `sampling` make no difference to a script."""
        if clip.duration < MIN_SEGMENT:
            raise InputError(f"{clip.name or 'clip'}: lasts {clip.duration:g} s; give at least {MIN_SEGMENT} s")
        prompt = self.prompt(question, clip)
        if len(prompt.ids) >= self._context:
            raise InputError(f"{len(prompt.ids)} prompt tokens; the model takes fewer than {self._context}")
        stream = ScriptedStream(self, question, clip, prompt)
        self._streams.add(stream)
        return stream

    def prompt(self, question: Question, clip: Clip) -> PromptSpan:
        sound = _sound_ids(clip)
        ends = [*accumulate((len(part) for part in user_parts(question)), initial=len(sound))]
        ids = (*sound, *map(ord, user_text(question)))
        return PromptSpan(ids, len(sound) - 2, tuple(pairwise(ends[1:])))

    def close(self) -> None:
        self.closed = True
        for stream in tuple(self._streams):
            stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def response(self, question: Question) -> str:
        try:
            return self._script(question)
        except Exception as error:
            raise EngineError(f"{type(error).__name__}: {error}") from error

    def forget(self, stream: ScriptedStream) -> None:
        self._streams.discard(stream)

    @property
    def context(self) -> int:
        return self._context


class ScriptedStream:
    """See `LookingStream`."""

    def __init__(self, engine: ScriptedEngine, question: Question, clip: Clip, prompt: PromptSpan) -> None:
        self.prompt = prompt
        self.timings = Timings()
        self._engine = engine
        self._question = question
        self._clip = clip
        self._length = len(prompt.ids)
        self._looked = False
        self._rest: list[str] | None = None
        self._task: asyncio.Task[GeneratedSpan] | None = None
        self._closed = False
        self._full = False

    @property
    def full(self) -> bool:
        return self._full

    async def look(self) -> Look:
        """Numbers that tell questions apart (`last`), and sounds (`sound`): one layer of 32."""
        if self._closed:
            raise EngineError("the answer was closed")
        if self._looked or self._rest is not None:
            raise EngineError("the prompt was read already; look once, and first")
        self._looked = True
        await asyncio.sleep(0)
        return Look(_numbers(repr(self.prompt.ids)), _numbers(self._clip.hash))

    def ask_again(self, question: Question) -> bool:
        prompt = self._engine.prompt(question, self._clip)
        if len(prompt.ids) >= self._engine.context:
            return False
        self.prompt, self._question, self._length = prompt, question, len(prompt.ids)
        return True

    async def decode(self, feed: Feed) -> GeneratedSpan:
        if self._closed:
            raise EngineError("the answer was closed")
        self._task = asyncio.ensure_future(self._decode(feed))
        return await self._task

    async def _decode(self, feed: Feed) -> GeneratedSpan:
        if self._rest is None:
            self._rest = list(reversed(self._engine.response(self._question)))
        ids: list[int] = []
        ends: list[int] = []
        text = ""
        while True:
            await asyncio.sleep(0)  # others may go on between two tokens, as in any engine
            piece = self._rest.pop() if self._rest else ""
            ids.append(ord(piece) if piece else END_OF_TURN)
            text += piece
            ends.append(len(text))
            self._length += 1
            self._full = self._length + 1 >= self._engine.context
            pause = feed(piece, not piece)
            if pause or not piece or self._full:
                return GeneratedSpan(tuple(ids), (0.0,) * len(ids), text, tuple(ends))

    def listen(self, segment: Segment) -> ListenSpan | None:
        ids = _sound_ids(self._clip.crop(segment.start, segment.end))
        if self._length + len(ids) + 1 >= self._engine.context:
            self._full = True
            return None
        self._length += len(ids)
        return ListenSpan(segment, ids, len(ids) - 2)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._engine.forget(self)
            if self._task is not None and not self._task.done():
                self._task.cancel()


def _sound_ids(clip: Clip) -> tuple[int, ...]:
    return (AUDIO_BEGIN, *[AUDIO] * int(clip.duration * TOKENS_PER_SECOND), AUDIO_END)


def _numbers(text: str) -> NDArray[np.float32]:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return (np.frombuffer(digest, np.uint8)[None] / 255).astype(np.float32)
