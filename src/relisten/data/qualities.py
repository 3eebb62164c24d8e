"""Questions about how long, how loud and how high sounds are. The rules are those of `questions`."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np

from relisten.data.choices import example_of, firsts_of, lengths, seconds_text
from relisten.data.examples import Example
from relisten.data.narration import listening
from relisten.data.reasoning import around, tenth
from relisten.data.subject import Style, Subject
from relisten.data.told import quoted, semitones
from relisten.data.wording import Rng, ask, pick, shuffled
from relisten.protocol import Segment

LOUDER_DB: Final = 6.0
HIGHER_SEMITONES: Final = 3.0
AT_ONCE: Final = 10.0
"""Clips up to this length, in seconds, are listened to in one piece where the whole has to be compared."""
A4: Final = 440.0
_LEVEL_STEP: Final = 3
"""Levels are told in steps of so many dB, half of what makes a sound the louder one."""


def duration(subject: Subject, rng: Rng) -> Example | None:
    """How long the only or first X lasts, for sounds that hold and then stop."""
    times = Counter(event.label for event in subject.events)
    firsts = firsts_of(subject)
    options = [
        e
        for e in firsts
        if e.sustained and subject.margin <= e.onset and e.offset < subject.duration - max(0.05, subject.margin)
        if subject.countable(e.label)
    ]
    if not options:
        return None
    event = pick(rng, options)
    choices = lengths(rng, event.duration, subject.margin)
    if choices is None:
        return None
    answer = seconds_text(event.duration)
    said = quoted(subject.told, "duration", [event], lambda told: _nearest(told[0], choices) == answer)
    if subject.style is Style.SHORT:
        heard = listening(subject, rng, event.label, notes=said or {event.onset: answer})
        if not heard.seek(event):
            return None
    else:
        heard = listening(subject, rng, notes=said)
        heard.listen(around(subject, rng, event.onset, event.offset))
    nth = "first " if times[event.label] > 1 else ""
    text = ask(rng, "duration", event.label, nth=nth)
    end = f"and the {nth}{subject.say(event.label)} lasts {answer}"
    return example_of(subject, rng, "duration", text, answer, choices, heard, "length", end)


def longest_gap(subject: Subject, rng: Rng) -> Example | None:
    """Between which two neighbouring sounds the longest gap lies."""
    pairs = list(itertools.pairwise(subject.events))
    if len(pairs) < 2 or not subject.apart(subject.events):
        return None
    ends = np.maximum.accumulate([event.offset for event in subject.events])
    silences = [late.onset - end for (_, late), end in zip(pairs, ends, strict=False)]
    steps = [late.onset - early.onset for early, late in pairs]
    number = int(np.argmax(silences))
    lead = 4 * subject.margin
    if silences[number] < 0.4 + lead or not (
        _leads(silences, number, 1.4, lead) and _leads(steps, number, 1.25, lead)
    ):
        return None
    early, late = pairs[number]
    right = _pair(early.label, late.label)
    others = dict.fromkeys(_pair(one.label, two.label) for one, two in pairs)
    present = sorted({event.label for event in subject.events})
    spare = [_pair(one, two) for one, two in itertools.combinations_with_replacement(present, 2)]
    others |= dict.fromkeys(shuffled(rng, spare))
    wrong = [pair for pair in others if pair != right][:3]
    if len(wrong) < 2:
        return None
    answer = _between(subject, early.label, late.label)
    choices = (answer, *(_between(subject, *shuffled(rng, pair)) for pair in wrong))
    heard = listening(subject, rng, gap_after=early)
    if subject.style is Style.SHORT and subject.duration <= AT_ONCE:
        heard.listen(Segment(0.0, tenth(subject.duration)))
    else:
        heard.listen(around(subject, rng, early.onset, late.onset + 0.1))
    text = ask(rng, "longest_gap", early.label)
    end = f"so the longest gap is {answer}"
    return example_of(subject, rng, "longest_gap", text, answer, choices, heard, "length", end)


def louder(subject: Subject, rng: Rng) -> Example | None:
    """Which of two sounds is louder: every X above every Y by at least 6 dB, plain and ear-weighted."""
    ranges = {}
    for event in firsts_of(subject):
        same = subject.of(event.label)
        plain = [e.level for e in same if e.level is not None]
        weighted = [e.weighted_level for e in same if e.weighted_level is not None]
        if len(plain) == len(weighted) == len(same):
            ranges[event.label] = (min(plain), max(plain), min(weighted), max(weighted))
    pairs = [
        (loud, soft)
        for loud, soft in itertools.permutations([e for e in firsts_of(subject) if e.label in ranges], 2)
        if ranges[loud.label][0] - ranges[soft.label][1] >= LOUDER_DB
        and ranges[loud.label][2] - ranges[soft.label][3] >= LOUDER_DB
        and abs(loud.onset - soft.onset) >= 2 * subject.gap
        and not subject.alike(loud.label, soft.label)
    ]
    if not pairs:
        return None
    loud, soft = pick(rng, pairs)
    said = quoted(subject.told, "louder", [loud, soft], lambda told: told[0] - told[1] >= LOUDER_DB / 2)
    if subject.style is Style.SHORT:
        notes = {event.onset: level_text(event.level or 0) for event in (loud, soft)}
        heard = listening(subject, rng, loud.label, other=soft.label, notes=said or notes)
    else:
        heard = listening(subject, rng, notes=said or {loud.onset: "loud", soft.onset: "soft"})
    if not heard.seek(*sorted((loud, soft), key=lambda event: event.onset)):
        return None
    one, other = shuffled(rng, [loud.label, soft.label])
    text = ask(rng, "louder", one, other=other)
    end = f"so the {subject.say(loud.label)} is louder"
    return example_of(subject, rng, "louder", text, loud.label, (loud.label, soft.label), heard, "compare", end)


def higher(subject: Subject, rng: Rng) -> Example | None:
    """Which of the first two beeps or bells of one label is higher, by at least 3 semitones (bells 7)."""
    options = []
    for label, margin in (("low beep", HIGHER_SEMITONES), ("high beep", HIGHER_SEMITONES), ("bell", 7.0)):
        pair = subject.of(label)[:2]
        if len(pair) == 2 and pair[0].pitch and pair[1].pitch:
            interval = semitones(pair[0].pitch, pair[1].pitch)
            if abs(interval) >= margin and pair[1].onset - pair[0].onset >= 2 * subject.gap:
                options.append((pair[0], pair[1], interval > 0))
    if not options:
        return None
    one, two, rising = pick(rng, options)
    sign = 1 if rising else -1
    least = HIGHER_SEMITONES / 2
    said = quoted(subject.told, "higher", [one, two], lambda told: sign * semitones(told[0], told[1]) >= least)
    if subject.style is Style.SHORT:
        notes = {event.onset: pitch_text(event.pitch or A4) for event in (one, two)}
    else:
        notes = {one.onset: "lower" if rising else "higher", two.onset: "higher" if rising else "lower"}
    heard = listening(subject, rng, one.label, notes=said or notes)
    if not heard.seek(one, two):
        return None
    answer = "second" if rising else "first"
    text = ask(rng, "higher", one.label)
    end = f"so the {answer} is higher"
    return example_of(subject, rng, "higher", text, answer, ("first", "second"), heard, "compare", end)


def level_text(level: float) -> str:
    """A level in dB of full scale as short responses tell it."""
    return f"{_LEVEL_STEP * round(level / _LEVEL_STEP)} dB"


def pitch_text(pitch: float) -> str:
    """A pitch in Hz as short responses tell it."""
    return f"key {piano_key(pitch)}"


def piano_key(pitch: float) -> int:
    """Number of the nearest piano key, A4 (440 Hz) being 49."""
    return 49 + round(12 * math.log2(pitch / A4))


def _nearest(length: float, choices: Sequence[str]) -> str:
    """The choice that comes nearest to a length in seconds, as a factor."""
    return min(choices, key=lambda choice: abs(math.log(float(choice.split()[0]) / max(length, 1e-3))))


def _pair(one: str, two: str) -> tuple[str, str]:
    """Two labels whatever their order."""
    return (one, two) if one <= two else (two, one)


def _between(subject: Subject, one: str, two: str) -> str:
    if one == two:
        return f"between two {subject.say(one)} sounds" if subject.quoted else f"between two {one}s"
    return f"between the {subject.say(one)} and the {subject.say(two)}"


def _leads(values: Sequence[float], number: int, ratio: float, lead: float) -> bool:
    best = values[number]
    return all(best >= max(ratio * value, value + lead) for i, value in enumerate(values) if i != number)
