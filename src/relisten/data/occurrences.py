"""Questions about which sounds there are, how often, and in what order. The rules are those of `questions`."""

from __future__ import annotations

import itertools
from collections import Counter

from relisten.data.choices import counted, example_of, firsts_of, labels_of, pick_number
from relisten.data.examples import Example
from relisten.data.narration import listening
from relisten.data.reasoning import WALK, WHOLE_CLIP, Window, around, tenth, walk, windows
from relisten.data.subject import Style, Subject
from relisten.data.timbres import DRUMS
from relisten.data.wording import Rng, ask, pick
from relisten.protocol import MAX_LISTENS, Segment


def count_window(subject: Subject, rng: Rng) -> Example | None:
    """How many X start between a and b."""
    options: dict[int, list[tuple[Window, str]]] = {}
    for window in windows(subject, rng):
        present = Counter(event.label for event in subject.between(window.start, window.end))
        for label in _candidates(subject, rng):
            if present[label] < 10 and subject.countable(label) and not window.cuts(subject, label):
                options.setdefault(present[label], []).append((window, label))
    if not options:
        return None
    number = pick_number(rng, options)
    window, label = pick(rng, options[number])
    heard = listening(subject, rng, label)
    heard.listen(window.segment)
    text = ask(rng, "count", label, window.times)
    return counted(subject, rng, "count_window", text, label, number, heard)


def count_all(subject: Subject, rng: Rng) -> Example | None:
    """How many X in the whole clip."""
    options: dict[int, list[str]] = {}
    present = Counter(event.label for event in subject.events)
    for label in _candidates(subject, rng):
        if present[label] < 10 and subject.countable(label):
            options.setdefault(present[label], []).append(label)
    if not options:
        return None
    number = pick_number(rng, options)
    label = pick(rng, options[number])
    heard = listening(subject, rng, label)
    segments = walk(subject)
    if len(segments) > MAX_LISTENS:
        return None
    for segment in segments:
        heard.listen(segment)
    text = ask(rng, "count", label)
    return counted(subject, rng, "count_all", text, label, number, heard)


def first(subject: Subject, rng: Rng) -> Example | None:
    """Which sound starts first, in a window or in the clip."""
    return _extreme(subject, rng, "first")


def last(subject: Subject, rng: Rng) -> Example | None:
    """Which sound starts last, in a window or in the clip."""
    return _extreme(subject, rng, "last")


def after(subject: Subject, rng: Rng) -> Example | None:
    """Which sound starts right after the only, first or second Y."""
    options = []
    times = Counter(event.label for event in subject.events)
    seen: Counter[str] = Counter()
    for number, event in enumerate(subject.events[:-1]):
        seen[event.label] += 1
        if seen[event.label] <= 2 and _follows(subject, number):
            nth = ("first ", "second ")[seen[event.label] - 1] if times[event.label] > 1 else ""
            options.append((number, nth))
    if not options:
        return None
    number, nth = pick(rng, options)
    event, answer = subject.events[number], subject.events[number + 1]
    nth = nth or ("only " if rng.random() < 0.4 else "")
    heard = listening(subject, rng, event.label)
    if subject.style is Style.SHORT:
        if not heard.seek(event, answer):
            return None
    else:
        begin = event
        if nth == "second ":
            begin = next(e for e in subject.events if e.label == event.label)
            if answer.onset - begin.onset > 3.5:
                heard.listen(around(subject, rng, begin.onset, begin.onset + 0.2))
                begin = event
        segment = around(subject, rng, begin.onset, answer.onset + 0.2)
        if segment.duration > WHOLE_CLIP:
            return None
        heard.listen(segment)
    text = ask(rng, "after", event.label, nth=nth)
    end = pick(
        rng, ("so the {0} comes right after the {1}", "so after the {1} comes the {0}", "so the {0} is next")
    )
    end = end.format(subject.say(answer.label), f"{nth if nth != 'only ' else ''}{subject.say(event.label)}")
    return example_of(
        subject, rng, "after", text, answer.label, labels_of(subject, rng, answer.label), heard, "order", end
    )


def exists(subject: Subject, rng: Rng) -> Example | None:
    """Is there an X, in a window or in the clip; yes and no by a coin."""
    wanted = rng.random() < 0.5
    present = {event.label for event in subject.events}
    if rng.random() < 0.4:
        candidates = sorted(present) if wanted else _absent(subject, rng)
        if not candidates:
            return None
        window, label, segments = None, pick(rng, candidates), walk(subject)
        if len(segments) > MAX_LISTENS:
            return None
    else:
        options = []
        absent = _absent(subject, rng)
        for window in windows(subject, rng):
            inside = {event.label for event in subject.between(*window.times)}
            # Most of what is missing from a window is heard elsewhere in the clip.
            elsewhere = sorted(present - inside)
            pool = sorted(inside) if wanted else elsewhere if elsewhere and rng.random() < 0.8 else absent
            pool = [label for label in pool if wanted or subject.clear(label)]
            options += [(window, label) for label in pool if not window.cuts(subject, label)]
        if not options:
            return None
        window, label = pick(rng, options)
        segments = [window.segment]
    heard = listening(subject, rng, label)
    for segment in segments:
        starting = subject.between(segment.start, segment.end)
        heard.listen(segment, until=next((event for event in starting if event.label == label), None))
        if heard.count:
            break
    text = ask(rng, "exists", label, window.times if window else None)
    end = f"so there is {'a' if wanted else 'no'} {subject.say(label)}{' sound' if subject.quoted else ''}"
    return example_of(subject, rng, "exists", text, "yes" if wanted else "no", ("yes", "no"), heard, "exists", end)


def before(subject: Subject, rng: Rng) -> Example | None:
    """Does the first X start before the first Y; yes and no by a coin."""
    pairs = [
        (early, late)
        for early, late in itertools.combinations(firsts_of(subject), 2)
        if late.onset - early.onset >= 2 * subject.gap and not subject.alike(early.label, late.label)
    ]
    if not pairs:
        return None
    early, late = pick(rng, pairs)
    wanted = rng.random() < 0.5
    asked, other = (early, late) if wanted else (late, early)
    if subject.style is Style.SHORT:
        heard = listening(subject, rng, asked.label, other=other.label)
        if not heard.seek(early):
            return None
    else:
        heard = listening(subject, rng)
        heard.seek(early, late)
    text = ask(rng, "before", asked.label, other=other.label)
    end = f"so the {subject.say(early.label)} comes before the {subject.say(late.label)}"
    return example_of(subject, rng, "before", text, "yes" if wanted else "no", ("yes", "no"), heard, "order", end)


# What may be asked


def _candidates(subject: Subject, rng: Rng) -> list[str]:
    """Labels that may be counted: those that are there, and one that need not be."""
    stray = [pick(rng, subject.strays)] if subject.strays else []
    return sorted({*(event.label for event in subject.events), *stray})


def _follows(subject: Subject, number: int) -> bool:
    """Is it beyond doubt that event `number` is followed by the next one?"""
    event, late = subject.events[number : number + 2]
    if subject.margin and (late.onset < event.offset - subject.margin or subject.alike(event.label, late.label)):
        return False  # people disagree on what follows a sound that is still going on
    return subject.apart(subject.events[max(0, number - 1) : number + 3])


def _absent(subject: Subject, rng: Rng) -> list[str]:
    """Labels that the scene lacks, of a kind with one that it has: drums are missed among drums."""
    present = {event.label for event in subject.events}
    drum = pick(rng, subject.events).label in DRUMS
    absent = [label for label in subject.strays if label not in present]
    return [label for label in absent if (label in DRUMS) == drum] or absent


def _extreme(subject: Subject, rng: Rng, kind: str) -> Example | None:
    """The first or the last sound, in a window or in the clip."""
    whole = rng.random() < 0.4
    places = [Window(0.0, tenth(subject.duration))] if whole else windows(subject, rng)
    options = []
    for window in places:
        inside = subject.between(window.start, window.end)
        if len(inside) < 2:
            continue
        ends = [event.offset for event in inside]
        early = any(event.onset < window.start < event.offset + subject.margin for event in subject.events)
        if kind == "first":
            clear = subject.apart(inside[:2]) and not early
        else:
            clear = subject.apart(inside[-2:]) and ends[-1] == max(ends)
        if clear:
            options.append((window, inside[0] if kind == "first" else inside[-1]))
    if not options:
        return None
    window, event = pick(rng, options)
    heard = listening(subject, rng)
    if not whole:
        heard.listen(window.segment, until=event if kind == "first" else None)
    elif kind == "first":
        heard.listen(Segment(0.0, max(1.0, around(subject, rng, event.onset, event.onset + 0.5).end)), until=event)
    else:
        begin = around(subject, rng, event.onset - 0.5, event.onset).start
        heard.listen(Segment(begin, min(window.end, begin + WALK)))
    text = ask(rng, kind, event.label, None if whole else window.times)
    said = subject.say(event.label)
    end = pick(rng, (f"so the {kind} is the {said}", f"so the {kind} sound is the {said}"))
    return example_of(
        subject, rng, kind, text, event.label, labels_of(subject, rng, event.label), heard, "order", end
    )
