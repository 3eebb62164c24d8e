"""Questions with exact answers, and the grounded reasoning that leads there, made from a scene's truth.

Every kind is a function of (scene, rng) that returns an `Example`, or None where the scene allows no question
of that kind whose answer is beyond doubt: near ties, onsets closer than 0.12 s where order matters, sounds that
cross the edge of a window. Responses follow the grammar of `relisten.protocol`: a reason to listen, a segment,
then, within the same sentence, what is heard there in order with a running count of what was asked for.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import numpy as np

from relisten.data.reasoning import (
    EDGE,
    WALK,
    WHOLE_CLIP,
    Listening,
    Window,
    apart,
    around,
    tenth,
    walk,
    windows,
)
from relisten.data.scenes import Event, Scene
from relisten.data.timbres import DRUMS, LABELS
from relisten.data.wording import REASONS, Rng, ask, pick, shuffled
from relisten.protocol import Segment
from relisten.question import Question

LOUDER_DB: Final = 6.0
HIGHER_SEMITONES: Final = 3.0
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


@dataclass(frozen=True)
class Example:
    """A question about a scene with its answer set, and a response that reasons to it."""

    question: Question
    response: str
    kind: str


def make_examples(
    scene: Scene,
    rng: Rng,
    kinds: Sequence[str] | Mapping[str, float] | None = None,
    per_scene: int = 4,
) -> tuple[Example, ...]:
    """Up to `per_scene` different questions about one scene.

    Args:
        kinds: kinds to draw from, or their weights; every kind alike by default. A kind the scene does not allow
            is passed over, one that it allows may come again with another window or label.
    """
    weights = dict(kinds) if isinstance(kinds, Mapping) else dict.fromkeys(kinds or KINDS, 1.0)
    names = [name for name, weight in weights.items() if weight > 0]
    share = np.array([weights[name] for name in names]) / sum(weights[name] for name in names)
    found: dict[str, Example] = {}
    for _ in range(3):
        for number in rng.choice(len(names), size=len(names), replace=False, p=share):
            example = KINDS[names[number]](scene, rng) if len(found) < per_scene else None
            if example is not None and example.question.text not in found:
                named = replace(example.question, id=f"{scene.clip.name}-{len(found)}")
                found[example.question.text] = replace(example, question=named)
    return tuple(found.values())


# Kinds


def count_window(scene: Scene, rng: Rng) -> Example | None:
    """How many X start between a and b."""
    options: dict[int, list[tuple[Window, str]]] = {}
    for window in windows(scene, rng):
        present = Counter(event.label for event in scene.between(window.start, window.end))
        for label in sorted({*(event.label for event in scene.events), pick(rng, LABELS)}):
            if present[label] < 10 and not window.cuts(scene, label):
                options.setdefault(present[label], []).append((window, label))
    if not options:
        return None
    number = _weighted(rng, options)
    window, label = pick(rng, options[number])
    heard = Listening(scene, rng, label)
    heard.listen(window.segment)
    text = ask(rng, "count", label, window.times)
    return _counted(scene, rng, "count_window", text, label, number, heard)


def count_all(scene: Scene, rng: Rng) -> Example | None:
    """How many X in the whole clip."""
    options: dict[int, list[str]] = {}
    present = Counter(event.label for event in scene.events)
    for label in sorted({*present, pick(rng, LABELS)}):
        if present[label] < 10:
            options.setdefault(present[label], []).append(label)
    if not options:
        return None
    number = _weighted(rng, options)
    label = pick(rng, options[number])
    heard = Listening(scene, rng, label)
    for segment in walk(scene):
        heard.listen(segment)
    text = ask(rng, "count", label)
    return _counted(scene, rng, "count_all", text, label, number, heard)


def first(scene: Scene, rng: Rng) -> Example | None:
    """Which sound starts first, in a window or in the clip."""
    return _extreme(scene, rng, "first")


def last(scene: Scene, rng: Rng) -> Example | None:
    """Which sound starts last, in a window or in the clip."""
    return _extreme(scene, rng, "last")


def after(scene: Scene, rng: Rng) -> Example | None:
    """Which sound starts right after the only, first or second Y."""
    options = []
    times = Counter(event.label for event in scene.events)
    seen: Counter[str] = Counter()
    for number, event in enumerate(scene.events[:-1]):
        seen[event.label] += 1
        if apart(scene.events[max(0, number - 1) : number + 3]) and seen[event.label] <= 2:
            nth = ("first ", "second ")[seen[event.label] - 1] if times[event.label] > 1 else ""
            options.append((number, nth))
    if not options:
        return None
    number, nth = pick(rng, options)
    event, answer = scene.events[number], scene.events[number + 1]
    nth = nth or ("only " if rng.random() < 0.4 else "")
    heard = Listening(scene, rng, event.label)
    begin = event
    if nth == "second ":
        begin = next(e for e in scene.events if e.label == event.label)
        if answer.onset - begin.onset > 3.5:
            heard.listen(around(scene, rng, begin.onset, begin.onset + 0.2))
            begin = event
    segment = around(scene, rng, begin.onset, answer.onset + 0.2)
    if segment.duration > WHOLE_CLIP:
        return None
    heard.listen(segment)
    text = ask(rng, "after", event.label, nth=nth)
    end = pick(
        rng, ("so the {0} comes right after the {1}", "so after the {1} comes the {0}", "so the {0} is next")
    )
    end = end.format(answer.label, f"{nth if nth != 'only ' else ''}{event.label}")
    return _example(scene, rng, "after", text, answer.label, _labels(scene, rng, answer.label), heard, "order", end)


def exists(scene: Scene, rng: Rng) -> Example | None:
    """Is there an X, in a window or in the clip; yes and no by a coin."""
    wanted = rng.random() < 0.5
    present = {event.label for event in scene.events}
    if rng.random() < 0.4:
        candidates = sorted(present) if wanted else _absent(scene, rng)
        if not candidates:
            return None
        window, label, segments = None, pick(rng, candidates), walk(scene)
    else:
        options = []
        absent = _absent(scene, rng)
        for window in windows(scene, rng):
            inside = {event.label for event in scene.between(*window.times)}
            # Most of what is missing from a window is heard elsewhere in the clip.
            elsewhere = sorted(present - inside)
            pool = sorted(inside) if wanted else elsewhere if elsewhere and rng.random() < 0.8 else absent
            options += [(window, label) for label in pool if not window.cuts(scene, label)]
        if not options:
            return None
        window, label = pick(rng, options)
        segments = [window.segment]
    heard = Listening(scene, rng, label)
    for segment in segments:
        heard.listen(segment)
        if heard.count:
            break
    text = ask(rng, "exists", label, window.times if window else None)
    end = f"so there is a {label}" if wanted else f"so there is no {label}"
    return _example(scene, rng, "exists", text, "yes" if wanted else "no", ("yes", "no"), heard, "exists", end)


def before(scene: Scene, rng: Rng) -> Example | None:
    """Does the first X start before the first Y; yes and no by a coin."""
    pairs = [
        (early, late)
        for early, late in itertools.combinations(_firsts(scene), 2)
        if late.onset - early.onset >= 2 * EDGE
    ]
    if not pairs:
        return None
    early, late = pick(rng, pairs)
    wanted = rng.random() < 0.5
    asked, other = (early, late) if wanted else (late, early)
    heard = Listening(scene, rng)
    heard.listen_both(early, late)
    text = ask(rng, "before", asked.label, other=other.label)
    end = f"so the {early.label} comes before the {late.label}"
    return _example(scene, rng, "before", text, "yes" if wanted else "no", ("yes", "no"), heard, "order", end)


def duration(scene: Scene, rng: Rng) -> Example | None:
    """How long the only or first X lasts, for sounds that hold and then stop."""
    times = Counter(event.label for event in scene.events)
    firsts = _firsts(scene)
    options = [e for e in firsts if e.sustained and e.offset < scene.clip.duration - 0.05]
    if not options:
        return None
    event = pick(rng, options)
    choices = _lengths(rng, event.duration)
    if choices is None:
        return None
    answer = _seconds(event.duration)
    heard = Listening(scene, rng)
    heard.listen(around(scene, rng, event.onset, event.offset))
    nth = "first " if times[event.label] > 1 else ""
    text = ask(rng, "duration", event.label, nth=nth)
    end = f"and the {nth}{event.label} lasts {answer}"
    return _example(scene, rng, "duration", text, answer, choices, heard, "length", end)


def longest_gap(scene: Scene, rng: Rng) -> Example | None:
    """Between which two neighbouring sounds the longest gap lies."""
    pairs = list(itertools.pairwise(scene.events))
    if len(pairs) < 2 or not apart(scene.events):
        return None
    ends = np.maximum.accumulate([event.offset for event in scene.events])
    silences = [late.onset - end for (_, late), end in zip(pairs, ends, strict=False)]
    steps = [late.onset - early.onset for early, late in pairs]
    number = int(np.argmax(silences))
    if silences[number] < 0.4 or not (_leads(silences, number, 1.4) and _leads(steps, number, 1.25)):
        return None
    early, late = pairs[number]
    right = _pair(early.label, late.label)
    others = dict.fromkeys(_pair(one.label, two.label) for one, two in pairs)
    present = sorted({event.label for event in scene.events})
    spare = [_pair(one, two) for one, two in itertools.combinations_with_replacement(present, 2)]
    others |= dict.fromkeys(shuffled(rng, spare))
    wrong = [pair for pair in others if pair != right][:3]
    if len(wrong) < 2:
        return None
    answer = _between(early.label, late.label)
    choices = (answer, *(_between(*shuffled(rng, pair)) for pair in wrong))
    heard = Listening(scene, rng, gap_after=early)
    heard.listen(around(scene, rng, early.onset, late.onset + 0.1))
    text = ask(rng, "longest_gap", early.label)
    end = f"so the longest gap is {answer}"
    return _example(scene, rng, "longest_gap", text, answer, choices, heard, "length", end)


def louder(scene: Scene, rng: Rng) -> Example | None:
    """Which of two sounds is louder: every X above every Y by at least 6 dB, plain and ear-weighted."""
    ranges = {}
    for event in _firsts(scene):
        same = [e for e in scene.events if e.label == event.label]
        plain, weighted = [e.level for e in same], [e.weighted_level for e in same]
        ranges[event.label] = (min(plain), max(plain), min(weighted), max(weighted))
    pairs = [
        (loud, soft)
        for loud, soft in itertools.permutations(_firsts(scene), 2)
        if ranges[loud.label][0] - ranges[soft.label][1] >= LOUDER_DB
        and ranges[loud.label][2] - ranges[soft.label][3] >= LOUDER_DB
        and abs(loud.onset - soft.onset) >= 2 * EDGE
    ]
    if not pairs:
        return None
    loud, soft = pick(rng, pairs)
    heard = Listening(scene, rng, notes={loud.onset: "loud", soft.onset: "soft"})
    heard.listen_both(*sorted((loud, soft), key=lambda event: event.onset))
    one, other = shuffled(rng, [loud.label, soft.label])
    text = ask(rng, "louder", one, other=other)
    end = f"so the {loud.label} is louder"
    return _example(scene, rng, "louder", text, loud.label, (loud.label, soft.label), heard, "compare", end)


def higher(scene: Scene, rng: Rng) -> Example | None:
    """Which of the first two beeps or bells of one label is higher, by at least 3 semitones (bells 7)."""
    options = []
    for label, margin in (("low beep", HIGHER_SEMITONES), ("high beep", HIGHER_SEMITONES), ("bell", 7.0)):
        pair = [event for event in scene.events if event.label == label][:2]
        if len(pair) == 2 and pair[0].pitch and pair[1].pitch:
            interval = 12 * math.log2(pair[1].pitch / pair[0].pitch)
            if abs(interval) >= margin and pair[1].onset - pair[0].onset >= 2 * EDGE:
                options.append((pair[0], pair[1], interval > 0))
    if not options:
        return None
    one, two, rising = pick(rng, options)
    notes = {one.onset: "lower" if rising else "higher", two.onset: "higher" if rising else "lower"}
    heard = Listening(scene, rng, one.label, notes=notes)
    heard.listen_both(one, two)
    answer = "second" if rising else "first"
    text = ask(rng, "higher", one.label)
    end = f"so the {answer} is higher"
    return _example(scene, rng, "higher", text, answer, ("first", "second"), heard, "compare", end)


KINDS: Final[dict[str, Callable[[Scene, Rng], Example | None]]] = {
    "count_window": count_window, "count_all": count_all, "first": first, "last": last, "after": after,
    "exists": exists, "before": before, "duration": duration, "longest_gap": longest_gap, "louder": louder,
    "higher": higher,
}  # fmt: skip


# Examples and choices


def _absent(scene: Scene, rng: Rng) -> list[str]:
    """Labels that the scene lacks, of a kind with one that it has: drums are missed among drums."""
    present = {event.label for event in scene.events}
    drum = pick(rng, scene.events).label in DRUMS
    absent = [label for label in LABELS if label not in present]
    return [label for label in absent if (label in DRUMS) == drum] or absent


def _firsts(scene: Scene) -> list[Event]:
    """The first event of every label, in order."""
    found: dict[str, Event] = {}
    for event in scene.events:
        found.setdefault(event.label, event)
    return list(found.values())


def _example(
    scene: Scene,
    rng: Rng,
    kind: str,
    text: str,
    answer: str,
    choices: Iterable[str],
    heard: Listening,
    reason: str,
    end: str,
) -> Example:
    said = pick(rng, REASONS[reason]).format(one=heard.target)
    response = f"<think>{said}{heard.text}, {end}.</think><answer>{answer}</answer>"
    question = Question(
        text=text,
        choices=tuple(shuffled(rng, choices)),
        audio=scene.clip,
        id=f"{scene.clip.name}-{kind}",
        answer=answer,
        metadata={"kind": kind, "split": scene.split, "scene": scene.index},
    )
    return Example(question, response, kind)


def _counted(scene: Scene, rng: Rng, kind: str, text: str, label: str, number: int, heard: Listening) -> Example:
    times = "1 time" if number == 1 else f"{number} times"
    end = pick(rng, (f"so the {label} sounds {times}", f"so the {label} comes {times}", f"so that makes {number}"))
    others = [n for n in range(len(_COUNT_SHARES)) if n != number]
    shares = np.array([_COUNT_SHARES[n] for n in others])
    wrong = rng.choice(others, size=3, replace=False, p=shares / shares.sum())
    return _example(scene, rng, kind, text, str(number), map(str, (number, *wrong)), heard, "count", end)


def _extreme(scene: Scene, rng: Rng, kind: str) -> Example | None:
    """The first or the last sound, in a window or in the clip."""
    whole = rng.random() < 0.4
    places = [Window(0.0, tenth(scene.clip.duration))] if whole else windows(scene, rng)
    options = []
    for window in places:
        inside = scene.between(window.start, window.end)
        if len(inside) < 2:
            continue
        ends = [event.offset for event in inside]
        early = any(event.onset < window.start < event.offset for event in scene.events)
        clear = apart(inside[:2]) and not early if kind == "first" else apart(inside[-2:]) and ends[-1] == max(ends)
        if clear:
            options.append((window, inside[0] if kind == "first" else inside[-1]))
    if not options:
        return None
    window, event = pick(rng, options)
    heard = Listening(scene, rng)
    if not whole:
        heard.listen(window.segment)
    elif kind == "first":
        heard.listen(Segment(0.0, max(1.0, around(scene, rng, event.onset, event.onset + 0.5).end)))
    else:
        begin = around(scene, rng, event.onset - 0.5, event.onset).start
        heard.listen(Segment(begin, min(window.end, begin + WALK)))
    text = ask(rng, kind, event.label, None if whole else window.times)
    end = pick(rng, (f"so the {kind} is the {event.label}", f"so the {kind} sound is the {event.label}"))
    return _example(scene, rng, kind, text, event.label, _labels(scene, rng, event.label), heard, "order", end)


def _labels(scene: Scene, rng: Rng, answer: str) -> tuple[str, ...]:
    """The answer and two or three other labels, those heard in the scene first."""
    present = sorted({event.label for event in scene.events} - {answer})
    absent = [label for label in LABELS if label not in present and label != answer]
    wrong = [*shuffled(rng, present)[:3], *shuffled(rng, absent)]
    return (answer, *wrong[: int(rng.integers(2, 4))])


def _lengths(rng: Rng, length: float) -> tuple[str, ...] | None:
    """The length and two others, each at least 1.6 apart as a factor.

    Which of the three is right follows from the length itself, so that no choice is out of the question; None
    for lengths that would be far too short or long, and for some of those that come too often.
    """
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


def _pair(one: str, two: str) -> tuple[str, str]:
    """Two labels whatever their order."""
    return (one, two) if one <= two else (two, one)


def _between(one: str, two: str) -> str:
    return f"between two {one}s" if one == two else f"between the {one} and the {two}"


def _seconds(length: float) -> str:
    return f"{round(length, 1):.1f} seconds"


def _leads(values: Sequence[float], number: int, ratio: float) -> bool:
    return all(values[number] >= ratio * value for i, value in enumerate(values) if i != number)


def _weighted(rng: Rng, options: Mapping[int, T]) -> int:
    numbers = sorted(options)
    weights = np.array([_COUNT_WEIGHTS[number] for number in numbers])
    return int(rng.choice(numbers, p=weights / weights.sum()))
