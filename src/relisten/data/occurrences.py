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
