"""Questions with exact answers, and the grounded reasoning that leads there, made from what is known of a clip.

Every kind is a function of (scene, rng) that returns an `Example`, or None where the scene allows no question
of that kind whose answer is beyond doubt: near ties, onsets closer than 0.12 s where order matters (or closer than
the labels are exact), sounds that cross the edge of a window, labels that may mean one another's sound. Responses
follow the grammar of `relisten.protocol`: a reason to listen, a segment, then, within the same sentence, what is
heard there in order with a running count of what was asked for.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from relisten.data.choices import counted, example_of, firsts_of, labels_of, lengths, pick_number, seconds_text
from relisten.data.examples import Example
from relisten.data.narration import listening
from relisten.data.reasoning import WALK, WHOLE_CLIP, Window, around, tenth, walk, windows
from relisten.data.scenes import Scene
from relisten.data.subject import Style, Subject, as_subject
from relisten.data.timbres import DRUMS
from relisten.data.told import Told, choose_told, quoted, semitones
from relisten.data.wording import Rng, ask, pick, shuffled
from relisten.protocol import MAX_LISTENS, Segment

LOUDER_DB: Final = 6.0
HIGHER_SEMITONES: Final = 3.0
AT_ONCE: Final = 10.0
"""Clips up to this length, in seconds, are listened to in one piece where the whole has to be compared."""
A4: Final = 440.0
_LEVEL_STEP: Final = 3
"""Levels are told in steps of so many dB, half of what makes a sound the louder one."""

Kind = Callable[[Subject, Rng], Example | None]
"""Makes one example, or None where the subject allows none that is beyond doubt."""


def make_examples(
    scene: Scene | Subject,
    rng: Rng,
    kinds: Sequence[str] | Mapping[str, float] | None = None,
    per_scene: int = 4,
    told: Sequence[Told] = (),
) -> tuple[Example, ...]:
    """Up to `per_scene` different questions about one scene.

    Args:
        kinds: kinds to draw from, or their weights; every kind alike by default. A kind the scene does not allow
            is passed over, one that it allows may come again with another window or label.
        told: what tools say about the scene; every question gets some of it to read.
    """
    subject = as_subject(scene)
    weights = dict(kinds) if isinstance(kinds, Mapping) else dict.fromkeys(kinds or KINDS, 1.0)
    names = [name for name, weight in weights.items() if weight > 0]
    share = np.array([weights[name] for name in names]) / sum(weights[name] for name in names)
    found: dict[str, Example] = {}
    for _ in range(3):
        for number in rng.choice(len(names), size=len(names), replace=False, p=share):
            if len(found) == per_scene:
                break
            kind = names[number]
            given = replace(subject, told=choose_told(rng, kind, told)) if told else subject
            example = KINDS[kind](given, rng)
            if example is not None and example.question.text not in found:
                named = replace(example.question, id=f"{subject.name}-{len(found)}")
                found[example.question.text] = replace(example, question=named)
    return tuple(found.values())


# Kinds


def count_window(scene: Subject, rng: Rng) -> Example | None:
    """How many X start between a and b."""
    options: dict[int, list[tuple[Window, str]]] = {}
    for window in windows(scene, rng):
        present = Counter(event.label for event in scene.between(window.start, window.end))
        for label in _candidates(scene, rng):
            if present[label] < 10 and scene.countable(label) and not window.cuts(scene, label):
                options.setdefault(present[label], []).append((window, label))
    if not options:
        return None
    number = pick_number(rng, options)
    window, label = pick(rng, options[number])
    heard = listening(scene, rng, label)
    heard.listen(window.segment)
    text = ask(rng, "count", label, window.times)
    return counted(scene, rng, "count_window", text, label, number, heard)


def count_all(scene: Subject, rng: Rng) -> Example | None:
    """How many X in the whole clip."""
    options: dict[int, list[str]] = {}
    present = Counter(event.label for event in scene.events)
    for label in _candidates(scene, rng):
        if present[label] < 10 and scene.countable(label):
            options.setdefault(present[label], []).append(label)
    if not options:
        return None
    number = pick_number(rng, options)
    label = pick(rng, options[number])
    heard = listening(scene, rng, label)
    segments = walk(scene)
    if len(segments) > MAX_LISTENS:
        return None
    for segment in segments:
        heard.listen(segment)
    text = ask(rng, "count", label)
    return counted(scene, rng, "count_all", text, label, number, heard)


def first(scene: Subject, rng: Rng) -> Example | None:
    """Which sound starts first, in a window or in the clip."""
    return _extreme(scene, rng, "first")


def last(scene: Subject, rng: Rng) -> Example | None:
    """Which sound starts last, in a window or in the clip."""
    return _extreme(scene, rng, "last")


def after(scene: Subject, rng: Rng) -> Example | None:
    """Which sound starts right after the only, first or second Y."""
    options = []
    times = Counter(event.label for event in scene.events)
    seen: Counter[str] = Counter()
    for number, event in enumerate(scene.events[:-1]):
        seen[event.label] += 1
        if seen[event.label] <= 2 and _follows(scene, number):
            nth = ("first ", "second ")[seen[event.label] - 1] if times[event.label] > 1 else ""
            options.append((number, nth))
    if not options:
        return None
    number, nth = pick(rng, options)
    event, answer = scene.events[number], scene.events[number + 1]
    nth = nth or ("only " if rng.random() < 0.4 else "")
    heard = listening(scene, rng, event.label)
    if scene.style is Style.SHORT:
        if not heard.seek(event, answer):
            return None
    else:
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
    end = end.format(scene.say(answer.label), f"{nth if nth != 'only ' else ''}{scene.say(event.label)}")
    return example_of(
        scene, rng, "after", text, answer.label, labels_of(scene, rng, answer.label), heard, "order", end
    )


def exists(scene: Subject, rng: Rng) -> Example | None:
    """Is there an X, in a window or in the clip; yes and no by a coin."""
    wanted = rng.random() < 0.5
    present = {event.label for event in scene.events}
    if rng.random() < 0.4:
        candidates = sorted(present) if wanted else _absent(scene, rng)
        if not candidates:
            return None
        window, label, segments = None, pick(rng, candidates), walk(scene)
        if len(segments) > MAX_LISTENS:
            return None
    else:
        options = []
        absent = _absent(scene, rng)
        for window in windows(scene, rng):
            inside = {event.label for event in scene.between(*window.times)}
            # Most of what is missing from a window is heard elsewhere in the clip.
            elsewhere = sorted(present - inside)
            pool = sorted(inside) if wanted else elsewhere if elsewhere and rng.random() < 0.8 else absent
            pool = [label for label in pool if wanted or scene.clear(label)]
            options += [(window, label) for label in pool if not window.cuts(scene, label)]
        if not options:
            return None
        window, label = pick(rng, options)
        segments = [window.segment]
    heard = listening(scene, rng, label)
    for segment in segments:
        starting = scene.between(segment.start, segment.end)
        heard.listen(segment, until=next((event for event in starting if event.label == label), None))
        if heard.count:
            break
    text = ask(rng, "exists", label, window.times if window else None)
    end = f"so there is {'a' if wanted else 'no'} {scene.say(label)}{' sound' if scene.quoted else ''}"
    return example_of(scene, rng, "exists", text, "yes" if wanted else "no", ("yes", "no"), heard, "exists", end)


def before(scene: Subject, rng: Rng) -> Example | None:
    """Does the first X start before the first Y; yes and no by a coin."""
    pairs = [
        (early, late)
        for early, late in itertools.combinations(firsts_of(scene), 2)
        if late.onset - early.onset >= 2 * scene.gap and not scene.alike(early.label, late.label)
    ]
    if not pairs:
        return None
    early, late = pick(rng, pairs)
    wanted = rng.random() < 0.5
    asked, other = (early, late) if wanted else (late, early)
    if scene.style is Style.SHORT:
        heard = listening(scene, rng, asked.label, other=other.label)
        if not heard.seek(early):
            return None
    else:
        heard = listening(scene, rng)
        heard.seek(early, late)
    text = ask(rng, "before", asked.label, other=other.label)
    end = f"so the {scene.say(early.label)} comes before the {scene.say(late.label)}"
    return example_of(scene, rng, "before", text, "yes" if wanted else "no", ("yes", "no"), heard, "order", end)


def duration(scene: Subject, rng: Rng) -> Example | None:
    """How long the only or first X lasts, for sounds that hold and then stop."""
    times = Counter(event.label for event in scene.events)
    firsts = firsts_of(scene)
    options = [
        e
        for e in firsts
        if e.sustained and scene.margin <= e.onset and e.offset < scene.duration - max(0.05, scene.margin)
        if scene.countable(e.label)
    ]
    if not options:
        return None
    event = pick(rng, options)
    choices = lengths(rng, event.duration, scene.margin)
    if choices is None:
        return None
    answer = seconds_text(event.duration)
    said = quoted(scene.told, "duration", [event], lambda told: _nearest(told[0], choices) == answer)
    if scene.style is Style.SHORT:
        heard = listening(scene, rng, event.label, notes=said or {event.onset: answer})
        if not heard.seek(event):
            return None
    else:
        heard = listening(scene, rng, notes=said)
        heard.listen(around(scene, rng, event.onset, event.offset))
    nth = "first " if times[event.label] > 1 else ""
    text = ask(rng, "duration", event.label, nth=nth)
    end = f"and the {nth}{scene.say(event.label)} lasts {answer}"
    return example_of(scene, rng, "duration", text, answer, choices, heard, "length", end)


def longest_gap(scene: Subject, rng: Rng) -> Example | None:
    """Between which two neighbouring sounds the longest gap lies."""
    pairs = list(itertools.pairwise(scene.events))
    if len(pairs) < 2 or not scene.apart(scene.events):
        return None
    ends = np.maximum.accumulate([event.offset for event in scene.events])
    silences = [late.onset - end for (_, late), end in zip(pairs, ends, strict=False)]
    steps = [late.onset - early.onset for early, late in pairs]
    number = int(np.argmax(silences))
    lead = 4 * scene.margin
    if silences[number] < 0.4 + lead or not (
        _leads(silences, number, 1.4, lead) and _leads(steps, number, 1.25, lead)
    ):
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
    answer = _between(scene, early.label, late.label)
    choices = (answer, *(_between(scene, *shuffled(rng, pair)) for pair in wrong))
    heard = listening(scene, rng, gap_after=early)
    if scene.style is Style.SHORT and scene.duration <= AT_ONCE:
        heard.listen(Segment(0.0, tenth(scene.duration)))
    else:
        heard.listen(around(scene, rng, early.onset, late.onset + 0.1))
    text = ask(rng, "longest_gap", early.label)
    end = f"so the longest gap is {answer}"
    return example_of(scene, rng, "longest_gap", text, answer, choices, heard, "length", end)


def louder(scene: Subject, rng: Rng) -> Example | None:
    """Which of two sounds is louder: every X above every Y by at least 6 dB, plain and ear-weighted."""
    ranges = {}
    for event in firsts_of(scene):
        same = scene.of(event.label)
        plain = [e.level for e in same if e.level is not None]
        weighted = [e.weighted_level for e in same if e.weighted_level is not None]
        if len(plain) == len(weighted) == len(same):
            ranges[event.label] = (min(plain), max(plain), min(weighted), max(weighted))
    pairs = [
        (loud, soft)
        for loud, soft in itertools.permutations([e for e in firsts_of(scene) if e.label in ranges], 2)
        if ranges[loud.label][0] - ranges[soft.label][1] >= LOUDER_DB
        and ranges[loud.label][2] - ranges[soft.label][3] >= LOUDER_DB
        and abs(loud.onset - soft.onset) >= 2 * scene.gap
        and not scene.alike(loud.label, soft.label)
    ]
    if not pairs:
        return None
    loud, soft = pick(rng, pairs)
    said = quoted(scene.told, "louder", [loud, soft], lambda told: told[0] - told[1] >= LOUDER_DB / 2)
    if scene.style is Style.SHORT:
        notes = {
            event.onset: f"{_LEVEL_STEP * round((event.level or 0) / _LEVEL_STEP)} dB" for event in (loud, soft)
        }
        heard = listening(scene, rng, loud.label, other=soft.label, notes=said or notes)
    else:
        heard = listening(scene, rng, notes=said or {loud.onset: "loud", soft.onset: "soft"})
    if not heard.seek(*sorted((loud, soft), key=lambda event: event.onset)):
        return None
    one, other = shuffled(rng, [loud.label, soft.label])
    text = ask(rng, "louder", one, other=other)
    end = f"so the {scene.say(loud.label)} is louder"
    return example_of(scene, rng, "louder", text, loud.label, (loud.label, soft.label), heard, "compare", end)


def higher(scene: Subject, rng: Rng) -> Example | None:
    """Which of the first two beeps or bells of one label is higher, by at least 3 semitones (bells 7)."""
    options = []
    for label, margin in (("low beep", HIGHER_SEMITONES), ("high beep", HIGHER_SEMITONES), ("bell", 7.0)):
        pair = scene.of(label)[:2]
        if len(pair) == 2 and pair[0].pitch and pair[1].pitch:
            interval = semitones(pair[0].pitch, pair[1].pitch)
            if abs(interval) >= margin and pair[1].onset - pair[0].onset >= 2 * scene.gap:
                options.append((pair[0], pair[1], interval > 0))
    if not options:
        return None
    one, two, rising = pick(rng, options)
    sign = 1 if rising else -1
    least = HIGHER_SEMITONES / 2
    said = quoted(scene.told, "higher", [one, two], lambda told: sign * semitones(told[0], told[1]) >= least)
    if scene.style is Style.SHORT:
        notes = {event.onset: f"key {piano_key(event.pitch or A4)}" for event in (one, two)}
    else:
        notes = {one.onset: "lower" if rising else "higher", two.onset: "higher" if rising else "lower"}
    heard = listening(scene, rng, one.label, notes=said or notes)
    if not heard.seek(one, two):
        return None
    answer = "second" if rising else "first"
    text = ask(rng, "higher", one.label)
    end = f"so the {answer} is higher"
    return example_of(scene, rng, "higher", text, answer, ("first", "second"), heard, "compare", end)


def _of_scenes(make: Kind) -> Callable[[Scene | Subject, Rng], Example | None]:
    @functools.wraps(make)
    def of_scene(scene: Scene | Subject, rng: Rng) -> Example | None:
        return make(as_subject(scene), rng)

    return of_scene


KINDS: Final = {
    make.__name__: _of_scenes(make)
    for make in (
        count_window, count_all, first, last, after, exists, before, duration, longest_gap, louder, higher,
    )
}  # fmt: skip
"""What is asked about scenes, by name."""


# What may be asked


def _candidates(scene: Subject, rng: Rng) -> list[str]:
    """Labels that may be counted: those that are there, and one that need not be."""
    stray = [pick(rng, scene.strays)] if scene.strays else []
    return sorted({*(event.label for event in scene.events), *stray})


def _follows(scene: Subject, number: int) -> bool:
    """Is it beyond doubt that event `number` is followed by the next one?"""
    event, late = scene.events[number : number + 2]
    if scene.margin and (late.onset < event.offset - scene.margin or scene.alike(event.label, late.label)):
        return False  # people disagree on what follows a sound that is still going on
    return scene.apart(scene.events[max(0, number - 1) : number + 3])


def _absent(scene: Subject, rng: Rng) -> list[str]:
    """Labels that the scene lacks, of a kind with one that it has: drums are missed among drums."""
    present = {event.label for event in scene.events}
    drum = pick(rng, scene.events).label in DRUMS
    absent = [label for label in scene.strays if label not in present]
    return [label for label in absent if (label in DRUMS) == drum] or absent


def _extreme(scene: Subject, rng: Rng, kind: str) -> Example | None:
    """The first or the last sound, in a window or in the clip."""
    whole = rng.random() < 0.4
    places = [Window(0.0, tenth(scene.duration))] if whole else windows(scene, rng)
    options = []
    for window in places:
        inside = scene.between(window.start, window.end)
        if len(inside) < 2:
            continue
        ends = [event.offset for event in inside]
        early = any(event.onset < window.start < event.offset + scene.margin for event in scene.events)
        if kind == "first":
            clear = scene.apart(inside[:2]) and not early
        else:
            clear = scene.apart(inside[-2:]) and ends[-1] == max(ends)
        if clear:
            options.append((window, inside[0] if kind == "first" else inside[-1]))
    if not options:
        return None
    window, event = pick(rng, options)
    heard = listening(scene, rng)
    if not whole:
        heard.listen(window.segment, until=event if kind == "first" else None)
    elif kind == "first":
        heard.listen(Segment(0.0, max(1.0, around(scene, rng, event.onset, event.onset + 0.5).end)), until=event)
    else:
        begin = around(scene, rng, event.onset - 0.5, event.onset).start
        heard.listen(Segment(begin, min(window.end, begin + WALK)))
    text = ask(rng, kind, event.label, None if whole else window.times)
    said = scene.say(event.label)
    end = pick(rng, (f"so the {kind} is the {said}", f"so the {kind} sound is the {said}"))
    return example_of(scene, rng, kind, text, event.label, labels_of(scene, rng, event.label), heard, "order", end)


def piano_key(pitch: float) -> int:
    """Number of the nearest piano key, A4 (440 Hz) being 49."""
    return 49 + round(12 * math.log2(pitch / A4))


def _nearest(length: float, choices: Sequence[str]) -> str:
    """The choice that comes nearest to a length in seconds, as a factor."""
    return min(choices, key=lambda choice: abs(math.log(float(choice.split()[0]) / max(length, 1e-3))))


def _pair(one: str, two: str) -> tuple[str, str]:
    """Two labels whatever their order."""
    return (one, two) if one <= two else (two, one)


def _between(scene: Subject, one: str, two: str) -> str:
    if one == two:
        return f"between two {scene.say(one)} sounds" if scene.quoted else f"between two {one}s"
    return f"between the {scene.say(one)} and the {scene.say(two)}"


def _leads(values: Sequence[float], number: int, ratio: float, lead: float) -> bool:
    best = values[number]
    return all(best >= max(ratio * value, value + lead) for i, value in enumerate(values) if i != number)
