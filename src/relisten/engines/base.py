"""The seam between answers and whatever decodes them.

An `Engine` opens a `Stream` for a question. A stream decodes until it is told to pause, takes a crop, and decodes
on; nothing it already computed is computed again. Any number of streams may be open: batching them is the
engine's business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from relisten.audio import Clip
from relisten.protocol import Format, Segment
from relisten.question import Question
from relisten.trace import GeneratedSpan, ListenSpan, PromptSpan, Sampling, Timings

Feed = Callable[[str, bool], bool]
"""Called in order for every sampled token with (new text, whether it ends the turn); returns whether to pause
behind it. It may be called from another thread and must be quick."""


class Stream(Protocol):
    """One answer in the making. `decode` is awaited by one task at a time."""

    @property
    def prompt(self) -> PromptSpan:
        """What the model was given."""

    @property
    def full(self) -> bool:
        """Whether the context window leaves no room for another token."""

    @property
    def timings(self) -> Timings: ...

    async def decode(self, feed: Feed) -> GeneratedSpan:
        """Sample tokens until `feed` asks for a pause, the turn ends or the context is full.

        Raises:
            EngineError: decoding failed; the stream is closed.
        """

    def listen(self, segment: Segment) -> ListenSpan | None:
        """Insert a part of the question's clip behind what was sampled so far; it is heard when `decode` is
        awaited next. None where the context has no room for it: the stream is full then."""

    def close(self) -> None:
        """Give the place of this answer to another one; at any time, also while `decode` is awaited, which is
        cancelled then. Closing twice is fine."""


class Engine(Protocol):
    @property
    def model(self) -> str:
        """Name of the model, for traces and reports."""

    def open(self, question: Question, clip: Clip, format: Format, sampling: Sampling) -> Stream:
        """Begin an answer.

        Raises:
            InputError: the clip is too short to be heard, or prompt and clip do not fit the context window.
        """

    def close(self) -> None:
        """Stop; streams still open are cancelled. An engine is also a context manager."""
