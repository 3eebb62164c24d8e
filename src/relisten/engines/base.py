"""The seam between answers and whatever decodes them.

An `Engine` opens a `Stream` for a question. A stream decodes until it is told to pause, takes a crop, and decodes
on; nothing it already computed is computed again. Any number of streams may be open: batching them is the
engine's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from relisten.audio import Clip
from relisten.protocol import Format, Segment
from relisten.question import Question
from relisten.trace import GeneratedSpan, ListenSpan, PromptSpan, Sampling, Timings

Feed = Callable[[str, bool], bool]
"""Called in order for every sampled token with (new text, whether it ends the turn); returns whether to pause
behind it. It may be called from another thread and must be quick."""


NO_NUMBERS = "the model gave no numbers (NaN) for the next token; look at the sound, or at the checkpoint's weights"
"""Why an answer fails whose log-probs are not finite."""


@dataclass(frozen=True, eq=False)
class Look:
    """What a model makes of a prompt before it says a word: hidden states behind every layer, not normalised.
    Each is float32 (layers, hidden)."""

    last: NDArray[np.float32]
    """At the prompt's last token."""
    sound: NDArray[np.float32]
    """Mean over the tokens of its sound."""


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


@runtime_checkable
class LookingStream(Stream, Protocol):
    """A stream that shows hidden states of its prompt and goes on from them; not every engine has these."""

    async def look(self) -> Look:
        """Run the prompt through the model and show what it makes of it; `decode` then goes on from there, as if
        nobody had looked.

        Raises:
            EngineError: it failed, and the stream is closed; or the prompt was read before, by a look or by
                `decode`, and the stream is as it was.
        """

    def ask_again(self, question: Question) -> bool:
        """Put another question about the same sound in the place of the one that was asked, before anything was
        decoded. What both prompts begin with is not computed again.

        Returns:
            False where the new prompt does not fit the context window; the stream is as it was.
        """


class Engine(Protocol):
    """Opens answers. It is a context manager that closes itself."""

    @property
    def model(self) -> str:
        """Name of the model, for traces and reports."""

    @property
    def max_rows(self) -> int:
        """Answers that are decoded at once; more may be open, and wait their turn."""

    def open(self, question: Question, clip: Clip, format: Format, sampling: Sampling) -> Stream:
        """Begin an answer.

        Raises:
            InputError: the clip is too short to be heard, or prompt and clip do not fit the context window.
        """

    def close(self) -> None:
        """Stop, also from within `feed`. Streams that are open end: what they await raises EngineError or is
        cancelled; `drive.complete` makes a failed answer of both."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
