"""The words of simulated questions and of the reasoning that answers them.

Fields of the templates: {one} a name, {many} its plural, {other} a second name, {span} a stretch of time or the
whole clip, {nth} an ordinal with a space behind it or nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

import numpy as np

Rng = np.random.Generator
T = TypeVar("T")

NAMES: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "kick": (("kick", "kicks"), ("kick", "kicks"), ("kick drum", "kick drums"), ("bass drum", "bass drums")),
    "snare": (("snare", "snares"), ("snare", "snares"), ("snare drum", "snare drums")),
    "hi-hat": (("hi-hat", "hi-hats"), ("hi-hat", "hi-hats"), ("hihat", "hihats"), ("hi hat", "hi hats")),
    "clap": (("clap", "claps"), ("clap", "claps"), ("hand clap", "hand claps"), ("handclap", "handclaps")),
    "low beep": (
        ("low beep", "low beeps"), ("low tone", "low tones"), ("low-pitched beep", "low-pitched beeps"),
    ),
    "high beep": (
        ("high beep", "high beeps"), ("high tone", "high tones"), ("high-pitched beep", "high-pitched beeps"),
    ),
    "chirp": (("chirp", "chirps"), ("chirp", "chirps"), ("sweep", "sweeps")),
    "bell": (("bell", "bells"), ("bell", "bells"), ("bell sound", "bell sounds")),
    "noise burst": (("noise burst", "noise bursts"), ("burst of noise", "bursts of noise"), ("noise", "noises")),
    "voice": (("voice", "voices"), ("voice", "voices"), ("speech sound", "speech sounds")),
    "chord": (("chord", "chords"), ("chord", "chords"), ("musical chord", "musical chords")),
}  # fmt: skip
"""What people call each label, as (singular, plural); the label itself comes first and most often."""

NUMBERS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

HITS: Final = {"kick": "kick hit", "snare": "snare hit", "hi-hat": "hi-hat hit", "clap": "clap sound"}
"""A further name that fits where hits are counted."""

SPANS: Final = (
    "between {a} and {b} seconds", "between {a} and {b} seconds", "from {a} to {b} seconds",
    "from {a} s to {b} s",
    "between {a} s and {b} s", "between second {a} and second {b}", "from second {a} to second {b}",
    "in the window from {a} to {b} seconds", "between {a} and {b} s", "within {a} to {b} seconds",
)  # fmt: skip
FROM_START: Final = (
    "in the first {b} seconds", "within the first {b} seconds", "before {b} seconds", "up to {b} seconds",
)  # fmt: skip
"""For windows that begin with the clip."""
WHOLE: Final = (
    "in the clip", "in the recording", "in the whole clip", "in this audio", "in the sound", "", "", "",
)  # fmt: skip
IN_ALL: Final = ("overall", "in all", "in total", "altogether")
"""Further ways to say that the whole clip is meant, where something is counted."""

QUESTIONS: Final[dict[str, tuple[str, ...]]] = {
    "count": (
        "How many {many} {span}?", "How many {many} are there {span}?",
        "How many times does the {one} sound {span}?", "How often does the {one} sound {span}?",
        "Count the {many} {span}.", "What is the number of {many} {span}?",
        "How many {many} can you hear {span}?", "How many {many} do you hear {span}?",
        "How many {many} occur {span}?", "{Span}, how many {many} are there?", "How many {many} sound {span}?",
        "How many times is the {one} heard {span}?",
    ),
    "first": (
        "What is the first sound {span}?", "Which sound comes first {span}?", "Which sound is first {span}?",
        "What do you hear first {span}?", "{Span}, which sound is the first?",
        "Which sound starts first {span}?", "What comes first {span}?", "Name the first sound {span}.",
        "What sound is heard first {span}?",
    ),
    "last": (
        "What is the last sound {span}?", "Which sound comes last {span}?", "Which sound is last {span}?",
        "What do you hear last {span}?", "{Span}, which sound is the last?", "Which sound starts last {span}?",
        "What comes last {span}?", "Name the last sound {span}.", "What is the final sound {span}?",
    ),
    "after": (
        "Which sound comes right after the {nth}{one}?", "What comes right after the {nth}{one}?",
        "What sound follows the {nth}{one}?", "Which sound is next after the {nth}{one}?",
        "After the {nth}{one}, which sound comes next?", "What do you hear right after the {nth}{one}?",
        "Which sound directly follows the {nth}{one}?", "What is the next sound after the {nth}{one}?",
        "Which sound comes immediately after the {nth}{one}?",
    ),
    "exists": (
        "Is there a {one} {span}?", "Is there any {one} {span}?", "Can you hear a {one} {span}?",
        "Do you hear a {one} {span}?", "Does a {one} sound {span}?", "Are there any {many} {span}?",
        "Is a {one} heard {span}?", "{Span}, is there a {one}?", "Does a {one} occur {span}?",
        "Is there at least one {one} {span}?",
    ),
    "before": (
        "Does the first {one} come before the first {other}?", "Is the first {one} before the first {other}?",
        "Does the first {one} sound before the first {other}?", "Do you hear the {one} before the {other}?",
        "Does the {one} come before the {other}?", "Is the {one} heard before the {other}?",
        "Does the {one} start earlier than the {other}?", "Does the first {one} precede the first {other}?",
        "Does a {one} sound before the first {other}?",
    ),
    "duration": (
        "How long is the {nth}{one}?", "How long does the {nth}{one} last?",
        "How long does the {nth}{one} sound?", "What is the duration of the {nth}{one}?",
        "What is the length of the {nth}{one}?", "For how long do you hear the {nth}{one}?",
        "About how long is the {nth}{one}?", "How many seconds does the {nth}{one} last?",
    ),
    "longest_gap": (
        "Where is the longest gap between two sounds?", "Where is the longest pause?",
        "Where is the longest silence?", "Between which two sounds is the longest gap?",
        "Between which sounds is the longest pause?", "Which gap between consecutive sounds is the longest?",
        "Between which two sounds is the longest silence?", "Where do you hear the longest gap?",
    ),
    "louder": (
        "Which is louder, the {one} or the {other}?", "Which sound is louder, the {one} or the {other}?",
        "What is louder: the {one} or the {other}?", "Which one is louder, the {one} or the {other}?",
        "Of the {one} and the {other}, which is louder?",
        "Which of the two is louder, the {one} or the {other}?", "Is the {one} or the {other} louder?",
        "Which sounds louder, the {one} or the {other}?",
    ),
    "higher": (
        "Which {one} is higher, the first or the second?",
        "Which {one} has the higher pitch, the first or the second?",
        "Is the first or the second {one} higher?", "Which of the first two {many} is higher?",
        "Of the first and the second {one}, which is higher?",
        "Which {one} is higher in pitch, the first or the second?",
        "Which is higher, the first {one} or the second {one}?",
        "What is higher: the first {one} or the second {one}?",
    ),
    "overlap": (
        "Do the {one} and the {other} ever sound at the same time?",
        "Do the {one} and the {other} ever overlap?", "Is the {one} ever heard together with the {other}?",
        "Is there a moment with both the {one} and the {other}?",
        "Do you hear the {one} and the {other} at the same time?",
        "Does the {one} ever sound during the {other}?", "Are the {one} and the {other} ever heard at once?",
        "Do the {one} and the {other} coincide anywhere?",
    ),
    "during": (
        "Which sound is heard while the {nth}{one} goes on?", "What sounds during the {nth}{one}?",
        "Which other sound overlaps the {nth}{one}?", "What else is heard during the {nth}{one}?",
        "Which sound comes together with the {nth}{one}?",
        "While the {nth}{one} lasts, which other sound is heard?",
        "Which sound shares its time with the {nth}{one}?",
        "What can be heard at the same time as the {nth}{one}?",
    ),
    "share": (
        "About what share of the clip does the {one} take up?", "How much of the clip is filled by the {one}?",
        "For about what part of the recording is the {one} heard?",
        "What percentage of the clip has the {one} in it?",
        "About how much of the recording does the {one} cover?",
        "During what share of the clip does the {one} sound?",
        "Of the whole clip, about how much does the {one} last?",
        "What portion of the audio contains the {one}?",
    ),
    "repeat_gap": (
        "How long after the first {one} does the second {one} start?",
        "How far apart are the starts of the first two {many}?",
        "How much time passes from the start of the first {one} to that of the second?",
        "How many seconds lie between the starts of the first and the second {one}?",
        "After the first {one} starts, how long does it take until the second one starts?",
        "What is the time between the starts of the first two {many}?",
        "From the start of the first {one}, how long is it to the start of the next {one}?",
        "How long is it from the first {one} to the second, start to start?",
    ),
    "count_before": (
        "How many {many} start before the {nth}{other}?", "How many {many} are there before the {nth}{other}?",
        "How many times does the {one} start before the {nth}{other}?",
        "Count the {many} before the {nth}{other}.", "How many {many} come earlier than the {nth}{other}?",
        "Before the {nth}{other} starts, how many {many} are heard?",
        "How many {many} precede the {nth}{other}?", "Until the {nth}{other}, how many {many} have started?",
    ),
    "count_after": (
        "How many {many} start after the {nth}{other}?",
        "How many {many} are there after the start of the {nth}{other}?",
        "How many times does the {one} start after the {nth}{other}?",
        "Count the {many} after the {nth}{other}.", "How many {many} come later than the {nth}{other}?",
        "After the {nth}{other} starts, how many {many} follow?", "How many {many} follow the {nth}{other}?",
        "Once the {nth}{other} has started, how many {many} still start?",
    ),
    "order": (
        "In which order do these sounds first come: {one}?",
        "What is the order in which these first start: {one}?",
        "Sort these by when they are first heard: {one}.", "Which order do these sounds start in: {one}?",
        "In what order are these first heard: {one}?", "Put these in the order of their first start: {one}.",
        "Which comes first, second and third of {one}?", "What is the right order of {one}, by first start?",
    ),
    "when": (
        "When does the {nth}{one} start?", "At what time does the {nth}{one} begin?",
        "When is the {nth}{one} first heard?", "How far into the clip does the {nth}{one} start?",
        "At which moment does the {nth}{one} set in?", "When do you hear the {nth}{one} begin?",
        "At about what second does the {nth}{one} start?", "What is the starting time of the {nth}{one}?",
    ),
    "distinct": (
        "How many different kinds of sounds are there {span}?", "How many different sounds are heard {span}?",
        "How many kinds of sounds can you hear {span}?", "What is the number of different sounds {span}?",
        "How many distinct sounds occur {span}?", "{Span}, how many different sounds are there?",
        "Count the different kinds of sounds {span}.", "How many sorts of sounds can be told apart {span}?",
    ),
}  # fmt: skip

REASONS: Final[dict[str, tuple[str, ...]]] = {
    "count": (
        "To count the {one} I listen to", "I count the {one} in", "To get the number right I listen again to",
        "Counting needs a close listen to", "I go back and count in", "Let me count the {one} in",
        "The {one} must be counted in", "I replay and count the {one} in", "For a sure count I listen to",
    ),
    "order": (
        "To find the order I listen to", "I check the order in", "Let me hear the order in",
        "The order is clear in", "I go back to", "To be sure which it is I replay", "I listen again to",
        "For the order I need",
    ),
    "exists": (
        "To find the {one} I listen to", "I look for the {one} in", "Let me search for the {one} in",
        "I check for the {one} in", "The {one} would be in", "I listen for the {one} in",
        "To be sure about the {one} I replay", "I go back and look for the {one} in",
    ),
    "compare": (
        "To compare them I listen to", "I compare them in", "Let me compare what is in", "The two are in",
        "For a fair comparison I replay", "I listen again to", "To hear the difference I need", "I go back to",
    ),
    "length": (
        "To tell how long it is I listen to", "I measure it in", "Let me time it in", "The time is clear in",
        "I go back to", "I listen again to", "To be sure how long it is I replay", "For the length I need",
    ),
    "together": (
        "To hear both I listen to", "I check for both in", "Let me hear what sounds together in",
        "The overlap would be in", "I go back to", "To be sure I replay", "I listen again to",
        "For both I need",
    ),
    "kinds": (
        "To tell the kinds I listen to", "I collect the kinds in", "Let me list what is in",
        "The kinds are clear in", "I go back to", "To be sure I replay", "I listen again to",
        "For the list I need",
    ),
    "speech": (
        "To tell who speaks I listen to", "I follow the voices in", "Let me hear the speakers in",
        "The voices are clear in", "I go back to", "To be sure who it is I replay", "I listen again to",
        "For the turns I need",
    ),
    "music": (
        "To follow the music I listen to", "I check the music in", "Let me hear the music in",
        "The music is clear in", "I go back to", "To be sure I replay", "I listen again to",
        "For the music I need",
    ),
}  # fmt: skip

LEADS: Final = (
    "and i hear", "and i hear", "where i hear", "where i hear", "there i hear", "which gives", "which has",
    "with",
)  # fmt: skip
NEXT: Final = ("then", "then in", "next", "and then", "after that", "and in", "then i go to", "next comes")


def ask(
    rng: Rng,
    kind: str,
    label: str,
    times: tuple[float, float] | None = None,
    *,
    other: str = "",
    nth: str = "",
    listed: bool = False,
) -> str:
    """A question of one kind about a label, in random words.

    Args:
        kind: a key of `QUESTIONS`.
        times: the window asked about, in seconds; None for the whole clip.
        other: a second label, for kinds that compare.
        nth: "first ", "second ", "only " or nothing.
        listed: `label` is a list of names that is written as it stands.
    """
    one, many = (label, label) if listed else _name(rng, label, hits=kind == "count")
    span = _span(rng, kind, times)
    templates = [text for text in QUESTIONS[kind] if span or "{Span}" not in text]
    text = pick(rng, templates).format(
        one=one,
        many=many,
        other=_name(rng, other)[0] if other else "",
        span=span,
        Span=span[:1].upper() + span[1:],
        nth=nth,
    )
    text = re.sub(r" (?=[?.])", "", text)
    chance = rng.random()
    if label not in NAMES:
        pass  # a label that is not ours is written as it stands
    elif chance < 0.12:
        text = text.lower()
    elif chance < 0.15:
        text = text.upper()
    return text.rstrip("?.") if rng.random() < 0.12 else text


def _span(rng: Rng, kind: str, times: tuple[float, float] | None) -> str:
    if times is None:
        return pick(rng, WHOLE + IN_ALL if kind == "count" else WHOLE)
    whole = rng.random() < 0.6
    a, b = (f"{t:.0f}" if whole and t == round(t) else f"{t:.1f}" for t in times)
    return pick(rng, SPANS + 3 * FROM_START if times[0] == 0 else SPANS).format(a=a, b=b)


def _name(rng: Rng, label: str, hits: bool = False) -> tuple[str, str]:
    """What someone may call the label, as (singular, plural). Labels that are not ours are quoted as they stand."""
    if hits and label in HITS and rng.random() < 0.25:
        return HITS[label], f"{HITS[label]}s"
    if not label:
        return "", ""
    if label not in NAMES:
        return pick(
            rng, ((f'"{label}" sound', f'"{label}" sounds'), (f'sound of "{label}"', f'sounds of "{label}"'))
        )
    return pick(rng, NAMES[label])


def in_words(number: int) -> str:
    """A small number as people write it: "three"; digits from ten on."""
    return NUMBERS[number] if number < len(NUMBERS) else str(number)


def pick(rng: Rng, items: Sequence[T]) -> T:
    """One of the items, all alike."""
    return items[int(rng.integers(len(items)))]


def shuffled(rng: Rng, items: Iterable[T]) -> list[T]:
    """The items in random order."""
    found = list(items)
    return [found[i] for i in rng.permutation(len(found))]
