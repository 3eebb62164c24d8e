"""Further questions about sounds: how they lie to one another in time. The rules are those of `questions`."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Final

from relisten.data.choices import (
    counted,
    example_of,
    firsts_of,
    labels_of,
    lengths,
    number_choices,
    pick_number,
    seconds_text,
)
from relisten.data.examples import Example
from relisten.data.manifest import LabelledEvent
from relisten.data.narration import listening
from relisten.data.reasoning import around, tenth, walk, windows
from relisten.data.subject import Subject
from relisten.data.wording import Rng, ask, pick, shuffled
from relisten.protocol import MAX_LISTENS, Segment

TOGETHER: Final = 0.3
"""Seconds that two sounds must share to be heard together."""
SHARE_STEPS: Final = (15, 20, 25)
"""Percent between the choices of a share."""
_MOST_LISTENS: Final = 3


def overlap(subject: Subject, rng: Rng) -> Example | None:
    """Do X and Y ever sound at the same time; yes and no by a coin."""
    wanted = rng.random() < 0.5
    options = []
    for one, other in itertools.permutations(_steady(subject), 2):
        here = subject.of(one)
        if len(here) > _MOST_LISTENS or subject.alike(one, other):
            continue
        shared = [(min(a.offset, b.offset) - max(a.onset, b.onset), a, b) for a in here for b in subject.of(other)]
        longest = max(shared, key=lambda item: item[0])
        if wanted and longest[0] >= TOGETHER + 2 * subject.margin:
            options.append((one, other, [longest[1]]))
        elif not wanted and longest[0] <= -max(0.15, 2 * subject.margin):
            options.append((one, other, list(here)))
    if not options:
        return None
    one, other, places = pick(rng, options)
    heard = listening(subject, rng)
    for event in places:
        heard.listen(_over(subject, rng, event))
    a, b = shuffled(rng, [one, other])
    text = ask(rng, "overlap", a, other=b)
    said = f"the {subject.say(one)} and the {subject.say(other)}"
    end = f"so {said} sound at the same time" if wanted else f"so {said} never sound together"
    return example_of(
        subject, rng, "overlap", text, "yes" if wanted else "no", ("yes", "no"), heard, "together", end
    )


def during(subject: Subject, rng: Rng) -> Example | None:
    """Which other sound is heard while the only or first X goes on."""
    options = []
    times = Counter(event.label for event in subject.events)
    for event in firsts_of(subject):
        if not event.sustained or event.duration < 2 * TOGETHER + 2 * subject.margin:
            continue
        near = [e for e in subject.events if e.label != event.label and _shared(e, event) > -max(0.15, subject.gap)]
        names = {e.label for e in near}
        sure = any(_shared(e, event) >= TOGETHER + 2 * subject.margin and e.sustained for e in near)
        if len(names) == 1 and sure and subject.clear(event.label):
            options.append((event, names.pop()))
    if not options:
        return None
    event, answer = pick(rng, options)
    choices = [label for label in labels_of(subject, rng, answer) if label != event.label]
    if len(choices) < 3:
        return None
    nth = "first " if times[event.label] > 1 else ""
    heard = listening(subject, rng)
    heard.listen(_over(subject, rng, event))
    text = ask(rng, "during", event.label, nth=nth)
    end = f"so the {subject.say(answer)} is heard with the {nth}{subject.say(event.label)}"
    return example_of(subject, rng, "during", text, answer, choices, heard, "together", end)


def share(subject: Subject, rng: Rng) -> Example | None:
    """About what share of the clip X takes up."""
    options = []
    for label in _steady(subject):
        here = subject.of(label)
        part = _union(here) / subject.duration
        doubt = 2 * subject.margin * len(here) / subject.duration
        if part >= 0.05 and doubt <= 0.04 and len(walk(subject)) <= MAX_LISTENS and subject.clear(label):
            options.append((label, part))
    if not options:
        return None
    label, part = pick(rng, options)
    right = max(5, round(part * 20) * 5)
    step = pick(rng, SHARE_STEPS)
    places = [place for place in range(3) if right - place * step >= 5 and right + (2 - place) * step <= 100]
    if not places:
        return None
    place = pick(rng, places)
    choices = [f"{right + (at - place) * step} %" for at in range(3)]
    heard = listening(subject, rng, label)
    for segment in walk(subject):
        heard.listen(segment)
    answer = f"{right} %"
    text = ask(rng, "share", label)
    total = f"{_union(subject.of(label)):.1f} of {subject.duration:.1f} seconds"
    end = f"so the {subject.say(label)} takes up {total}, about {answer}"
    return example_of(subject, rng, "share", text, answer, choices, heard, "length", end)


def repeat_gap(subject: Subject, rng: Rng) -> Example | None:
    """How long after the first X the second X starts."""
    options = []
    for label in sorted({event.label for event in subject.events}):
        here = subject.of(label)
        if len(here) >= 2 and subject.countable(label) and here[1].onset - here[0].onset >= 2 * subject.gap:
            options.append((here[0], here[1]))
    if not options:
        return None
    one, two = pick(rng, options)
    length = two.onset - one.onset
    choices = lengths(rng, length, subject.margin)
    if choices is None:
        return None
    answer = seconds_text(length)
    heard = listening(subject, rng, one.label)
    if not heard.seek(one, two):
        return None
    text = ask(rng, "repeat_gap", one.label)
    end = f"so the second {subject.say(one.label)} starts {answer} after the first"
    return example_of(subject, rng, "repeat_gap", text, answer, choices, heard, "length", end)


def count_before(subject: Subject, rng: Rng) -> Example | None:
    """How many X start before the only or first Y."""
    return _count_beside(subject, rng, "count_before")


def count_after(subject: Subject, rng: Rng) -> Example | None:
    """How many X start after the only or last Y."""
    return _count_beside(subject, rng, "count_after")


def order(subject: Subject, rng: Rng) -> Example | None:
    """In which order three sounds first start."""
    firsts = [event for event in firsts_of(subject) if subject.clear(event.label)]
    options = [
        three
        for three in itertools.combinations(firsts, 3)
        if all(late.onset - early.onset >= 2 * subject.gap for early, late in itertools.pairwise(three))
        and three[2].onset - three[0].onset <= 12
    ]
    if not options:
        return None
    three = pick(rng, options)
    labels = [event.label for event in three]
    answer = _sequence(labels)
    wrong = [_sequence(other) for other in itertools.permutations(labels) if list(other) != labels]
    heard = listening(subject, rng)
    if not heard.seek(three[0], three[1]):
        return None
    if not any(part.start <= three[2].onset < part.end for part in heard.segments):
        heard.listen(around(subject, rng, three[2].onset, three[2].onset + 0.3))
    if len(heard.segments) > MAX_LISTENS:
        return None
    named = shuffled(rng, labels)
    listed = f"{subject.say(named[0])}, {subject.say(named[1])} and {subject.say(named[2])}"
    text = ask(rng, "order", listed, listed=True)
    end = f"so the order is {_sequence([subject.say(label) for label in labels])}"
    return example_of(subject, rng, "order", text, answer, (answer, *shuffled(rng, wrong)[:3]), heard, "order", end)


def when(subject: Subject, rng: Rng) -> Example | None:
    """When the only or first X starts."""
    times = Counter(event.label for event in subject.events)
    options = [event for event in firsts_of(subject) if subject.clear(event.label)]
    if not options or subject.duration < 4:
        return None
    event = pick(rng, options)
    least = max(1.0, 4 * subject.margin)
    found = [event.onset]
    for _ in range(24):
        time = round(float(rng.uniform(0, subject.duration - 0.3)), 1)
        if len(found) < 4 and all(abs(time - other) >= least for other in found):
            found.append(time)
    if len(found) < 3:
        return None
    answer, *wrong = (f"at {time:.1f} seconds" for time in found)
    nth = ("first " if times[event.label] > 1 else "") if rng.random() < 0.8 else ""
    heard = listening(subject, rng)
    heard.listen(around(subject, rng, event.onset, event.onset + 0.3))
    text = ask(rng, "when", event.label, nth=nth)
    end = f"so the {nth}{subject.say(event.label)} starts {answer}"
    return example_of(subject, rng, "when", text, answer, (answer, *wrong), heard, "order", end)


def distinct(subject: Subject, rng: Rng) -> Example | None:
    """How many different kinds of sounds start in a window, or are heard in the clip."""
    if any(not subject.clear(event.label) for event in subject.events):
        return None
    window = None
    if rng.random() < 0.5:
        places = [w for w in windows(subject, rng) if not w.cuts(subject) and subject.between(*w.times)]
        if not places:
            return None
        window = pick(rng, places)
    labels = {event.label for event in (subject.between(*window.times) if window else subject.events)}
    parts = [window.segment] if window else walk(subject)
    if len(labels) > 9 or len(parts) > MAX_LISTENS:
        return None
    number = len(labels)
    heard = listening(subject, rng)
    for part in parts:
        heard.listen(part)
    text = ask(rng, "distinct", "", window.times if window else None)
    named = ", ".join(subject.say(label) for label in sorted(labels))
    end = f"so there are {number} kinds: {named}" if number > 1 else f"so there is just one kind, {named}"
    choices = number_choices(rng, number, least=1)
    return example_of(subject, rng, "distinct", text, str(number), choices, heard, "kinds", end)


RELATIONS: Final = {
    make.__name__: make
    for make in (overlap, during, share, repeat_gap, count_before, count_after, order, when, distinct)
}


def _count_beside(subject: Subject, rng: Rng, kind: str) -> Example | None:
    before = kind == "count_before"
    times = Counter(event.label for event in subject.events)
    pivots = firsts_of(subject) if before else _lasts(subject)
    options: dict[int, list[tuple[LabelledEvent, str]]] = {}
    for pivot in pivots:
        for label in sorted(times):
            if label == pivot.label or subject.alike(label, pivot.label) or not subject.countable(label):
                continue
            here = subject.of(label)
            number = sum(event.onset < pivot.onset if before else event.onset > pivot.onset for event in here)
            if number < 10 and all(abs(event.onset - pivot.onset) >= subject.gap for event in here):
                options.setdefault(number, []).append((pivot, label))
    if not options:
        return None
    number = pick_number(rng, options)
    pivot, label = pick(rng, options[number])
    nth = ("first " if before else "last ") if times[pivot.label] > 1 else ""
    heard = listening(subject, rng, label)
    parts = _parts_beside(subject, label, pivot, before)
    if not parts or len(parts) > MAX_LISTENS:
        return None
    for part in parts:
        heard.listen(part)
    text = ask(rng, kind, label, other=pivot.label, nth=nth)
    return counted(subject, rng, kind, text, label, number, heard)


def _parts_beside(subject: Subject, label: str, pivot: LabelledEvent, before: bool) -> list[Segment]:
    """Segments from the clip's start to the pivot, or from the pivot to its end, without a start of X beyond it."""
    cut = tenth(pivot.onset) + (0.1 if before else 0.0)
    parts = []
    for part in walk(subject):
        start, end = (part.start, min(part.end, cut)) if before else (max(part.start, cut), part.end)
        if end - start >= 0.5:
            parts.append(Segment(round(start, 1), round(end, 1)))
    counted_in = sum(part.start <= event.onset < part.end for part in parts for event in subject.of(label))
    beside = sum(event.onset < pivot.onset if before else event.onset > pivot.onset for event in subject.of(label))
    return parts if counted_in == beside else []


def _steady(subject: Subject) -> list[str]:
    """Labels whose every event has an end that can be heard."""
    loose = {event.label for event in subject.events if not event.sustained}
    return sorted({event.label for event in subject.events} - loose)


def _over(subject: Subject, rng: Rng, event: LabelledEvent) -> Segment:
    """A segment over an event, or over its first seconds where it is long."""
    return around(subject, rng, event.onset, min(event.offset, event.onset + 8))


def _shared(one: LabelledEvent, other: LabelledEvent) -> float:
    """Seconds that two events share; below 0 the silence between them."""
    return min(one.offset, other.offset) - max(one.onset, other.onset)


def _union(events: tuple[LabelledEvent, ...]) -> float:
    """Seconds covered by any of the events."""
    total, end = 0.0, 0.0
    for event in events:
        total += max(0.0, event.offset - max(event.onset, end))
        end = max(end, event.offset)
    return total


def _lasts(subject: Subject) -> list[LabelledEvent]:
    return list({event.label: event for event in subject.events}.values())


def _sequence(labels: list[str] | tuple[str, ...]) -> str:
    return ", then ".join(labels)
