"""Where a response listens and what it says it hears there: windows, segments and the running enumeration."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from relisten.data.manifest import LabelledEvent
from relisten.data.subject import Style, Subject
from relisten.data.wording import LEADS, NEXT, REASONS, Rng, in_words, pick
from relisten.protocol import MAX_LISTENS, Segment

WALK: Final = 5.0
"""Longest segment, in seconds, of a response that walks through a whole clip."""
WHOLE_CLIP: Final = 6.0
"""Clips up to this length are listened to in one piece."""
_INSTANT: Final = 1e-6


@dataclass(frozen=True)
class Window:
    """A stretch of the clip that a question names."""

    start: float
    end: float

    @property
    def times(self) -> tuple[float, float]:
        return self.start, self.end

    @property
    def segment(self) -> Segment:
        return Segment(self.start, self.end)

    def cuts(self, subject: Subject, label: str | None = None) -> bool:
        """Does a sound (of this label, or any that holds its level) lie across an edge, as far as can be told?"""
        return any(
            event.onset - subject.margin < edge < event.offset + subject.margin
            for event in subject.events
            if (event.sustained if label is None else event.label == label)
            for edge in (self.start, self.end)
        )


def windows(subject: Subject, rng: Rng, tries: int = 24) -> list[Window]:
    """Random windows of 1.5 to 5 s on a grid of 0.5 or 0.1 s, whose edges leave every onset in peace."""
    windows: list[Window] = []
    if not subject.events:
        return windows
    onsets = np.array([event.onset for event in subject.events])
    for _ in range(tries):
        grid = 0.5 if rng.random() < 0.6 else 0.1
        length = min(rng.uniform(1.5, 5.0), subject.duration - 0.1)
        steps = int((subject.duration - length) / grid + 1e-6)
        start = round(int(rng.integers(0, steps + 1)) * grid, 1)
        end = round(start + max(1.5, round(length / grid) * grid), 1)
        window = Window(start, end)
        if end > subject.duration or end - start > 5.01:
            continue
        near = min(np.abs(onsets - start).min(), np.abs(onsets - end).min())
        # A short response lists what starts in a window and could not tell of what goes on.
        if near >= subject.edge and not (subject.style is Style.SHORT and window.cuts(subject)):
            windows.append(window)
    return windows


def around(subject: Subject, rng: Rng, low: float, high: float) -> Segment:
    """A segment on a half-second grid with a random margin around [low, high], edges off every onset if it can."""
    best, distance = Segment(0.0, subject.duration), -1.0
    for _ in range(6):
        start = math.floor((low - rng.uniform(0.15, 0.7)) * 2) / 2
        end = math.ceil((high + rng.uniform(0.15, 0.7)) * 2) / 2
        segment = Segment(max(0.0, start), min(end, tenth(subject.duration)))
        gap = min(abs(event.onset - edge) for event in subject.events for edge in (segment.start, segment.end))
        if gap > distance:
            best, distance = segment, gap
        if distance >= subject.edge:
            break
    return best


def walk(subject: Subject) -> list[Segment]:
    """Successive segments that cover the clip: one if it is short, else of 3.5 to 5 s, cut between sounds."""
    total = tenth(subject.duration)
    segments, start = [], 0.0
    while total - start > WHOLE_CLIP:
        cuts = [
            round(start + step / 2, 1) for step in range(7, int(2 * WALK) + 1) if start + step / 2 < total - 0.5
        ]
        cut = max(cuts, key=lambda t: (min(subject.edge, min(abs(event.onset - t) for event in subject.events)), t))
        segments.append(Segment(start, cut))
        start = cut
    return [*segments, Segment(start, total)]


def tenth(seconds: float) -> float:
    """The clip's length cut down to 0.1 s."""
    return math.floor(seconds * 10 + 1e-6) / 10


@dataclass
class Listening:
    """The middle of a response while it grows: segments and what is heard in each.

    A short response tells of every sound that starts in a segment when it does, in seconds from the segment's
    start, which is where the next one is looked for: "0.4 kick one, 0.9 snare, 1.3 kick two". It ends with the
    sound that settles the question.
    """

    subject: Subject
    rng: Rng
    target: str | None = None
    other: str | None = None
    """A second label that is asked about; a short response counts both."""
    gap_after: LabelledEvent | None = None
    notes: Mapping[float, str] = field(default_factory=dict)
    """Words behind single events, by onset."""
    count: int = 0
    text: str = ""
    segments: list[Segment] = field(default_factory=list)
    _counts: Counter[str] = field(default_factory=Counter)

    def listen(self, segment: Segment, until: LabelledEvent | None = None) -> None:
        """Play a segment and tell what starts in it, up to the event that says all there is to know."""
        self.segments.append(segment)
        words = []
        end = segment.end if until is None else min(segment.end, until.onset + _INSTANT)
        for event in self.subject.between(segment.start, end):
            word = f"{event.onset - segment.start:.1f} {event.label}"
            if event.label in (self.target, self.other):
                self._counts[event.label] += 1
                self.count = self._counts[self.target or ""]
                word = f"{word} {in_words(self._counts[event.label])}"
            if event.onset in self.notes:
                word = f"{word} {self.notes[event.onset]}"
            if event is self.gap_after:
                word = f"{word}, a long gap"
            words.append(word)
        link = f", {pick(self.rng, NEXT)} " if self.text else " "
        self.text += f"{link}{segment.text()} {pick(self.rng, LEADS)} {', '.join(words) or 'nothing'}"

    def seek(self, *events: LabelledEvent) -> bool:
        """Listen from the start of the clip on until all of these events, given in order, were heard to their end
        where that can be told, to their start else; False if that takes more listens than an answer has."""
        late = events[-1]
        until = late.offset if late.onset in self.notes and late.sustained else late.onset
        for segment in walk(self.subject):
            if segment.start <= late.onset < segment.end < until + 0.1:
                segment = Segment(segment.start, min(tenth(self.subject.duration), tenth(until + 0.2)))
            self.listen(segment, until=late)
            if late.onset < segment.end:
                break
        return len(self.segments) <= MAX_LISTENS

    def concluded(self, reason: str, end: str) -> str:
        """The whole reasoning: why it listened (a key of `REASONS`), what it heard, and what follows."""
        said = pick(self.rng, REASONS[reason]).format(one=self.target)
        return f"{said}{self.text}, {end}."

    def difficulty(self) -> str:
        """Easy, medium or hard, from how much is heard in the segments and how much of it at once."""
        heard = [event for event in self.subject.events if any(_within(event, part) for part in self.segments)]
        at_once = sum(late.onset < early.offset for early, late in itertools.pairwise(heard))
        points = (len(self.segments) > 1) + (len(heard) > 4) + (len(heard) > 8) + (2 * at_once > len(heard))
        return ("easy", "medium", "medium", "hard", "hard")[points]


def _within(event: LabelledEvent, segment: Segment) -> bool:
    return event.onset < segment.end and event.offset > segment.start
