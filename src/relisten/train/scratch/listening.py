"""Tasks about a scene's sound: answering questions in the three formats, and listening exercises before that."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from relisten.data.choices import seconds_text
from relisten.data.examples import Example
from relisten.data.qualities import level_text, pitch_text
from relisten.data.questions import make_examples
from relisten.data.reasoning import Listening
from relisten.data.scenes import Scene, caption
from relisten.data.subject import as_subject
from relisten.data.timbres import LABELS
from relisten.data.wording import NAMES, REASONS, Rng, in_words, pick
from relisten.protocol import Segment
from relisten.question import Question
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
QUALITY_WEIGHTS: Final[Mapping[str, float]] = {
    "duration": 1.0, "longest_gap": 0.5, "louder": 2.0, "higher": 2.0,
}  # fmt: skip
_OFF: Final = 0.22
"""Largest error of a length that is told, as a logarithm: below half of the smallest ratio of choices, 1.6."""
_LABEL = "|".join(re.escape(label) for label in LABELS)
_HEARD = re.compile(
    rf"(?:,(?: a long gap,)?)? \d+\.\d (?:{_LABEL})|(?<!from)(?<! s) -?\d+ dB| key \d+|, a long gap"
    r"| \d+\.\d seconds"
)
_CONCLUSION = re.compile(r", (?:so|and the) [^,]*</think>")
_TAG = re.compile(r"<seg>([\d.]+), ([\d.]+)</seg>")


def answer(scene: Scene, rng: Rng, count: int) -> list[Target]:
    """Questions with the reasoning that answers them, segments cited; choices worded as people would."""
    return [reworded(example, rng) for example in make_examples(scene, rng, KIND_WEIGHTS, per_scene=count)]


def answer_qualities(scene: Scene, rng: Rng, count: int) -> list[Target]:
    """`answer` about lengths, levels and pitches alone, which few scenes allow to ask about. Every other question
    about a length has no choices, since one of three lengths can be guessed without hearing it."""
    targets = []
    for example in make_examples(scene, rng, QUALITY_WEIGHTS, per_scene=count):
        if example.kind == "duration" and rng.random() < 0.5:
            targets.append(Target(replace(example.question, choices=()), example.response))
        else:
            targets.append(reworded(example, rng))
    return targets


def measure(scene: Scene, rng: Rng, count: int) -> list[Target]:
    """Crops given from outside; of every sound in them its level, pitch or length is told, if it has one."""
    subject = as_subject(scene)
    lengths = {
        event.onset: seconds_text(event.duration)
        for event in scene.events
        if event.sustained and event.offset < scene.clip.duration
    }
    measured: Mapping[str, Mapping[float, str]] = {
        "How loud is every sound?": {event.onset: level_text(event.level) for event in scene.events},
        "How high is every sound?": {event.onset: pitch_text(event.pitch) for event in scene.events if event.pitch},
        "How long is every sound?": lengths,
    }
    questions = [question for question, notes in measured.items() if notes]
    targets = []
    for _ in range(count if questions else 0):
        question = pick(rng, questions)
        segment = Segment(*_window(scene, rng, 1.5, 5.0))
        notes = measured[question]
        if notes is lengths:  # how long a sound goes on behind the crop cannot be heard
            whole = {event.onset for event in scene.events if event.offset <= segment.end}
            notes = {at: note for at, note in lengths.items() if at in whole}
        label = pick(rng, sorted({event.label for event in scene.events}))
        heard = Listening(subject, rng, label, notes=notes)
        heard.listen(segment)
        reason = pick(rng, REASONS["compare"])
        response = f"<think>{reason}{heard.text}"
        targets.append(Target(Question(question), response, chooses=False, ends=False))
    return targets


def answer_given(scene: Scene, rng: Rng, count: int) -> list[Target]:
    """`answer` with segments given from outside: what is in them and what follows is learned, not which to take."""
    return [replace(target, chooses=False) for target in answer(scene, rng, count)]


def answer_in_text(scene: Scene, rng: Rng, count: int) -> list[Target]:
    """`answer` with its segments told in words."""
    return [without_tags(target) for target in answer(scene, rng, count)]


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
    """Crops given from outside, one after the other; what is in them is told, with a running count of one label.

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


def reason(scene: Scene, rng: Rng, count: int) -> list[Target]:
    """Conclusions and running counts from what the response says is heard; that is given, so no sound is needed.

    Cheap, since nothing is inserted and the clip can be short. Understanding what is asked, matching and counting
    are learned here.
    """
    return [concluding(target) for target in answer(scene, rng, count)]


def conclude(scene: Scene, rng: Rng, count: int) -> list[Target]:
    """`reason` for the questions with the hardest conclusions. Lengths are told with a small error, as they are
    heard, so that the nearest choice has to be found."""
    targets = []
    for example in make_examples(scene, rng, CONCLUDE_WEIGHTS, per_scene=count):
        target = reworded(example, rng)
        off = math.exp(rng.uniform(-_OFF, _OFF))
        heard, seconds, rest = target.response.partition(" seconds")
        if example.kind == "duration" and seconds:
            before, _, length = heard.rpartition(" ")
            target = replace(target, response=f"{before} {float(length) * off:.1f}{seconds}{rest}")
        targets.append(concluding(target))
    return targets


# Changes to targets, and to functions that make them


def slowly(make: Callable[[Scene, Rng, int], list[Target]]) -> Callable[[Scene, Rng, int], list[Target]]:
    """Makes the same targets with crops at half speed; times stay those of the clip."""

    def made(scene: Scene, rng: Rng, count: int) -> list[Target]:
        return [replace(target, crop_speed=0.5) for target in make(scene, rng, count)]

    return made


def reworded(example: Example, rng: Rng) -> Target:
    """The question with its choices left out or worded in another way, and the answer to match: a user's "snare
    drum" or "Three" must be answered as it is listed."""
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


def without_tags(target: Target) -> Target:
    """The target with its segments told in words."""
    return replace(target, response=_TAG.sub(r"\1 to \2 s", target.response))


def concluding(target: Target) -> Target:
    """The target without loss on what is heard; what follows from it has loss."""
    end = _CONCLUSION.search(target.response)
    return given(target, end.start() if end else 0)


def given(target: Target, until: int) -> Target:
    """The target without loss on what is heard up to character `until`."""
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
