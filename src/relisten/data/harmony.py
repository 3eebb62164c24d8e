"""Questions about musical facts: chords, beats, bars, tempo and key. The rules are those of `questions`.

Wrong choices never fit too: no tempo that is half or double the right one, no relative key, no chord that holds the
right one (Am7 beside Am) or is another spelling of it.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from relisten.data.choices import example_of
from relisten.data.examples import Example
from relisten.data.manifest import NO_CHORD, LabelledEvent
from relisten.data.narration import listening
from relisten.data.reasoning import Listening, around, tenth, walk
from relisten.data.subject import Subject
from relisten.data.wording import Rng, pick, shuffled
from relisten.protocol import MAX_LISTENS, Segment
from relisten.tools.sections import pitch_class

_NATURALS: Final = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_SIGNS: Final = {"#": 1, "b": -1, "": 0}
_FLATS: Final = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
_ROOT: Final = re.compile(r"([A-G])([#b]?)(.*)", re.DOTALL)
_SHORTEST: Final = 0.8
"""Seconds a chord must last to be asked about."""
_TEMPO_STEPS: Final = (0.58, 0.63, 0.71, 0.8, 0.86, 1.17, 1.25, 1.41, 1.6, 1.72)
"""Wrong tempos as parts of the right one: none near half, two thirds, three quarters, or their inverses."""

QUESTIONS: Final[dict[str, tuple[str, ...]]] = {
    "chord_first": (
        "Which chord comes first?", "What is the first chord?", "With which chord does the music begin?",
        "Which chord is heard first?", "What chord opens the clip?", "Name the first chord.",
    ),
    "chord_last": (
        "Which chord comes last?", "What is the last chord?", "With which chord does the music end?",
        "Which chord is heard last?", "What chord closes the clip?", "Name the last chord.",
    ),
    "chord_after": (
        "Which chord follows the {nth}{one}?", "Which chord comes right after the {nth}{one}?",
        "To which chord does the {nth}{one} change?", "What is the next chord after the {nth}{one}?",
        "After the {nth}{one}, which chord is next?", "What chord does the {nth}{one} lead to?",
    ),
    "chord_at": (
        "Which chord is heard at {time} seconds?", "What chord sounds {time} seconds into the clip?",
        "At {time} seconds, which chord is it?", "Which chord is playing at the {time} second mark?",
        "What is the chord at {time} seconds?", "Which harmony is heard at {time} seconds?",
    ),
    "chord_changes": (
        "How many times does the chord change?", "How many chord changes are there?",
        "How often does the harmony change?", "Count the chord changes.",
        "What is the number of chord changes?", "How many changes of chord are heard?",
    ),
    "beats": (
        "How many beats are there between {a} and {b} seconds?",
        "How many beats fall between {a} and {b} seconds?", "Count the beats from {a} to {b} seconds.",
        "How many beats are heard from {a} to {b} seconds?",
        "Between {a} and {b} seconds, how many beats are there?",
        "What is the number of beats from {a} s to {b} s?",
    ),
    "meter": (
        "How many beats does a bar have?", "How many beats are there in each bar?",
        "How many beats make up one bar?", "What is the number of beats to the bar?",
        "Every bar has how many beats?", "How many beats are in a measure?",
    ),
    "tempo": (
        "About how fast is the music?", "What is the tempo?",
        "About how many beats a minute does the music have?", "At about what tempo is this played?",
        "Which tempo fits this music?", "How fast is the beat?",
    ),
    "key": (
        "In which key is the music?", "What is the key?", "Which key is this played in?",
        "What key is the piece in?", "Which is the key of this music?", "In what key is this?",
    ),
}  # fmt: skip


def chord_first(subject: Subject, rng: Rng) -> Example | None:
    """Which chord comes first."""
    return _end_chord(subject, rng, "chord_first")


def chord_last(subject: Subject, rng: Rng) -> Example | None:
    """Which chord comes last."""
    return _end_chord(subject, rng, "chord_last")


def chord_after(subject: Subject, rng: Rng) -> Example | None:
    """Which chord follows the only or first X."""
    chords = _chords(subject)
    if chords is None:
        return None
    times = Counter(event.label for event in chords.events)
    options = []
    seen: set[str] = set()
    for event, late in itertools.pairwise(chords.events):
        clear = event.label not in seen and _long(event, subject) and _long(late, subject)
        if clear and late.onset <= event.offset + 0.05 and not similar(event.label, late.label):
            options.append((event, late))
        seen.add(event.label)
    if not options:
        return None
    event, late = pick(rng, options)
    heard = listening(chords, rng)
    if not heard.seek(event, late):
        return None
    nth = "first " if times[event.label] > 1 else ""
    choices = _chord_choices(chords, rng, late.label, but=event.label)
    end = f"so the {nth}{event.label} is followed by {late.label}"
    return _asked(chords, rng, "chord_after", late.label, choices, heard, end, one=event.label, nth=nth)


def chord_at(subject: Subject, rng: Rng) -> Example | None:
    """Which chord is heard at a moment well inside it."""
    chords = _chords(subject)
    if chords is None:
        return None
    options = []
    for event in chords.events:
        room = event.duration - 2 * max(0.3, 3 * subject.margin)
        if room > 0.2:
            options.append(
                (event, round(event.onset + (event.duration - room) / 2 + room * float(rng.random()), 1))
            )
    if not options:
        return None
    event, time = pick(rng, options)
    heard = listening(chords, rng)
    heard.listen(around(chords, rng, time, time))
    choices = _chord_choices(chords, rng, event.label)
    end = f"so the chord at {time:.1f} s is {event.label}"
    return _asked(chords, rng, "chord_at", event.label, choices, heard, end, time=f"{time:.1f}")


def chord_changes(subject: Subject, rng: Rng) -> Example | None:
    """How many times the chord changes."""
    chords = _chords(subject)
    if chords is None or len(parts := walk(chords)) > MAX_LISTENS:
        return None
    pairs = list(itertools.pairwise(chords.events))
    if not all(_long(event, subject) for event in chords.events) or any(
        similar(a.label, b.label) for a, b in pairs
    ):
        return None
    heard = listening(chords, rng)
    for part in parts:
        heard.listen(part)
    number = len(pairs)
    end = f"so the chord changes {number} time{'' if number == 1 else 's'}"
    return _asked(chords, rng, "chord_changes", str(number), _numbers(rng, number), heard, end)


def beats(subject: Subject, rng: Rng) -> Example | None:
    """How many beats fall between two moments that lie between beats."""
    times = subject.music.beats if subject.music else ()
    if len(times) < 4:
        return None
    room = min(late - early for early, late in itertools.pairwise(times)) / 2
    edge = max(0.08, subject.margin)
    if room < edge:
        return None
    options = []
    for _ in range(12):
        start = round(float(rng.uniform(0, max(0.1, subject.duration - 2))), 1)
        end = round(start + float(rng.uniform(1.5, 5)), 1)
        inside = [time for time in times if start <= time < end]
        clear = all(abs(time - limit) >= edge for time in times for limit in (start, end))
        if end <= min(subject.duration, times[-1] + room) and clear and 2 <= len(inside) <= 12:
            options.append((start, end, inside))
    if not options:
        return None
    start, end, inside = pick(rng, options)
    pulses = subject.naming([LabelledEvent(time, time, "beat") for time in times])
    heard = listening(replace(pulses, article=True), rng, "beat")
    heard.listen(Segment(start, end))
    number = len(inside)
    words = {"a": _plain(start), "b": _plain(end)}
    return _asked(
        pulses, rng, "beats", str(number), _numbers(rng, number, 1), heard, f"so {number} beats fall there", **words
    )


def meter(subject: Subject, rng: Rng) -> Example | None:
    """How many beats a bar has, where every bar has 3, 4, 5 or 7."""
    music = subject.music
    if music is None or len(music.downbeats) < 3:
        return None
    bars = [
        sum(early - 0.01 <= time < late - 0.01 for time in music.beats)
        for early, late in itertools.pairwise(music.downbeats)
    ]
    if len(set(bars)) != 1 or bars[0] not in (3, 4, 5, 7):
        return None
    number = bars[0]
    pulses = subject.naming(
        [LabelledEvent(t, t, "strong beat" if t in music.downbeats else "weak beat") for t in music.beats]
    )
    pulses = replace(pulses, article=True)
    heard = listening(pulses, rng, notes=dict.fromkeys(music.downbeats, "the one"))
    first, last = music.downbeats[0], music.downbeats[2]
    if last - first > 6:
        return None
    heard.listen(around(pulses, rng, first, last))
    end = f"so each bar has {number} beats"
    return _asked(pulses, rng, "meter", str(number), ("3", "4", "5", "7"), heard, end)


def tempo(subject: Subject, rng: Rng) -> Example | None:
    """About how many beats a minute the music has."""
    music = subject.music
    if music is None or music.tempo is None or not 40 <= music.tempo <= 220 or len(music.beats) < 4:
        return None
    steps = [late - early for early, late in itertools.pairwise(music.beats)]
    steady = float(np.median(steps))
    span = music.beats[-1] - music.beats[0]
    if abs(60 / steady - music.tempo) > 0.06 * music.tempo or max(steps) > 1.3 * steady:
        return None  # the beats do not bear the number out
    if 2 * subject.margin > 0.04 * span:
        return None
    found = [music.tempo]
    for step in shuffled(rng, _TEMPO_STEPS):
        value = music.tempo * step
        if 30 <= value <= 260 and all(abs(value / other - 1) > 0.1 for other in found) and len(found) < 4:
            found.append(value)
    if len(found) < 3:
        return None
    answer, *wrong = (f"about {round(value)} beats a minute" for value in found)
    pulses = replace(subject.naming([LabelledEvent(t, t, "beat") for t in music.beats]), article=True)
    heard = listening(pulses, rng, "beat")
    start = pick(rng, music.beats[: max(1, len(music.beats) - 5)])
    heard.listen(around(pulses, rng, start, min(start + 2.5, subject.duration)))
    end = f"and one beat every {steady:.2f} s is {answer}"
    return _asked(pulses, rng, "tempo", answer, (answer, *wrong), heard, end)


def key(subject: Subject, rng: Rng) -> Example | None:
    """The key, among others that are neither its relative nor share its root."""
    music = subject.music
    parsed = _key(music.key) if music and music.key else None
    chords = _chords(subject)
    if parsed is None or music is None or music.key is None or chords is None:
        return None
    root, mode = parsed
    relative = (root.pitch + 9) % 12 if mode == "major" else (root.pitch + 3) % 12
    pool = [
        f"{_note(pitch, root.flat)} {kind}"
        for pitch in range(12)
        for kind in ("major", "minor")
        if pitch != root.pitch and not (kind != mode and pitch == relative)
    ]
    heard = listening(chords, rng)
    for part in walk(chords)[:2]:
        heard.listen(part)
    end = f"so all of it rests on {music.key}"
    return _asked(chords, rng, "key", music.key, (music.key, *shuffled(rng, pool)[:3]), heard, end)


HARMONY: Final = {
    make.__name__: make
    for make in (chord_first, chord_last, chord_after, chord_at, chord_changes, beats, meter, tempo, key)
}


def similar(one: str, other: str) -> bool:
    """May two chord names stand for the same sound, or one hold the other?"""
    a, b = _parsed(one), _parsed(other)
    if a is None or b is None:
        return one == other
    return a == b


class Root(NamedTuple):
    """What a chord or key is built on."""

    pitch: int
    """0 to 11, from C."""
    flat: bool
    """Is it spelled with a flat?"""
    rest: str
    """What follows in the name."""


def chord_root(label: str) -> Root | None:
    """The root that the name of a chord or key begins with; None for a name that begins with none."""
    match = _ROOT.fullmatch(label)
    if match is None:
        return None
    return Root((_NATURALS[match[1]] + _SIGNS[match[2]]) % 12, match[2] == "b", match[3])


def _note(pitch: int, flat: bool) -> str:
    return _FLATS[pitch % 12] if flat else pitch_class(pitch)


def _parsed(name: str) -> tuple[int, str] | None:
    """Root as a pitch class and "major", "minor", "dim", "aug" or "sus"; what lies on top does not matter."""
    root = chord_root(name)
    if root is None:
        return None
    rest = root.rest.lstrip(":")
    quality = "major"
    for mark, kind in (
        ("maj", "major"),
        ("dim", "dim"),
        ("aug", "aug"),
        ("sus", "sus"),
        ("min", "minor"),
        ("m", "minor"),
    ):
        if rest.startswith(mark):
            quality = kind
            break
    return root.pitch, quality


def _key(name: str) -> tuple[Root, str] | None:
    root = chord_root(name)
    mode = None if root is None else re.fullmatch(r"[: ]+(major|minor)", root.rest)
    return None if root is None or mode is None else (root, mode[1])


def _chords(subject: Subject) -> Subject | None:
    """The same clip with its chords for events, each until the next; repeats are one, silences are left out."""
    music = subject.music
    if music is None or not music.chords:
        return None
    events: list[LabelledEvent] = []
    ends = [*(chord.start for chord in music.chords[1:]), subject.duration]
    for chord, end in zip(music.chords, ends, strict=True):
        if end <= chord.start or not all(mark not in chord.name for mark in '<>"'):
            continue
        if events and events[-1].label == chord.name and events[-1].offset == chord.start:
            events[-1] = replace(events[-1], offset=end)
        else:
            events.append(LabelledEvent(chord.start, end, chord.name))
    heard = [event for event in events if event.label not in (NO_CHORD, "X", "N.C.")]
    return subject.naming(heard) if len(heard) >= 2 else None


def _end_chord(subject: Subject, rng: Rng, kind: str) -> Example | None:
    chords = _chords(subject)
    if chords is None:
        return None
    first = kind == "chord_first"
    event, near = (chords.events[0], chords.events[1]) if first else (chords.events[-1], chords.events[-2])
    if not _long(event, subject) or similar(event.label, near.label):
        return None
    heard = listening(chords, rng)
    if first:
        heard.listen(Segment(0.0, around(chords, rng, event.onset, min(event.offset, event.onset + 4)).end))
    else:
        start = around(chords, rng, max(event.onset, event.offset - 4), event.offset).start
        heard.listen(Segment(start, tenth(subject.duration)))
    choices = _chord_choices(chords, rng, event.label)
    end = f"so the {'first' if first else 'last'} chord is {event.label}"
    return _asked(chords, rng, kind, event.label, choices, heard, end)


def _long(event: LabelledEvent, subject: Subject) -> bool:
    return event.duration >= max(_SHORTEST, 4 * subject.margin)


def _chord_choices(chords: Subject, rng: Rng, answer: str, but: str = "") -> list[str]:
    """The answer and up to three other chords, those of the clip first; none like the answer or each other."""
    present = shuffled(rng, dict.fromkeys(event.label for event in chords.events))
    moved = [_moved(answer, step) for step in shuffled(rng, (2, 5, 7, 9, 10))]
    found = [answer]
    for name in (*present, *moved):
        known = any(similar(name, other) for other in found)
        if len(found) < 4 and name and name != but and not known:
            found.append(name)
    return found


def _moved(name: str, step: int) -> str:
    """The chord `step` semitones higher, in the same spelling."""
    root = chord_root(name)
    return "" if root is None else _note(root.pitch + step, root.flat) + root.rest.partition("/")[0]


def _numbers(rng: Rng, number: int, least: int = 0) -> list[str]:
    """The number and three near ones, it being the smallest as often as the largest."""
    low = number - int(rng.integers(0, 4))
    low = max(least, low)
    return [str(n) for n in range(low, low + 4)]


def _asked(
    subject: Subject,
    rng: Rng,
    kind: str,
    answer: str,
    choices: Iterable[str],
    heard: Listening,
    end: str,
    **words: str,
) -> Example | None:
    found: Sequence[str] = tuple(choices)
    if len(found) < 3:
        return None
    text = pick(rng, QUESTIONS[kind]).format(**words)
    return example_of(subject, rng, kind, text, answer, found, heard, "music", end)


def _plain(time: float) -> str:
    return f"{time:.0f}" if time == round(time) else f"{time:.1f}"
