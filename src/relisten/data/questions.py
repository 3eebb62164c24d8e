"""Questions with exact answers, and the grounded reasoning that leads there, made from a scene's truth.

Every kind is a function of (scene, rng) that returns an `Example`, or None where the scene allows no question
of that kind whose answer is beyond doubt: near ties, onsets closer than 0.12 s where order matters, sounds that
cross the edge of a window. Responses follow the grammar of `relisten.protocol`: a reason to listen, a segment,
then, within the same sentence, what is heard there in order with a running count of what was asked for.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np

from relisten.data.scenes import Event, Scene
from relisten.data.timbres import LABELS
from relisten.data.wording import HITS, LEADS, NAMES, NEXT, QUESTIONS, REASONS, SPANS, WHOLE
from relisten.protocol import Segment
from relisten.question import Question

EDGE: Final = 0.12
"""Smallest distance in seconds between a window's edge and an onset, and between two onsets put in order."""
LOUDER_DB: Final = 6.0
HIGHER_SEMITONES: Final = 3.0
LENGTH_RATIO: Final = 1.6
_LISTEN: Final = 5.0
"""Longest segment of a response that walks through a whole clip."""
_WHOLE: Final = 6.0
_COUNT_WEIGHTS: Final = (0.3, 0.35, 0.7, 1.2, 2.2, 4.0, 1.5, 0.6, 0.3, 0.2)


@dataclass(frozen=True)
class Example:
    """A question about a scene with its answer set, and a response that reasons to it."""

    question: Question
    response: str
    kind: str


Rng = np.random.Generator
T = TypeVar("T")


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
            if len(found) == per_scene:
                return tuple(found.values())
            example = KINDS[names[number]](scene, rng)
            if example is not None:
                found.setdefault(example.question.text, example)
    return tuple(found.values())


# Kinds


def count_window(scene: Scene, rng: Rng) -> Example | None:
    """How many X start between a and b."""
    options: dict[int, list[tuple[Window, str]]] = {}
    for window in _windows(scene, rng):
        present = Counter(event.label for event in scene.between(window.start, window.end))
        for label in sorted({*(event.label for event in scene.events), _pick(rng, LABELS)}):
            if present[label] < 10 and not window.cuts(scene, label):
                options.setdefault(present[label], []).append((window, label))
    if not options:
        return None
    number = _weighted(rng, options)
    window, label = _pick(rng, options[number])
    heard = _Listening(scene, rng, label)
    heard.listen(window.segment)
    text = _ask(rng, "count", label, window, hits=True)
    return _counted(scene, rng, "count_window", text, label, number, heard)


def count_all(scene: Scene, rng: Rng) -> Example | None:
    """How many X in the whole clip."""
    options: dict[int, list[str]] = {}
    present = Counter(event.label for event in scene.events)
    for label in sorted({*present, _pick(rng, LABELS)}):
        if present[label] < 10:
            options.setdefault(present[label], []).append(label)
    if not options:
        return None
    number = _weighted(rng, options)
    label = _pick(rng, options[number])
    heard = _Listening(scene, rng, label)
    for segment in _walk(scene):
        heard.listen(segment)
    text = _ask(rng, "count", label, hits=True)
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
        around = scene.events[max(0, number - 1) : number + 3]
        if _apart(around) and seen[event.label] <= 2:
            nth = ("first ", "second ")[seen[event.label] - 1] if times[event.label] > 1 else ""
            options.append((number, nth))
    if not options:
        return None
    number, nth = _pick(rng, options)
    event, answer = scene.events[number], scene.events[number + 1]
    nth = nth or ("only " if rng.random() < 0.4 else "")
    heard = _Listening(scene, rng, event.label)
    begin = event
    if nth == "second ":
        begin = next(e for e in scene.events if e.label == event.label)
        if answer.onset - begin.onset > 3.5:
            heard.listen(_around(scene, rng, begin.onset, begin.onset + 0.2))
            begin = event
    segment = _around(scene, rng, begin.onset, answer.onset + 0.2)
    if segment.duration > _WHOLE:
        return None
    heard.listen(segment)
    text = _ask(rng, "after", event.label, nth=nth)
    end = _pick(
        rng, ("so the {0} comes right after the {1}", "so after the {1} comes the {0}", "so the {0} is next")
    )
    end = end.format(answer.label, f"{nth if nth != 'only ' else ''}{event.label}")
    return _example(
        scene, rng, "after", text, answer.label, _labels(scene, rng, answer.label), heard, "order", end
    )


def exists(scene: Scene, rng: Rng) -> Example | None:
    """Is there an X, in a window or in the clip; yes and no by a coin."""
    wanted = rng.random() < 0.5
    present = {event.label for event in scene.events}
    if rng.random() < 0.4:
        candidates = sorted(present if wanted else set(LABELS) - present)
        if not candidates:
            return None
        window, label, segments = None, _pick(rng, candidates), _walk(scene)
    else:
        options = []
        elsewhere = not wanted and rng.random() < 0.7
        for window in _windows(scene, rng):
            inside = {event.label for event in scene.between(window.start, window.end)}
            pool = inside if wanted else (present - inside if elsewhere else set(LABELS) - present)
            options += [(window, label) for label in sorted(pool) if not window.cuts(scene, label)]
        if not options:
            return None
        window, label = _pick(rng, options)
        segments = [window.segment]
    heard = _Listening(scene, rng, label)
    for segment in segments:
        heard.listen(segment)
        if heard.count:
            break
    text = _ask(rng, "exists", label, window)
    end = f"so there is a {label}" if wanted else f"so there is no {label}"
    return _example(
        scene, rng, "exists", text, "yes" if wanted else "no", ("yes", "no"), heard, "exists", end
    )


def before(scene: Scene, rng: Rng) -> Example | None:
    """Does the first X start before the first Y; yes and no by a coin."""
    firsts: dict[str, Event] = {}
    for event in scene.events:
        firsts.setdefault(event.label, event)
    pairs = [
        (early, late)
        for early in firsts.values()
        for late in firsts.values()
        if late.onset - early.onset >= 2 * EDGE
    ]
    if not pairs:
        return None
    early, late = _pick(rng, pairs)
    wanted = rng.random() < 0.5
    asked, other = (early, late) if wanted else (late, early)
    heard = _Listening(scene, rng)
    heard.listen_both(early, late)
    text = _ask(rng, "before", asked.label, other=other.label)
    end = f"so the {early.label} comes before the {late.label}"
    return _example(scene, rng, "before", text, "yes" if wanted else "no", ("yes", "no"), heard, "order", end)


def duration(scene: Scene, rng: Rng) -> Example | None:
    """How long the only X lasts, for sounds that hold and then stop."""
    times = Counter(event.label for event in scene.events)
    options = [
        event
        for event in scene.events
        if event.sustained and times[event.label] == 1 and event.offset < scene.clip.duration - 0.05
    ]
    if not options:
        return None
    event = _pick(rng, options)
    choices = _lengths(rng, event.duration)
    if choices is None:
        return None
    answer = _seconds(event.duration)
    heard = _Listening(scene, rng)
    heard.listen(_around(scene, rng, event.onset, event.offset))
    text = _ask(rng, "duration", event.label)
    end = f"and the {event.label} lasts {answer}"
    return _example(scene, rng, "duration", text, answer, choices, heard, "length", end)


def longest_gap(scene: Scene, rng: Rng) -> Example | None:
    """Between which two neighbouring sounds the longest gap lies."""
    pairs = list(zip(scene.events, scene.events[1:], strict=False))
    if len(pairs) < 2 or not _apart(scene.events):
        return None
    ends = np.maximum.accumulate([event.offset for event in scene.events])
    silences = [late.onset - end for (_, late), end in zip(pairs, ends, strict=False)]
    steps = [late.onset - early.onset for early, late in pairs]
    number = int(np.argmax(silences))
    if silences[number] < 0.4 or not (_leads(silences, number, 1.4) and _leads(steps, number, 1.25)):
        return None
    names = [frozenset((early.label, late.label)) for early, late in pairs]
    if len(names[number]) < 2 or names.count(names[number]) > 1:
        return None
    early, late = pairs[number]
    answer = f"between the {early.label} and the {late.label}"
    others = list(dict.fromkeys(name for name in names if len(name) == 2 and name != names[number]))
    present = sorted({event.label for event in scene.events})
    spare = [frozenset((a, b)) for a in present for b in present if a < b]
    others += [name for name in _shuffled(rng, spare) if name not in others and name != names[number]]
    if len(others) < 2:
        return None
    wrong = tuple("between the {} and the {}".format(*_shuffled(rng, sorted(name))) for name in others[:3])
    heard = _Listening(scene, rng, gap_after=early)
    heard.listen(_around(scene, rng, early.onset, late.onset + 0.1))
    text = _ask(rng, "longest_gap", early.label)
    end = f"so the longest gap is {answer}"
    return _example(scene, rng, "longest_gap", text, answer, (answer, *wrong), heard, "length", end)


def louder(scene: Scene, rng: Rng) -> Example | None:
    """Which of two sounds that come once each is louder, by at least 6 dB by two measures of loudness."""
    times = Counter(event.label for event in scene.events)
    single = [event for event in scene.events if times[event.label] == 1]
    pairs = [
        (loud, soft)
        for loud in single
        for soft in single
        if loud.level - soft.level >= LOUDER_DB
        and loud.weighted_level - soft.weighted_level >= LOUDER_DB
        and abs(loud.onset - soft.onset) >= 2 * EDGE
    ]
    if not pairs:
        return None
    loud, soft = _pick(rng, pairs)
    heard = _Listening(scene, rng, notes={loud.onset: "loud", soft.onset: "soft"})
    heard.listen_both(*sorted((loud, soft), key=lambda event: event.onset))
    one, other = _shuffled(rng, [loud.label, soft.label])
    text = _ask(rng, "louder", one, other=other)
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
    one, two, rising = _pick(rng, options)
    notes = {one.onset: "lower" if rising else "higher", two.onset: "higher" if rising else "lower"}
    heard = _Listening(scene, rng, one.label, notes=notes)
    heard.listen_both(one, two)
    answer = "second" if rising else "first"
    text = _ask(rng, "higher", one.label)
    end = f"so the {answer} is higher"
    return _example(scene, rng, "higher", text, answer, ("first", "second"), heard, "compare", end)


KINDS: Final[dict[str, Callable[[Scene, Rng], Example | None]]] = {
    "count_window": count_window, "count_all": count_all, "first": first, "last": last, "after": after,
    "exists": exists, "before": before, "duration": duration, "longest_gap": longest_gap, "louder": louder,
    "higher": higher,
}  # fmt: skip


# Windows and segments


@dataclass(frozen=True)
class Window:
    """A stretch of the clip that a question names."""

    start: float
    end: float

    @property
    def segment(self) -> Segment:
        return Segment(self.start, self.end)

    def cuts(self, scene: Scene, label: str | None = None) -> bool:
        """Does a sound (of this label, or any that holds its level) lie across an edge?"""
        return any(
            event.onset < edge < event.offset
            for event in scene.events
            if (event.sustained if label is None else event.label == label)
            for edge in (self.start, self.end)
        )


def _windows(scene: Scene, rng: Rng, tries: int = 24) -> list[Window]:
    """Random windows of 1.5 to 5 s on a grid of 0.5 or 0.1 s, whose edges leave every onset in peace."""
    windows = []
    onsets = np.array([event.onset for event in scene.events])
    for _ in range(tries):
        grid = 0.5 if rng.random() < 0.6 else 0.1
        length = min(rng.uniform(1.5, 5.0), scene.clip.duration - 0.1)
        steps = int((scene.clip.duration - length) / grid + 1e-6)
        start = round(int(rng.integers(0, steps + 1)) * grid, 1)
        end = round(start + max(1.5, round(length / grid) * grid), 1)
        window = Window(start, end)
        if end > scene.clip.duration or end - start > 5.01:
            continue
        if min(np.abs(onsets - start).min(), np.abs(onsets - end).min()) >= EDGE and not window.cuts(scene):
            windows.append(window)
    return windows


def _around(scene: Scene, rng: Rng, low: float, high: float) -> Segment:
    """A segment on a half-second grid with a random margin around [low, high], edges off every onset if it can."""
    best, distance = Segment(0.0, scene.clip.duration), -1.0
    for _ in range(6):
        start = math.floor((low - rng.uniform(0.15, 0.7)) * 2) / 2
        end = math.ceil((high + rng.uniform(0.15, 0.7)) * 2) / 2
        segment = Segment(max(0.0, start), min(end, _tenth(scene.clip.duration)))
        gap = min(abs(event.onset - edge) for event in scene.events for edge in (segment.start, segment.end))
        if gap > distance:
            best, distance = segment, gap
        if distance >= EDGE:
            break
    return best


def _walk(scene: Scene) -> list[Segment]:
    """Successive segments that cover the clip: one if it is short, else of 3.5 to 5 s, cut between sounds."""
    total = _tenth(scene.clip.duration)
    segments, start = [], 0.0
    while total - start > _WHOLE:
        cuts = [
            round(start + step / 2, 1)
            for step in range(7, int(2 * _LISTEN) + 1)
            if start + step / 2 < total - 0.5
        ]
        cut = max(cuts, key=lambda t: (min(EDGE, min(abs(event.onset - t) for event in scene.events)), t))
        segments.append(Segment(start, cut))
        start = cut
    return [*segments, Segment(start, total)]


def _tenth(seconds: float) -> float:
    """The clip's length cut down to 0.1 s."""
    return math.floor(seconds * 10 + 1e-6) / 10


# Responses


@dataclass
class _Listening:
    """The middle of a response while it grows: segments and what is heard in each."""

    scene: Scene
    rng: Rng
    target: str | None = None
    gap_after: Event | None = None
    notes: Mapping[float, str] = field(default_factory=dict)
    """Words behind single events, by onset."""
    count: int = 0
    text: str = ""

    def listen(self, segment: Segment) -> None:
        words = []
        for event in self.scene.between(segment.start, segment.end):
            word = event.label
            if word == self.target:
                self.count += 1
                word = f"{word} {self.count}"
            if event.onset in self.notes:
                word = f"{word} {self.notes[event.onset]}"
            if event is self.gap_after:
                word = f"{word}, a long gap"
            words.append(word)
        link = f", {_pick(self.rng, NEXT)} " if self.text else " "
        self.text += f"{link}{segment.text()} {_pick(self.rng, LEADS)} {', '.join(words) or 'nothing'}"

    def listen_both(self, early: Event, late: Event) -> None:
        """One segment for both events where they are near, else one for each."""
        if late.onset - early.onset <= 3.0:
            self.listen(_around(self.scene, self.rng, early.onset, late.onset + 0.3))
        else:
            one = _around(self.scene, self.rng, early.onset, early.onset + 0.3)
            two = _around(self.scene, self.rng, late.onset, late.onset + 0.3)
            self.listen(one)
            self.listen(two)


def _example(
    scene: Scene,
    rng: Rng,
    kind: str,
    text: str,
    answer: str,
    choices: Iterable[str],
    heard: _Listening,
    reason: str,
    end: str,
) -> Example:
    said = _pick(rng, REASONS[reason]).format(one=heard.target)
    response = f"<think>{said}{heard.text}, {end}.</think><answer>{answer}</answer>"
    question = Question(
        text=text,
        choices=tuple(_shuffled(rng, choices)),
        audio=scene.clip,
        id=f"{scene.clip.name}-{kind}",
        answer=answer,
        metadata={"kind": kind, "split": scene.split, "scene": scene.index},
    )
    return Example(question, response, kind)


def _counted(
    scene: Scene, rng: Rng, kind: str, text: str, label: str, number: int, heard: _Listening
) -> Example:
    times = "1 time" if number == 1 else f"{number} times"
    end = _pick(
        rng, (f"so the {label} sounds {times}", f"so the {label} comes {times}", f"so that makes {number}")
    )
    near = [n for n in (number - 1, number + 1) if 0 <= n <= 9]
    wrong = {_pick(rng, near)}
    others = [n for n in range(max(7, number + 2)) if n < 10 and n != number and n not in wrong]
    wrong |= set(_shuffled(rng, others)[:2])
    return _example(
        scene, rng, kind, text, str(number), map(str, sorted({number, *wrong})), heard, "count", end
    )


def _extreme(scene: Scene, rng: Rng, kind: str) -> Example | None:
    """The first or the last sound, in a window or in the clip."""
    whole = rng.random() < 0.4
    windows = [Window(0.0, _tenth(scene.clip.duration))] if whole else _windows(scene, rng)
    options = []
    for window in windows:
        inside = scene.between(window.start, window.end)
        if len(inside) < 2:
            continue
        ends = [event.offset for event in inside]
        early = any(event.onset < window.start < event.offset for event in scene.events)
        clear = (
            _apart(inside[:2]) and not early
            if kind == "first"
            else _apart(inside[-2:]) and ends[-1] == max(ends)
        )
        if clear:
            options.append((window, inside[0] if kind == "first" else inside[-1]))
    if not options:
        return None
    window, event = _pick(rng, options)
    heard = _Listening(scene, rng)
    if not whole:
        heard.listen(window.segment)
    elif kind == "first":
        heard.listen(Segment(0.0, max(1.0, _around(scene, rng, event.onset, event.onset + 0.5).end)))
    else:
        heard.listen(Segment(_around(scene, rng, event.onset - 0.5, event.onset).start, window.end))
    text = _ask(rng, kind, event.label, None if whole else window)
    end = _pick(rng, (f"so the {kind} is the {event.label}", f"so the {kind} sound is the {event.label}"))
    return _example(
        scene, rng, kind, text, event.label, _labels(scene, rng, event.label), heard, "order", end
    )


# Choices and words


def _labels(scene: Scene, rng: Rng, answer: str) -> tuple[str, ...]:
    """The answer and two or three other labels, those heard in the scene first."""
    present = sorted({event.label for event in scene.events} - {answer})
    absent = [label for label in LABELS if label not in present and label != answer]
    wrong = [*_shuffled(rng, present)[:3], *_shuffled(rng, absent)]
    return (answer, *wrong[: int(rng.integers(2, 4))])


def _lengths(rng: Rng, length: float) -> tuple[str, ...] | None:
    """The length and two others, each at least 1.6 apart as a factor; the right one anywhere in their order."""
    for place in rng.permutation(3):
        ratio = rng.uniform(1.7, 2.3)
        ladder = [round(length * ratio ** (step - float(place)), 1) for step in range(3)]
        ladder[int(place)] = round(length, 1)
        wrong = [value for step, value in enumerate(ladder) if step != place]
        apart = all(late >= LENGTH_RATIO * early for early, late in zip(ladder, ladder[1:], strict=False))
        if ladder[0] >= 0.1 and apart and all(max(w / length, length / w) >= LENGTH_RATIO for w in wrong):
            return tuple(f"{value:.1f} seconds" for value in ladder)
    return None


def _seconds(length: float) -> str:
    return f"{round(length, 1):.1f} seconds"


def _ask(
    rng: Rng,
    kind: str,
    label: str,
    window: Window | None = None,
    *,
    other: str = "",
    nth: str = "",
    hits: bool = False,
) -> str:
    one, many = _name(rng, label, hits)
    if window is None:
        span = _pick(rng, WHOLE)
    else:
        whole = rng.random() < 0.6
        a, b = (f"{t:.0f}" if whole and t == round(t) else f"{t:.1f}" for t in (window.start, window.end))
        span = _pick(rng, SPANS).format(a=a, b=b)
    text = _pick(rng, QUESTIONS[kind]).format(
        one=one,
        many=many,
        span=span,
        Span=span[0].upper() + span[1:],
        nth=nth,
        other=_name(rng, other, False)[0],
    )
    chance = rng.random()
    if chance < 0.12:
        text = text.lower()
    elif chance < 0.15:
        text = text.upper()
    return text.rstrip("?.") if rng.random() < 0.12 else text


def _name(rng: Rng, label: str, hits: bool) -> tuple[str, str]:
    if not label:
        return "", ""
    if hits and label in HITS and rng.random() < 0.25:
        return HITS[label], f"{HITS[label]}s"
    return _pick(rng, NAMES[label])


def _apart(events: Sequence[Event]) -> bool:
    return all(late.onset - early.onset >= EDGE for early, late in zip(events, events[1:], strict=False))


def _leads(values: Sequence[float], number: int, ratio: float) -> bool:
    return all(values[number] >= ratio * value for i, value in enumerate(values) if i != number)


def _weighted(rng: Rng, options: Mapping[int, T]) -> int:
    numbers = sorted(options)
    weights = np.array([_COUNT_WEIGHTS[number] for number in numbers])
    return int(rng.choice(numbers, p=weights / weights.sum()))


def _pick(rng: Rng, items: Sequence[T]) -> T:
    return items[int(rng.integers(len(items)))]


def _shuffled(rng: Rng, items: Iterable[T]) -> list[T]:
    found = list(items)
    return [found[i] for i in rng.permutation(len(found))]
