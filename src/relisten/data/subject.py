"""`Subject`: a clip that questions are asked about, with all that is known of it, whatever told it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from relisten.audio import Clip
from relisten.data.manifest import LabelledEvent, Music, Turn
from relisten.data.scenes import Scene
from relisten.data.timbres import LABELS
from relisten.data.told import Told

EDGE: Final = 0.12
"""Smallest distance in seconds between a window's edge and an onset, and between two onsets put in order."""


class Style(StrEnum):
    """How a response reasons."""

    SHORT = "short"
    """One sentence: reason, segment, what starts there. What echo-tiny is trained on."""
    FULL = "full"
    """Several sentences with times, what goes on around, and what speaks against the other choices."""


@dataclass(frozen=True)
class Subject:
    """What questions are made from. All times in seconds from the clip's start."""

    name: str
    audio: Clip | Path
    duration: float
    events: tuple[LabelledEvent, ...] = ()
    """Everything that sounds, sorted by onset."""
    strays: tuple[str, ...] = ()
    """Labels that may be asked about although they are absent, and serve as wrong choices."""
    akin: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Labels that may be another name for each label's sound; neither stands beside the other as a wrong choice."""
    margin: float = 0.0
    """How far a labelled time may be off. 0: the truth is known, as in a simulated scene."""
    turns: tuple[Turn, ...] = ()
    music: Music | None = None
    style: Style = Style.SHORT
    quoted: bool = False
    """Are labels other people's words, to be set in quotes?"""
    article: bool = True
    """Do labels name things of which there may be several (a snare), unlike a speaker or the chord Am?"""
    speakers: Mapping[LabelledEvent, str] = field(default_factory=dict)
    """Who speaks in each event, by the names of `turns`; empty where events are no turns of speech."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    told: tuple[Told, ...] = ()
    """What audio tools say about the clip, as the question shows it."""

    @property
    def edge(self) -> float:
        """Smallest distance between an onset and a time that a question names."""
        return max(EDGE, self.margin)

    @property
    def gap(self) -> float:
        """Smallest distance between two labelled times whose order is beyond doubt."""
        return max(EDGE, 2 * self.margin)

    def between(self, start: float, end: float) -> tuple[LabelledEvent, ...]:
        """The events whose onset lies in [start, end)."""
        return tuple(event for event in self.events if start <= event.onset < end)

    def of(self, label: str) -> tuple[LabelledEvent, ...]:
        """The events of one label."""
        return tuple(event for event in self.events if event.label == label)

    def alike(self, one: str, other: str) -> bool:
        """May both labels be names of one sound?"""
        return other in self.akin.get(one, ())

    def clear(self, label: str) -> bool:
        """Is no other label here that may mean the same sound?"""
        return not self.akin or not any(self.alike(label, event.label) for event in self.events)

    def countable(self, label: str) -> bool:
        """Can the events of this label be told from one another, and from those of other labels?"""
        if self.margin == 0:
            return True
        same = self.of(label)
        apart = all(late.onset - early.offset >= self.margin for early, late in itertools.pairwise(same))
        return apart and self.clear(label)

    def apart(self, events: Sequence[LabelledEvent]) -> bool:
        """Is the order of these onsets beyond doubt?"""
        return all(late.onset - early.onset >= self.gap for early, late in itertools.pairwise(events))

    def naming(self, events: Sequence[LabelledEvent]) -> Subject:
        """The same clip with other events (speakers, chords, beats), whose labels are words of ours."""
        return replace(self, events=tuple(events), strays=(), akin={}, quoted=False, article=False)

    def say(self, label: str) -> str:
        """A label within a sentence."""
        return f'"{label}"' if self.quoted else label

    def phrase(self, label: str) -> str:
        """A label as something that is heard: "a snare", "the first speaker"."""
        if self.quoted or not self.article:
            return self.say(label)
        return f"an {label}" if label[:1] in "aeiou" else f"a {label}"


def scene_events(scene: Scene) -> tuple[LabelledEvent, ...]:
    """A simulated scene's events as labels; their times stay exact to the sample."""
    return tuple(
        LabelledEvent(
            onset=event.onset,
            offset=event.offset,
            label=event.label,
            pitch=event.pitch,
            level=event.level,
            weighted_level=event.weighted_level,
            sustained=event.sustained,
        )
        for event in scene.events
    )


def as_subject(truth: Scene | Subject) -> Subject:
    """A scene as what questions are made from."""
    if isinstance(truth, Subject):
        return truth
    return Subject(
        name=truth.clip.name,
        audio=truth.clip,
        duration=truth.clip.duration,
        events=scene_events(truth),
        strays=LABELS,
        metadata={"split": truth.split, "scene": truth.index},
    )
