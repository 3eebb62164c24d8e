"""Reasoning in full: several sentences with times, what goes on around, and what speaks against other choices.

Like the short form it gives a reason before each segment and goes on within the sentence behind it (Echo, section
3.1), which here tells when each sound begins and ends. Times are rounded to 0.1 s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from relisten.data.manifest import LabelledEvent
from relisten.data.phrases import (
    ASIDES,
    CHECKS,
    CLOSINGS,
    FULL_LEADS,
    FULL_NEXT,
    FULL_REASONS,
    I_LEADS,
    OPENINGS,
    ORDINALS,
)
from relisten.data.reasoning import Listening, around, walk
from relisten.data.subject import Style, Subject
from relisten.data.wording import Rng, pick
from relisten.protocol import Segment

_LEAD: Final = "\0"
"""Stands for the words behind the first segment until the reason before it is chosen."""
_SUBJECT: Final = re.compile(r"\bI\b|Let me")
_DETAILED: Final = 7
"""Sounds that are told of one by one in a segment; of more, only those that matter."""
_NEAR: Final = 3.0
"""Sounds that start within so many seconds are heard in one segment."""
_CHECK: Final = 0.4
"""Share of responses that play one more part of the clip to make sure."""
_SHORT: Final = 0.35
"""Sounds up to this many seconds have a moment, longer ones a beginning and an end."""


def listening(
    subject: Subject,
    rng: Rng,
    target: str | None = None,
    *,
    other: str | None = None,
    gap_after: LabelledEvent | None = None,
    notes: Mapping[float, str] | None = None,
) -> Listening:
    """The reasoning of one response, still empty, in the subject's style."""
    kind = Narration if subject.style is Style.FULL else Listening
    return kind(subject, rng, target, other, gap_after, notes or {})


@dataclass
class Narration(Listening):
    """The same listens in full sentences."""

    def listen(self, segment: Segment, until: LabelledEvent | None = None) -> None:
        self.segments.append(segment)
        begin = f". {pick(self.rng, FULL_NEXT)} " if self.text else " "
        # What follows the first segment is known when the reason for it is.
        lead = f" {self._lead(begin)} " if self.text else _LEAD
        self.text += f"{begin}{segment.text()}{lead}{self._told(segment, counting=True)}"

    def seek(self, *events: LabelledEvent) -> bool:
        """Listen where the events are: once where they are near each other, else to the first and to the last."""
        early, late = events[0], events[-1]
        if late.onset - early.onset <= _NEAR:
            self.listen(around(self.subject, self.rng, early.onset, late.onset + 0.3))
        else:
            one = around(self.subject, self.rng, early.onset, early.onset + 0.3)
            two = around(self.subject, self.rng, late.onset, late.onset + 0.3)
            self.listen(one)
            self.listen(two)
        return True

    def concluded(self, reason: str, end: str) -> str:
        one = self.subject.say(self.target) if self.target else ""
        opening = pick(self.rng, OPENINGS[reason]).format(one=one)
        said = pick(self.rng, FULL_REASONS[reason]).format(one=one)
        end = end.removeprefix("so ").removeprefix("and ").replace("that makes", "the number is")
        closing = pick(self.rng, CLOSINGS).format(end=end)
        heard = self.text.replace(_LEAD, f" {self._lead(said)} ")
        parts = (f"{opening} {said}".strip() + heard + ".", self._aside(reason), self._check(reason), closing)
        return " ".join(part for part in parts if part)

    def _lead(self, before: str) -> str:
        """How a sentence goes on behind a segment; what "I" do can only follow on "I"."""
        return pick(self.rng, FULL_LEADS + I_LEADS if _SUBJECT.search(before) else FULL_LEADS)

    def _told(self, segment: Segment, counting: bool = False) -> str:
        """What is heard in the segment, in order, with what already goes on when it begins."""
        starting = self.subject.between(segment.start, segment.end)
        # A decay that is still there is hardly heard; what holds its level is.
        before = [
            e
            for e in self.subject.events
            if e.sustained and e.onset < segment.start and e.offset > segment.start + 0.1
        ]
        told = [self._item(event, segment, counting) for event in self._shown(starting)]
        hidden = len(starting) - len(told)
        text = _joined(self.rng, told) or pick(
            self.rng, ("nothing new", "nothing that starts there", "no new sound")
        )
        if hidden:
            text += f", besides {hidden} other sound{'s' if hidden > 1 else ''}"
        if before:
            names = list(dict.fromkeys(self.subject.phrase(event.label) for event in before))
            goes = "still goes" if len(names) == 1 else "still go"
            text += f", while {_joined(None, names[:3])} {goes} on from before"
        return text

    def _shown(self, events: Sequence[LabelledEvent]) -> list[LabelledEvent]:
        if len(events) <= _DETAILED:
            return list(events)
        matters = [e for e in events if e.label == self.target or e.onset in self.notes or e is self.gap_after]
        ends = {id(events[0]), id(events[1]), id(events[-2]), id(events[-1]), *map(id, matters)}
        return [event for event in events if id(event) in ends]

    def _item(self, event: LabelledEvent, segment: Segment, counting: bool) -> str:
        word = self.subject.phrase(event.label)
        speaker = event in self.subject.speakers
        if counting and event.label == self.target:
            self.count += 1
            word = (
                f"{word} (turn {self.count})"
                if speaker
                else f"the {_ordinal(self.count)} {self.subject.say(event.label)}"
            )
        if counting and event.onset in self.notes:
            word = f"{word} ({self.notes[event.onset]})"
        begin, end = f"{event.onset:.1f}", f"{event.offset:.1f}"
        if event.duration <= _SHORT or begin == end or not event.sustained:
            text = pick(self.rng, ("{word} at {begin} s", "at {begin} s {word}", "{word} at about {begin} s"))
        elif event.offset > segment.end + 0.1:
            text = pick(self.rng, ("{word} from {begin} s on", "{word}, {which} starts at {begin} s and goes on"))
        else:
            text = pick(
                self.rng,
                (
                    "{word} from {begin} to {end} s",
                    "{word} from {begin} to {end} s",
                    "{word} at {begin} s, over by {end} s",
                    "from {begin} to {end} s {word}",
                    "{word}, {which} starts at {begin} s and goes on for {length} s",
                ),
            )
        gap = ", then a long gap" if event is self.gap_after else ""
        which = "who" if speaker else "which"
        return text.format(word=word, begin=begin, end=end, which=which, length=f"{event.duration:.1f}") + gap

    def _aside(self, reason: str) -> str:
        """What was heard elsewhere and does not count."""
        if reason not in ASIDES or self.target is None:
            return ""
        outside = [
            event
            for event in self.subject.of(self.target)
            if not any(part.start <= event.onset < part.end for part in self.segments)
        ]
        if not outside or (self.count and reason == "exists") or self.rng.random() < 0.3:
            return ""
        times = _joined(None, [f"{event.onset:.1f} s" for event in outside[:3]])
        return pick(self.rng, ASIDES[reason]).format(one=self.subject.say(self.target), times=times)

    def _check(self, reason: str) -> str:
        """One more listen, to a part that was not played yet."""
        if len(self.segments) > 2 or self.rng.random() > _CHECK:
            return ""
        free = [part for part in walk(self.subject) if not any(_meet(part, other) for other in self.segments)]
        if not free:
            return ""
        segment = pick(self.rng, free)
        if segment.duration < 1.0:
            return ""
        self.segments.append(segment)
        begin, lead, end = pick(self.rng, CHECKS)
        return f"{begin} {segment.text()} {lead} {self._told(segment)}{end}"


def _ordinal(number: int) -> str:
    return ORDINALS[number - 1] if number <= len(ORDINALS) else f"{number}th"


def _meet(one: Segment, other: Segment) -> bool:
    return one.start < other.end and other.start < one.end


def _joined(rng: Rng | None, words: Sequence[str]) -> str:
    """Words in a row: "a, b and c", or with "then" where there is a choice."""
    if len(words) < 2:
        return "".join(words)
    link = " and " if rng is None else pick(rng, (" and ", " and then ", ", then "))
    return ", ".join(words[:-1]) + link + words[-1]
