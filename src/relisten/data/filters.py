"""Filters of example sets: the same question twice, clips shared with another set, questions that need no sound.

A filter takes examples and yields each with a reason to drop it, or none; filters stand in a row, and one that was
dropped before is passed on untouched.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Protocol, Unpack

import numpy as np

from relisten.audio import Clip, seconds_to_samples
from relisten.data.examples import Example
from relisten.errors import InputError
from relisten.listener import AskOptions
from relisten.protocol import Finish, same_answer
from relisten.question import Question
from relisten.trace import Trace

_PUNCTUATION: Final = ".,;:!?\"'()[]"


@dataclass(frozen=True)
class Sifted:
    """An example, and why it should go ("" if it should not); `note` says what kept a filter from judging it."""

    example: Example
    reason: str = ""
    note: str = ""

    def tagged(self) -> Example:
        """The example with the reason in its metadata, for those who would rather weigh than drop."""
        if not self.reason:
            return self.example
        question = self.example.question
        metadata = {**question.metadata, "filtered": self.reason}
        return replace(self.example, question=replace(question, metadata=metadata))


Filter = Callable[[Iterable[Sifted]], Iterator[Sifted]]


class Asker(Protocol):
    """Whoever answers questions; a `Listener` does."""

    def ask_each(
        self, questions: Iterable[Question], **options: Unpack[AskOptions]
    ) -> Iterator[tuple[int, Trace]]: ...


def clip_hash(example: Example) -> str:
    """The hash of the example's sound: from its metadata, else from the sound itself.

    Raises:
        InputError: there is none, and the sound cannot be read.
    """
    known = example.question.metadata.get("hash")
    return known if isinstance(known, str) and known else example.question.clip().hash


def duration(example: Example) -> float:
    """Seconds of the example's sound: from its metadata, else from the sound itself.

    Raises:
        InputError: neither tells.
    """
    known = example.question.metadata.get("duration")
    return float(known) if isinstance(known, (int, float)) and known > 0 else example.question.clip().duration


def origins(example: Example) -> frozenset[str]:
    """What must not be shared between splits: the clip, and the recording it was cut from where that is known."""
    source = example.question.metadata.get("source")
    shared = {f"clip {clip_hash(example)}"}
    if isinstance(source, str) and source:
        shared.add(f"source {source}")
    return frozenset(shared)


def same_question_key(example: Example) -> bytes:
    """Equal for questions that ask the same of the same clip: case, punctuation, white space and the order of the
    choices make no difference."""
    question = example.question
    sound = question.metadata.get("hash") or str(question.audio)
    choices = sorted(_plain(choice) for choice in question.choices)
    text = "\0".join([str(sound), _plain(question.text), *choices])
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def drop_duplicates(rows: Iterable[Sifted]) -> Iterator[Sifted]:
    """Drops a question that an earlier one already asks of the same clip. Keeps 16 bytes a question in memory."""
    seen: set[bytes] = set()
    for row in rows:
        if not row.reason:
            key = same_question_key(row.example)
            if key in seen:
                row = replace(row, reason="duplicate")
            seen.add(key)
        yield row


def drop_shared(others: Iterable[Example]) -> Filter:
    """Drops examples whose clip or source occurs in `others` (the other splits), which are read once, here.

    Raises:
        InputError: a sound of them without a hash cannot be read.
    """
    taken: set[str] = set()
    for example in others:
        taken |= origins(example)

    def sift(rows: Iterable[Sifted]) -> Iterator[Sifted]:
        for row in rows:
            if not row.reason:
                try:
                    shared = sorted(origins(row.example) & taken)
                except InputError as error:
                    row = replace(row, reason=f"unreadable ({error})")
                else:
                    row = replace(row, reason=f"shared {shared[0]}" if shared else "")
            yield row

    return sift


def drop_answered_without_sound(
    asker: Asker, *, tries: int = 4, at_least: float = 1.0, **options: Unpack[AskOptions]
) -> Filter:
    """Drops questions that a model gets right with silence in place of the sound: they teach no listening.

    Each is asked `tries` times, the choices in another order each time, so that a lucky guess does not count: with
    four choices all four tries are right by chance once in 256. Questions without a reference pass.

    Args:
        asker: a `Listener` on any model.
        at_least: share of right answers from which on a question goes.
        options: for `ask_each`: format, temperature, seed, ...

    Raises:
        InputError: for numbers out of range.
    """
    if tries < 1 or not 0 < at_least <= 1:
        raise InputError(
            f"{tries} tries, at least {at_least} right: it needs 1 or more, and a share above 0 up to 1"
        )
    silence = _Silence()

    def sift(rows: Iterable[Sifted]) -> Iterator[Sifted]:
        waiting: deque[_Waiting] = deque()
        asked: dict[int, _Waiting] = {}  # by position of the question

        def questions() -> Iterator[Question]:
            position = 0
            for row in rows:
                entry = _Waiting(row)
                question = row.example.question
                if not row.reason and question.answer is not None:
                    try:
                        clip = silence.of(duration(row.example))
                        entry.open = tries
                    except InputError as error:
                        entry.row = replace(row, reason=f"unreadable ({error})")
                # Only now: another thread takes what waits with nothing open for decided.
                waiting.append(entry)
                for number in range(entry.open):
                    asked[position] = entry
                    position += 1
                    yield replace(question, audio=clip, choices=_turned(question.choices, number))

        for index, trace in asker.ask_each(questions(), **options):
            entry = asked.pop(index)
            entry.take(trace)
            if entry.open == 0:
                entry.decide(tries, at_least)
            while waiting and waiting[0].open == 0:
                yield waiting.popleft().row
        for entry in waiting:
            yield entry.row

    return sift


@dataclass
class _Waiting:
    """A row whose answers are under way; rows leave in the order in which they came."""

    row: Sifted
    open: int = 0
    right: int = 0
    failed: int = 0
    error: str = ""

    def take(self, trace: Trace) -> None:
        self.open -= 1
        if trace.finish is Finish.FAILED:
            self.failed += 1
            self.error = trace.error or ""
        reference = self.row.example.question.answer
        self.right += reference is not None and same_answer(trace.answer, reference)

    def decide(self, tries: int, at_least: float) -> None:
        if self.failed:
            self.row = replace(self.row, note=f"{self.failed} of {tries} silent tries failed ({self.error})")
        elif self.right >= at_least * tries:
            self.row = replace(self.row, reason=f"answered without sound ({self.right} of {tries})")


class _Silence:
    """Silent clips of any length that share one buffer."""

    def __init__(self) -> None:
        self._zeros = np.zeros(0, np.float32)

    def of(self, seconds: float) -> Clip:
        number = max(1, seconds_to_samples(seconds))
        if number > len(self._zeros):
            self._zeros = np.zeros(number, np.float32)
        return Clip(self._zeros[:number], "silence")


def _turned(choices: tuple[str, ...], number: int) -> tuple[str, ...]:
    """The choices moved on by `number` places."""
    place = number % len(choices) if choices else 0
    return choices[place:] + choices[:place]


def _plain(text: str) -> str:
    """Words without case and without the punctuation around them; what means something ("C#", "1.5") stays."""
    return " ".join(filter(None, (word.strip(_PUNCTUATION) for word in text.casefold().split())))
