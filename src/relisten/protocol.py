"""The re-listening protocol: what a model may write, and what happens when it does.

A response reads `<think> ... <seg>start, end</seg> ... </think><answer>...</answer>`, times in seconds (Echo,
section 3). The `Interleaver` reads that text as it grows and decides. It knows no model, no tensor and no file;
every driver (native engine, vLLM, a trainer that lays out targets) asks this one.

What is decided for a tag, in the order in which it is looked at:

| case | decision |
|---|---|
| format `text` | nothing: a tag is text |
| inside `<answer>` or after it | `Skip(IN_ANSWER)` |
| `</seg>` without `<seg>` | `Skip(MALFORMED)` |
| nested `<seg>`, or one never closed before the next | the last `<seg>` before `</seg>` counts |
| unclosed at the end | nothing: a tag counts once `</seg>` is complete |
| not two plain decimals and one comma: words, `1e3`, `1:05`, `3 s`, one or three numbers | `Skip(MALFORMED)` |
| start after end | `Skip(REVERSED)`: not swapped, that would be a guess |
| start below 0, or end past the clip | clamped to the clip |
| start at or past the clip's end, or end at or before 0 | `Skip(OUTSIDE)` |
| shorter than 0.2 s (3,200 samples) after clamping, start equal to end included | `Skip(TOO_SHORT)` |
| format `grounded` | `Skip(NOT_INTERLEAVED)`, with its segment |
| after `max_listens` listens (default 8) | `Skip(OVER_LIMIT)`, with its segment |
| the same or an overlapping segment again | `Listen`: hearing twice is allowed, and counts towards the limit |
| anything else | `Listen(segment)` |

A tag may be split over any number of pieces, and one piece may hold several. Text that a token carries past
`</seg>` stays before the inserted sound: sampled tokens are never cut. How an answer ends:

| case | decision |
|---|---|
| end-of-turn token, and the first complete `<answer>` block is not empty | `Stop(ANSWER)` |
| end-of-turn token without one | `Stop(NO_ANSWER)` |
| `max_tokens` sampled tokens without an end of turn | `Stop(LENGTH)`, whether or not an answer is there |
| text after a `Stop` | nothing |

A second `<answer>` block is text, also behind an empty one: the first complete one is the answer.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum

from relisten.audio import SAMPLE_RATE, seconds_to_samples
from relisten.errors import InputError
from relisten.question import Question

MIN_SEGMENT = 0.2
"""Shortest crop in seconds that is played again (Echo: 3,200 samples at 16 kHz)."""
MAX_LISTENS = 8
MAX_TOKENS = 2048
"""Sampled tokens an answer may have (Echo: response length in training)."""

MARKUP = re.compile(r"<seg>[^<]*</seg>|</?(?:think|answer)>")
"""What is no word of a response: tags, and the times of its listens."""

_MARK = re.compile(r"</?seg>|</?answer>")
_LONGEST_MARK = len("</answer>")
_NUMBER = r"\s*(-?[0-9]+(?:\.[0-9]+)?)\s*"
_TIMES = re.compile(f"{_NUMBER},{_NUMBER}")
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


class Format(StrEnum):
    """How a model reasons (Echo, section 4.3)."""

    TEXT = "text"
    """Plain chain of thought."""
    GROUNDED = "grounded"
    """Segments are cited; nothing is played again."""
    INTERLEAVED = "interleaved"
    """A cited segment is played again, and the text goes on from there."""


class Finish(StrEnum):
    """How an answer ended."""

    ANSWER = "answer"
    NO_ANSWER = "no_answer"
    LENGTH = "length"
    CONTEXT = "context"
    """The model's context window is full."""
    FAILED = "failed"
    """An error ended it; the trace says which."""


class Reason(StrEnum):
    """Why a closed tag was not listened to; see the module's table."""

    IN_ANSWER = "in_answer"
    MALFORMED = "malformed"
    REVERSED = "reversed"
    OUTSIDE = "outside"
    TOO_SHORT = "too_short"
    NOT_INTERLEAVED = "not_interleaved"
    OVER_LIMIT = "over_limit"


@dataclass(frozen=True, order=True)
class Segment:
    """A stretch of a clip, in seconds from its start; 0 <= start < end.

    Raises:
        InputError: for times that are not finite or not in that order.
    """

    start: float
    end: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and math.isfinite(self.end) and 0 <= self.start < self.end):
            raise InputError(f"segment {self.start} to {self.end} s: it needs 0 <= start < end, both finite")

    @property
    def duration(self) -> float:
        return self.end - self.start

    def widened(self, grid: float, duration: float) -> Segment:
        """From the last multiple of `grid` seconds before it to the next one behind it, inside a clip of `duration`
        seconds. Times closer to the grid than a sample lie on it."""
        near = 0.5 / SAMPLE_RATE / grid
        start = math.floor(self.start / grid + near) * grid
        return Segment(start, min(math.ceil(self.end / grid - near) * grid, duration))

    def text(self) -> str:
        """The tag that asks for this segment, rounded to 0.01 s: `<seg>2.0, 5.25</seg>`."""
        return f"<seg>{_decimal(self.start)}, {_decimal(self.end)}</seg>"


@dataclass(frozen=True)
class Listen:
    """Play `segment` again now, then go on decoding."""

    segment: Segment


@dataclass(frozen=True)
class Skip:
    """A closed tag that is not played; `segment` is set where the times themselves were good."""

    tag: str
    reason: Reason
    segment: Segment | None = None


@dataclass(frozen=True)
class Stop:
    """The answer is over."""

    finish: Finish


Event = Listen | Skip | Stop


class Interleaver:
    """Decides what a growing response asks for; one per answer.

    Args:
        duration: length of the clip in seconds.
        format: `Format.INTERLEAVED` is the only one that listens.
        max_listens: listens after which further tags are skipped.
        max_tokens: sampled tokens after which the answer stops.
    """

    def __init__(
        self,
        duration: float,
        *,
        format: Format = Format.INTERLEAVED,
        max_listens: int = MAX_LISTENS,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        self.duration = duration
        self.format = format
        self.max_listens = max_listens
        self.max_tokens = max_tokens
        self.finish: Finish | None = None
        self._text = ""
        self._scanned = 0
        self._seg_content: int | None = None  # where the content of an open <seg> starts
        self._answer_content: int | None = None
        self._answered: bool | None = None  # whether anything stands in the first complete <answer>
        self._listens = 0
        self._tokens = 0

    def feed(self, piece: str = "", *, tokens: int = 0, end_of_turn: bool = False) -> tuple[Event, ...]:
        """Take the next piece of text and return what it asks for, in order; empty means: go on.

        Args:
            piece: newly decoded text, of any length.
            tokens: how many sampled tokens it stands for, the end-of-turn token included.
            end_of_turn: the model ended its turn behind this piece.
        """
        if self.finish is not None:
            return ()
        self._text += piece
        self._tokens += tokens
        events: list[Event] = []
        while (mark := _MARK.search(self._text, self._scanned)) is not None:
            self._scanned = mark.end()
            event = self._at(mark)
            if event is not None:
                events.append(event)
        # A mark may have begun in what is left, but not earlier than its own length ago.
        self._scanned = max(self._scanned, len(self._text) - _LONGEST_MARK + 1)
        if end_of_turn:
            self.finish = Finish.ANSWER if self._answered else Finish.NO_ANSWER
        elif self._tokens >= self.max_tokens:
            self.finish = Finish.LENGTH
        if self.finish is not None:
            events.append(Stop(self.finish))
        return tuple(events)

    def _at(self, mark: re.Match[str]) -> Event | None:
        match mark[0]:
            case "<answer>":
                if self._answer_content is None:
                    self._answer_content = mark.end()
            case "</answer>":
                if self._answer_content is not None and self._answered is None:
                    self._answered = bool(self._text[self._answer_content : mark.start()].strip())
            case "<seg>":
                self._seg_content = mark.end()
            case "</seg>":
                return self._close(mark)
        return None

    def _close(self, mark: re.Match[str]) -> Event | None:
        opened, self._seg_content = self._seg_content, None
        if self.format is Format.TEXT:
            return None
        content = "" if opened is None else self._text[opened : mark.start()]
        tag = f"<seg>{content}</seg>"
        if self._answer_content is not None:
            return Skip(tag, Reason.IN_ANSWER)
        times = None if opened is None else _TIMES.fullmatch(content)
        if times is None:
            return Skip(tag, Reason.MALFORMED)
        found = clamp_segment(float(times[1]), float(times[2]), self.duration)
        if isinstance(found, Reason):
            return Skip(tag, found)
        if self.format is not Format.INTERLEAVED:
            return Skip(tag, Reason.NOT_INTERLEAVED, found)
        if self._listens >= self.max_listens:
            return Skip(tag, Reason.OVER_LIMIT, found)
        self._listens += 1
        return Listen(found)


def clamp_segment(start: float, end: float, duration: float) -> Segment | Reason:
    """The segment inside a clip of `duration` seconds, or why there is none (see the module's table)."""
    if start > end:
        return Reason.REVERSED
    if start >= duration or end <= 0:
        return Reason.OUTSIDE
    start, end = max(0.0, start), min(end, duration)
    if seconds_to_samples(end) - seconds_to_samples(start) < seconds_to_samples(MIN_SEGMENT):
        return Reason.TOO_SHORT
    return Segment(start, end)


def split_at_listens(
    text: str,
    duration: float,
    *,
    format: Format = Format.INTERLEAVED,
    max_listens: int = MAX_LISTENS,
) -> list[str | Segment]:
    """A whole response cut where inference would have listened: texts and segments in order.

    `["<think>so <seg>2.0, 5.0</seg>", Segment(2.0, 5.0), " has two.</think><answer>2</answer>"]`. A trainer lays
    out its targets with this, so that they are what an engine would have produced.
    """
    interleaver = Interleaver(duration, format=format, max_listens=max_listens)
    parts: list[str | Segment] = []
    begun = 0
    # Fed in pieces that end at a closing tag, every event stands exactly at the end of its piece.
    for piece in re.finditer(r".*?(?:</seg>|\Z)", text, re.DOTALL):
        for event in interleaver.feed(piece[0]):
            if isinstance(event, Listen):
                parts += [text[begun : piece.end()], event.segment]
                begun = piece.end()
    if begun < len(text):
        parts.append(text[begun:])
    return parts


def parse_answer(text: str) -> str | None:
    """What stands in the first complete `<answer>` block, stripped; None if there is none or it is empty."""
    match = _ANSWER.search(text)
    return (match[1].strip() or None) if match else None


def same_answer(given: str | None, reference: str) -> bool:
    """Whether an answer is the reference: equal but for case and white space, and nothing less (never a part)."""
    return given is not None and given.casefold().split() == reference.casefold().split()


def system_prompt(format: Format) -> str:
    """The instruction that comes before the sound, the same for every question of a format."""
    cite = {
        Format.TEXT: "",
        Format.GROUNDED: " Before a claim, write the part it rests on as <seg>start, end</seg> in seconds.",
        Format.INTERLEAVED: (
            " Before a claim, write the part it rests on as <seg>start, end</seg> in seconds;"
            " you then hear that part again."
        ),
    }[format]
    return (
        "You answer questions about a sound. Think step by step in <think>...</think>."
        f"{cite} Then give your answer in <answer>...</answer>, worded as the choice you pick."
    )


FINDINGS_HEAD = "Found by audio tools, which can be wrong:"


def user_parts(question: Question) -> tuple[str, ...]:
    """What a model reads behind the sound: the question and its choices, then each of the findings.

    Every part is tokenised on its own, so that a prompt with findings goes on where the one without them ends.
    """
    choices = ("Choices:", *(f"- {choice}" for choice in question.choices)) if question.choices else ()
    head = f"\n{FINDINGS_HEAD}"
    findings = (f"{'' if number else head}\n{finding}" for number, finding in enumerate(question.findings))
    return ("\n".join([question.text, *choices]), *findings)


def user_text(question: Question) -> str:
    """`user_parts` as one text."""
    return "".join(user_parts(question))


def _decimal(seconds: float) -> str:
    text = f"{seconds:.2f}"
    return text[:-1] if text.endswith("0") else text
