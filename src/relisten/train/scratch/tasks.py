"""The tasks by name: `listening` has those about a scene's sound, `reading` those about tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from relisten.data.scenes import Scene
from relisten.data.wording import Rng
from relisten.protocol import Format
from relisten.train.batches import Target
from relisten.train.scratch.listening import (
    answer,
    answer_given,
    answer_in_text,
    answer_qualities,
    conclude,
    describe,
    measure,
    reason,
    slowly,
    transcribe,
)
from relisten.train.scratch.reading import compare, quote, read, read_in_text, recite


@dataclass(frozen=True)
class Task:
    """A way to make targets from a scene; `make(scene, rng, count)` gives at most `count` of them."""

    format: Format
    make: Callable[[Scene, Rng, int], list[Target]]
    seconds: float | None = None
    """Seconds of the clip that are heard, where the sound does not matter; None: all."""
    reads: bool = False
    """Whether it needs scenes with findings of tools."""


TASKS: Final[Mapping[str, Task]] = {
    "interleaved": Task(Format.INTERLEAVED, answer),
    "qualities": Task(Format.INTERLEAVED, answer_qualities),
    "measure": Task(Format.INTERLEAVED, measure),
    "grounded": Task(Format.GROUNDED, answer),
    "given": Task(Format.INTERLEAVED, answer_given),
    "given slowly": Task(Format.INTERLEAVED, slowly(answer_given)),
    "reason": Task(Format.GROUNDED, reason, seconds=0.5),
    "conclude": Task(Format.GROUNDED, conclude, seconds=0.5),
    "text": Task(Format.TEXT, answer_in_text),
    "read": Task(Format.INTERLEAVED, read, reads=True),
    "read text": Task(Format.TEXT, read_in_text, reads=True),
    "quote": Task(Format.GROUNDED, quote, seconds=0.5, reads=True),
    "recite": Task(Format.GROUNDED, recite, seconds=0.5),
    "compare": Task(Format.GROUNDED, compare, seconds=0.5),
    "describe": Task(Format.TEXT, describe),
    "transcribe": Task(Format.INTERLEAVED, transcribe),
    "transcribe slowly": Task(Format.INTERLEAVED, slowly(transcribe)),
}
