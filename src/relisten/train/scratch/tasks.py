"""What is learned from a scene: question answering in the three formats, and the listening exercises before it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from relisten.data.examples import Example
from relisten.data.questions import make_examples
from relisten.data.reasoning import Listening
from relisten.data.scenes import Event, Scene, caption
from relisten.data.subject import as_subject
from relisten.data.timbres import LABELS
from relisten.data.told import Told
from relisten.data.wording import NAMES, REASONS, Rng, in_words, pick, shuffled
from relisten.protocol import Format, Segment
from relisten.question import Question
from relisten.router.finding import MOST_LISTED, Moment, told
from relisten.router.sections import note_name
from relisten.train.batches import Target

KIND_WEIGHTS: Final[Mapping[str, float]] = {
    "count_window": 1.5,
    "count_all": 1.2,
    "first": 0.8,
    "last": 0.8,
    "after": 1.2,
    "exists": 1.2,
    "before": 1.0,
    # Few scenes allow these, so they are asked wherever they can be.
    "duration": 4.0,
    "longest_gap": 8.0,
    "louder": 12.0,
    "higher": 8.0,
}
CONCLUDE_WEIGHTS: Final[Mapping[str, float]] = {
    "before": 4.0, "after": 1.5, "duration": 4.0, "longest_gap": 4.0, "louder": 4.0, "higher": 2.0,
}  # fmt: skip
QUOTE_WEIGHTS: Final[Mapping[str, float]] = {"duration": 2.0, "louder": 2.0, "higher": 3.0}
COMPARE_WEIGHTS: Final[Mapping[str, float]] = {"louder": 3.0, "higher": 3.0, "duration": 1.5}
_PITCHED: Final = ("low beep", "high beep", "bell")
_HELD: Final = ("low beep", "high beep", "chirp", "noise burst", "voice", "chord")
_MADE_UP: Final[Mapping[str, str]] = {"loudness": "rises", "pitch": "notes", "silence": "sounds"}
_OFF: Final = 0.22
"""Logarithm of how far a length may be told off: below half of the smallest step between choices, 1.6."""
_LABEL = "|".join(re.escape(label) for label in LABELS)
_HEARD = re.compile(
    rf"(?:,(?: a long gap,)?)? \d+\.\d (?:{_LABEL})|(?<!from)(?<! s) -?\d+ dB| key \d+|, a long gap"
    r"| \d+\.\d seconds"
)
_CONCLUSION = re.compile(r", (?:so|and the) [^,]*</think>")
_TAG = re.compile(r"<seg>([\d.]+), ([\d.]+)</seg>")


@dataclass(frozen=True)
class Task:
    """A way to make targets from a scene; `make(scene, rng, count)` gives at most `count` of them."""

    format: Format
    make: Callable[[Scene, Rng, int], list[Target]]
    seconds: float | None = None
    """How much of the clip is heard, where it does not matter."""
    reads: bool = False
    """Does it need scenes of which it is known what tools say?"""


def answer(scene: Scene, rng: Rng, count: int) -> list[Target]:
    """Questions with the reasoning that answers them, segments cited; choices worded as people would."""
    return [reworded(example, rng) for example in make_examples(scene, rng, KIND_WEIGHTS, per_scene=count)]


def read(scene: Scene, rng: Rng, count: int) -> list[Target]:
    """The same questions with what tools found, right or wrong."""
    examples = make_examples(scene, rng, KIND_WEIGHTS, per_scene=count, told=scene.told)
    return [reworded(example, rng) for example in examples]


def read_in_text(scene: Scene, rng: Rng, count: int) -> list[Target]:
    """These with their segments told in words."""
    return [_in_words(target) for target in read(scene, rng, count)]


def quote(scene: Scene, rng: Rng, count: int) -> list[Target]:
    """What tools found, quoted and concluded from, where the sounds and their times are given."""
    examples = make_examples(scene, rng, QUOTE_WEIGHTS, per_scene=count, told=scene.told)
    return [_given(reworded(example, rng)) for example in examples if " tool " in example.response]


def reworded(example: Example, rng: Rng) -> Target:
    """The same question with its choices left out, or worded in another way, and the answer with them: a user's
    "snare drum" or "Three" must be answered as it is listed."""
    question, response = example.question, example.response
    chance = float(rng.random())
    if chance < 0.1 and example.kind not in ("duration", "longest_gap"):
        return Target(replace(question, choices=()), response)
    if chance < 0.25:
        said = [pick(rng, NAMES[choice])[0] if choice in NAMES else choice for choice in question.choices]
    elif chance < 0.35:
        said = [choice[:1].upper() + choice[1:] for choice in question.choices]
    elif chance < 0.4:
        said = [in_words(int(choice)) if choice.isdigit() else choice for choice in question.choices]
    else:
        return Target(question, response)
    answer = said[question.choices.index(str(question.answer))]
    reasoning, _, _ = response.rpartition("<answer>")
    question = replace(question, choices=tuple(said), answer=answer)
    return Target(question, f"{reasoning}<answer>{answer}</answer>")


def answer_in_text(scene: Scene, rng: Rng, count: int) -> list[Target]:
    """The same reasoning with its segments told in words."""
    return [_in_words(target) for target in answer(scene, rng, count)]


def describe(scene: Scene, rng: Rng, count: int) -> list[Target]:
    """Everything that is heard, with times: the whole clip once, then windows of it."""
    targets = []
    for number in range(count):
        start, end = (0.0, scene.clip.duration) if number == 0 else _window(scene, rng, 1.5, 5.0)
        question = f"List every sound and its time from {start:.1f} to {end:.1f} seconds."
        heard = caption(scene.events, start, end, relative=False)
        targets.append(Target(Question(question), f"<think>{heard}", ends=False))
    return targets


def transcribe(scene: Scene, rng: Rng, count: int) -> list[Target]:
    """Crops given from outside, one after the other, and what is in them with a running count of one label.

    The turn never ends behind a crop: what a crop holds is told in the middle of a sentence.
    """
    present = sorted({event.label for event in scene.events})
    targets = []
    for _ in range(count):
        label = pick(rng, present) if rng.random() < 0.75 else pick(rng, LABELS)
        heard = Listening(as_subject(scene), rng, label)
        for _ in range(int(rng.integers(1, 4))):
            heard.listen(Segment(*_window(scene, rng, 0.6, 5.0)))
        question = f"How many {pick(rng, NAMES[label])[1]} are there?"
        reason = pick(rng, REASONS["count"]).format(one=label)
        targets.append(Target(Question(question), f"<think>{reason}{heard.text}", chooses=False, ends=False))
    return targets


def transcribe_slowly(scene: Scene, rng: Rng, count: int) -> list[Target]:
    """The same with crops at half speed; times are told as they are in the clip."""
    return [replace(target, crop_speed=0.5) for target in transcribe(scene, rng, count)]


def reason(scene: Scene, rng: Rng, count: int) -> list[Target]:
    """Conclusions and running counts from what is said to be heard: the labels are given, the sound tells nothing.

    Cheap, since nothing is inserted and the clip can be short; what is asked, matched and counted is learned here.
    """
    return [_given(target) for target in answer(scene, rng, count)]


def conclude(scene: Scene, rng: Rng, count: int) -> list[Target]:
    """The same for the questions whose conclusions take most thought. Lengths are told a little off: who hears them
    is never exact, and has to take the choice that comes nearest."""
    targets = []
    for example in make_examples(scene, rng, CONCLUDE_WEIGHTS, per_scene=count):
        target = reworded(example, rng)
        off = math.exp(rng.uniform(-_OFF, _OFF))
        heard, seconds, rest = target.response.partition(" seconds")
        if example.kind == "duration" and seconds:
            before, _, length = heard.rpartition(" ")
            target = replace(target, response=f"{before} {float(length) * off:.1f}{seconds}{rest}")
        targets.append(_given(target))
    return targets


def recite(scene: Scene, rng: Rng, count: int) -> list[Target]:
    """What a tool says of every sound that it speaks of, one after the other, where the sounds are given. All of it
    is made up, so that it has to be read: what loudness or pitch is likely says nothing."""
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
        items = _HEARD.finditer(target.response, target.response.find("</seg>"))
        targets.append(replace(target, given=tuple(match.span() for match in items)))
    return targets


def compare(scene: Scene, rng: Rng, count: int) -> list[Target]:
    """What follows from levels, notes and lengths that tools tell, of sounds that are made up as well: only their
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
        "loudness": [Moment(e.onset, e.level, f"{e.level:.0f} dB") for e in events],
        "pitch": [Moment(e.onset, e.pitch, note_name(e.pitch)) for e in events if e.pitch is not None],
        "silence": [Moment(e.onset, e.duration, f"for {e.duration:.1f} s") for e in events],
    }
    findings = [
        Told(tool, f"[{tool}] {_MADE_UP[tool]} at {told(moments)}", tuple(moments[:MOST_LISTED]))
        for tool, moments in said.items()
        if moments
    ]
    made_up = replace(scene, events=tuple(events))
    examples = make_examples(made_up, rng, COMPARE_WEIGHTS, per_scene=count, told=findings)
    return [_given(reworded(example, rng)) for example in examples]


def _made_up(tool: str, onset: float, rng: Rng) -> Moment:
    at = max(0.0, onset + rng.uniform(-0.04, 0.06))
    if tool == "pitch":
        hertz = 440 * 2 ** rng.uniform(-3, 3)
        return Moment(at, hertz, note_name(hertz))
    if tool == "silence":
        length = rng.uniform(0.05, 3)
        return Moment(at, length, f"for {length:.1f} s")
    level = rng.uniform(-60, -4)
    return Moment(at, level, f"{level:.0f} dB")


TASKS: Final[Mapping[str, Task]] = {
    "interleaved": Task(Format.INTERLEAVED, answer),
    "grounded": Task(Format.GROUNDED, answer),
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
    "transcribe slowly": Task(Format.INTERLEAVED, transcribe_slowly),
}


def _in_words(target: Target) -> Target:
    return replace(target, response=_TAG.sub(r"\1 to \2 s", target.response))


def _given(target: Target) -> Target:
    """What is heard has no loss, what follows from it has."""
    end = _CONCLUSION.search(target.response)
    until = end.start() if end else 0
    heard = _HEARD.finditer(target.response, target.response.find("</seg>"), until)
    return replace(target, chooses=False, given=tuple(match.span() for match in heard))


def _window(scene: Scene, rng: Rng, shortest: float, longest: float) -> tuple[float, float]:
    """A random window on a grid of 0.1 s; of a few, the one whose edges lie farthest from any onset."""
    onsets = np.array([event.onset for event in scene.events])
    best, distance = (0.0, scene.clip.duration), -1.0
    for _ in range(4):
        length = round(rng.uniform(shortest, min(longest, scene.clip.duration)), 1)
        start = round(rng.uniform(0.0, scene.clip.duration - length), 1)
        end = round(min(start + length, scene.clip.duration), 1)
        gap = float(min(np.abs(onsets - start).min(), np.abs(onsets - end).min())) if len(onsets) else 1.0
        if gap > distance:
            best, distance = (start, end), gap
    return best
