"""Tasks about audio tools: to read what they say, to quote it where it is right, to conclude from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from relisten.data.questions import make_examples
from relisten.data.reasoning import Listening
from relisten.data.scenes import Event, Scene
from relisten.data.subject import as_subject
from relisten.data.timbres import LABELS
from relisten.data.told import Told
from relisten.data.wording import Rng, pick, shuffled
from relisten.protocol import Segment
from relisten.question import Question
from relisten.tools.finding import MOST_LISTED, Moment, told
from relisten.train.batches import Target
from relisten.train.scratch.listening import KIND_WEIGHTS, concluding, given, reworded, without_tags

QUOTE_WEIGHTS: Final[Mapping[str, float]] = {"duration": 2.0, "louder": 2.0, "higher": 3.0}
COMPARE_WEIGHTS: Final[Mapping[str, float]] = {"louder": 3.0, "higher": 3.0, "duration": 1.5}
_PITCHED: Final = ("low beep", "high beep", "bell")
_HELD: Final = ("low beep", "high beep", "chirp", "noise burst", "voice", "chord")
_MADE_UP: Final[Mapping[str, str]] = {"loudness": "rises", "pitch": "notes", "silence": "sounds"}


def read(scene: Scene, rng: Rng, count: int) -> list[Target]:
    """Questions with findings of tools, right or wrong."""
    examples = make_examples(scene, rng, KIND_WEIGHTS, per_scene=count, told=scene.told)
    return [reworded(example, rng) for example in examples]


def read_in_text(scene: Scene, rng: Rng, count: int) -> list[Target]:
    """`read` with its segments told in words."""
    return [without_tags(target) for target in read(scene, rng, count)]


def quote(scene: Scene, rng: Rng, count: int) -> list[Target]:
    """Findings of tools are quoted and concluded from; sounds and their times are given."""
    examples = make_examples(scene, rng, QUOTE_WEIGHTS, per_scene=count, told=scene.told)
    return [concluding(reworded(example, rng)) for example in examples if " tool " in example.response]


def recite(scene: Scene, rng: Rng, count: int) -> list[Target]:
    """What a tool says of each sound that it names, one after the other; the sounds are given. The values are made
    up, so that they have to be read: which are likely does not help."""
    subject = as_subject(scene)
    targets = []
    for _ in range(count):
        tool = pick(rng, sorted(_MADE_UP))
        spoken = [event for event in subject.events if rng.random() < 0.7][:MOST_LISTED]
        said = {event.onset: _made_up(tool, event.onset, rng) for event in spoken}
        if not said:
            continue
        heard = Listening(subject, rng, notes={at: f"tool {moment.text()}" for at, moment in said.items()})
        heard.listen(Segment(0.0, round(min(scene.clip.duration, 8.0), 1)))
        line = f"[{tool}] {_MADE_UP[tool]} at {told(list(said.values()))}"
        question = Question(f"What does {tool} say of every sound?", findings=(line,))
        target = Target(question, f"<think>I listen to{heard.text}", chooses=False, ends=False)
        targets.append(given(target, until=len(target.response)))
    return targets


def compare(scene: Scene, rng: Rng, count: int) -> list[Target]:
    """Conclusions from levels, notes and lengths that tools tell, of sounds that are made up as well: only their
    onsets are those of the scene."""
    labels = shuffled(rng, LABELS)[: int(rng.integers(2, 4))]
    levels = {label: rng.uniform(-50, -5) for label in labels}
    events = []
    for event in scene.events:
        label = pick(rng, labels)
        pitch = 440 * 2 ** rng.uniform(-2.5, 2.5) if label in _PITCHED else None
        level = levels[label] + rng.uniform(-0.5, 0.5)
        offset = min(event.onset + math.exp(rng.uniform(-1.5, 1)), scene.clip.duration)
        made = Event(event.onset, offset, label, pitch=pitch, level=level, weighted_level=level)
        events.append(replace(made, sustained=label in _HELD))
    said = {
        "loudness": [Moment.of_level(e.onset, e.level) for e in events],
        "pitch": [Moment.of_pitch(e.onset, e.pitch) for e in events if e.pitch is not None],
        "silence": [Moment.of_length(e.onset, e.duration) for e in events],
    }
    findings = [
        Told(tool, f"[{tool}] {_MADE_UP[tool]} at {told(moments)}", tuple(moments[:MOST_LISTED]))
        for tool, moments in said.items()
        if moments
    ]
    made_up = replace(scene, events=tuple(events))
    examples = make_examples(made_up, rng, COMPARE_WEIGHTS, per_scene=count, told=findings)
    return [concluding(reworded(example, rng)) for example in examples]


def _made_up(tool: str, onset: float, rng: Rng) -> Moment:
    at = max(0.0, onset + rng.uniform(-0.04, 0.06))
    if tool == "pitch":
        return Moment.of_pitch(at, 440 * 2 ** rng.uniform(-3, 3))
    if tool == "silence":
        return Moment.of_length(at, rng.uniform(0.05, 3))
    return Moment.of_level(at, rng.uniform(-60, -4))
