"""What every kind of question ends with: choices, and the example made of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

import numpy as np

from relisten.data.examples import Example
from relisten.data.manifest import LabelledEvent
from relisten.data.reasoning import Listening
from relisten.data.subject import Subject
from relisten.data.wording import Rng, pick, shuffled
from relisten.question import Question

LENGTH_RATIO: Final = 1.6
_COUNT_WEIGHTS: Final = (0.3, 0.4, 0.7, 1.2, 2.6, 5.0, 1.5, 0.5, 0.3, 0.2)
"""How readily a number is chosen where a scene offers several: the rare ones more, up to 5."""
_COUNT_SHARES: Final = (0.15, 0.14, 0.19, 0.17, 0.14, 0.12, 0.06, 0.018, 0.008, 0.004)
"""About how often each number is the answer. Wrong choices come as often, so that none gives itself away."""
_LENGTH_STEPS: Final = (0.28, 0.5, 0.92, 1.9)
"""Lengths in seconds up to which the right one is the shortest, the middle and the longest choice."""
_LENGTH_SHARES: Final = (0.45, 0.7, 1.0)
"""How readily a question about a shortest, middle or longest one is asked: the rare long sounds always."""

T = TypeVar("T")


def example_of(
    subject: Subject,
    rng: Rng,
    kind: str,
    text: str,
    answer: str,
    choices: Iterable[str],
    heard: Listening,
    reason: str,
    end: str,
) -> Example:
    """The question with its choices in random order, and the response: what was heard, and what follows from it."""
    response = f"<think>{heard.concluded(reason, end)}</think><answer>{answer}</answer>"
    question = Question(
        text=text,
        choices=tuple(shuffled(rng, choices)),
        audio=subject.audio,
        id=f"{subject.name}-{kind}",
        answer=answer,
        metadata={"kind": kind, **subject.metadata},
        findings=tuple(told.line for told in subject.told),
    )
    return Example(question, response, kind, heard.difficulty())


def counted(subject: Subject, rng: Rng, kind: str, text: str, label: str, number: int, heard: Listening) -> Example:
    """An example whose answer is `number`, among three other numbers that come as often as it does."""
    times = "1 time" if number == 1 else f"{number} times"
    said = subject.say(label)
    end = pick(rng, (f"so the {said} sounds {times}", f"so the {said} comes {times}", f"so that makes {number}"))
    return example_of(subject, rng, kind, text, str(number), number_choices(rng, number), heard, "count", end)


def number_choices(rng: Rng, number: int, least: int = 0) -> list[str]:
    """The number and three others that come about as often, none below `least`."""
    others = [n for n in range(least, len(_COUNT_SHARES)) if n != number]
    shares = np.array([_COUNT_SHARES[n] for n in others])
    wrong = rng.choice(others, size=3, replace=False, p=shares / shares.sum())
    return [str(n) for n in (number, *wrong)]


def pick_number(rng: Rng, options: Mapping[int, T]) -> int:
    """One of the numbers 0 to 9 that there are options for, the rare ones more readily."""
    numbers = sorted(options)
    weights = np.array([_COUNT_WEIGHTS[number] for number in numbers])
    return int(rng.choice(numbers, p=weights / weights.sum()))


def labels_of(subject: Subject, rng: Rng, answer: str) -> tuple[str, ...]:
    """The answer and two or three other labels, those heard in the scene first."""
    others = {event.label for event in subject.events} - {answer}
    present = sorted(label for label in others if not subject.alike(label, answer))
    absent = [label for label in subject.strays if label not in others and label != answer]
    wrong = [*shuffled(rng, present)[:3], *shuffled(rng, absent)]
    return (answer, *wrong[: int(rng.integers(2, 4))])


def firsts_of(subject: Subject) -> list[LabelledEvent]:
    """The first event of every label, in order."""
    found: dict[str, LabelledEvent] = {}
    for event in subject.events:
        found.setdefault(event.label, event)
    return list(found.values())


def lengths(rng: Rng, length: float, margin: float = 0.0) -> tuple[str, ...] | None:
    """The length and two others, each at least 1.6 apart as a factor.

    Which of the three is right follows from the length itself, so that no choice is out of the question; None
    for lengths that would be far too short or long, and for some of those that come too often. Lengths between
    labelled times (`margin` above 0) are of any size and must be clear of the others by what both ends may be off.
    """
    if margin:
        return _labelled_lengths(rng, length, margin)
    place = int(np.searchsorted(_LENGTH_STEPS, length, side="right")) - 1
    if not 0 <= place <= 2 or rng.random() > _LENGTH_SHARES[place]:
        return None
    ratio = rng.uniform(1.75, 2.1)
    ladder = [round(length * ratio ** (step - place), 1) for step in range(3)]
    wrong = [value for step, value in enumerate(ladder) if step != place]
    far = all(late >= LENGTH_RATIO * early for early, late in itertools.pairwise(ladder))
    if not far or any(max(w / length, length / w) < LENGTH_RATIO for w in wrong):
        return None
    return tuple(f"{value:.1f} seconds" for value in ladder)


def _labelled_lengths(rng: Rng, length: float, margin: float) -> tuple[str, ...] | None:
    place = int(rng.integers(3))
    ratio = rng.uniform(1.75, 2.1)
    ladder = [round(length * ratio ** (step - place), 1) for step in range(3)]
    close = min(late - early for early, late in itertools.pairwise(ladder))
    apart = all(late >= LENGTH_RATIO * early for early, late in itertools.pairwise(ladder))
    if ladder[0] < 0.2 or not apart or close < 4 * margin:
        return None
    return tuple(f"{value:.1f} seconds" for value in ladder)


def seconds_text(length: float) -> str:
    """A length as a choice: "1.2 seconds"."""
    return f"{round(length, 1):.1f} seconds"
