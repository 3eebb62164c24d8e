"""Questions about speech turns: who speaks when, how often, how long, and what is said after what.

Speakers are named by the order in which they are first heard, since their names cannot be heard. Where that order,
or who speaks at all, is in doubt, nothing is asked. The rules are otherwise those of `questions`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from relisten.data.choices import example_of, number_choices
from relisten.data.examples import Example
from relisten.data.manifest import LabelledEvent, Turn
from relisten.data.narration import listening
from relisten.data.phrases import ORDINALS
from relisten.data.reasoning import Listening, around, walk
from relisten.data.subject import Subject
from relisten.data.wording import Rng, pick, shuffled
from relisten.protocol import MAX_LISTENS

TALK_OVER: Final = 0.3
"""Seconds that two people must speak at once to be heard talking over each other."""
_WORDS: Final = (2, 14)
"""Fewest and most words of a turn that is quoted."""
_MOST_SPEAKERS: Final = 6
"""Speakers that can be told apart by who was heard first, second, ..."""

QUESTIONS: Final[dict[str, tuple[str, ...]]] = {
    "speakers": (
        "How many different people speak?", "How many speakers are there?",
        "How many different voices are heard?", "How many people take part in the conversation?",
        "What is the number of speakers?", "How many different speakers can be told apart?",
    ),
    "speaker_turns": (
        "How many turns does {one} take?", "How many times does {one} take the floor?",
        "How often does {one} get a turn?", "Count the turns of {one}.",
        "How many separate turns does {one} have?", "How many times does {one} begin to speak?",
    ),
    "last_word": (
        "Who speaks last?", "Who has the last word?", "Which speaker is heard last?",
        "Whose turn is the last one?", "Who ends the conversation?", "Which speaker finishes the conversation?",
    ),
    "speaks_most": (
        "Who speaks the longest in all?", "Which speaker talks the most in total?",
        "Who has the most speaking time?", "Whose turns add up to the longest time?",
        "Which speaker takes up most of the time?", "Who talks for the longest time overall?",
    ),
    "next_speaker": (
        "Who speaks right after {one}'s first turn?", "Who takes over when {one} first stops speaking?",
        "After the first turn of {one}, who speaks next?", "Which speaker follows the first turn of {one}?",
        "Who is next to speak after {one} has spoken for the first time?",
        "Who answers the first turn of {one}?",
    ),
    "said_by": (
        'Who says "{words}"?', 'Which speaker says "{words}"?', 'Who is it that says "{words}"?',
        'By whom is "{words}" said?', 'The words "{words}" are spoken by whom?', 'Whose words are "{words}"?',
    ),
    "said_after": (
        'What is said right after "{words}"?', 'Which words follow "{words}"?', 'What comes right after "{words}"?',
        'After "{words}", what is said next?', 'What is the next thing said after "{words}"?',
        'What is the reply to "{words}"?',
    ),
    "asks": (
        "Who asks a question?", "Which speaker asks something?", "Who is the one asking questions?",
        "Which speaker has the role of asking?", "Whose turn is a question?", "Who wants to know something?",
    ),
    "answers": (
        'Who answers the question "{words}"?', 'When "{words}" is asked, who replies?',
        'Which speaker replies to "{words}"?', 'Who responds to the question "{words}"?',
        'To whom falls the answer to "{words}"?', 'Which speaker gives the answer to "{words}"?',
    ),
    "talk_over": (
        "Do two people ever speak at the same time?", "Does anybody talk over somebody else?",
        "Are there two voices at once anywhere?", "Do any turns overlap?",
        "Is anyone interrupted while still speaking?", "Do the speakers ever talk at once?",
    ),
}  # fmt: skip


def speakers(subject: Subject, rng: Rng) -> Example | None:
    """How many different people speak."""
    voices = _voices(subject)
    if voices is None or len(parts := walk(voices)) > MAX_LISTENS:
        return None
    number = len({event.label for event in voices.events})
    if number > 9:
        return None
    heard = listening(voices, rng)
    for part in parts:
        heard.listen(part)
    people = "1 person speaks" if number == 1 else f"{number} different people speak"
    choices = number_choices(rng, number, least=1)
    return _asked(voices, rng, "speakers", str(number), choices, heard, f"so {people}")


def speaker_turns(subject: Subject, rng: Rng) -> Example | None:
    """How many turns one speaker takes."""
    voices = _voices(subject)
    if voices is None or len(parts := walk(voices)) > MAX_LISTENS:
        return None
    counts = Counter(event.label for event in voices.events)
    names = [name for name, number in counts.items() if number < 10]
    if len(counts) < 2 or not names:
        return None
    name = pick(rng, names)
    number = counts[name]
    heard = listening(voices, rng, name)
    for part in parts:
        heard.listen(part)
    end = f"so {name} takes {number} turn{'s' if number > 1 else ''}"
    choices = number_choices(rng, number, least=1)
    return _asked(voices, rng, "speaker_turns", str(number), choices, heard, end, one=name)


def last_word(subject: Subject, rng: Rng) -> Example | None:
    """Who speaks last."""
    voices = _voices(subject)
    if voices is None or len(names := _names(voices)) < 2:
        return None
    *others, event = voices.events
    if others[-1].onset > event.onset - voices.gap or max(e.offset for e in others) > event.offset - voices.gap:
        return None
    heard = listening(voices, rng)
    heard.listen(around(voices, rng, max(event.onset - 0.5, 0.0), min(event.offset, event.onset + 5)))
    return _asked(voices, rng, "last_word", event.label, names, heard, f"so {event.label} has the last word")


def speaks_most(subject: Subject, rng: Rng) -> Example | None:
    """Who speaks longest in all, by a factor of 1.3 at least."""
    voices = _voices(subject)
    if voices is None or len(names := _names(voices)) < 2 or len(parts := walk(voices)) > MAX_LISTENS:
        return None
    times = {name: sum(event.duration for event in voices.of(name)) for name in names}
    doubt = 2 * voices.margin * len(voices.events)
    name, *others = sorted(names, key=lambda one: -times[one])
    if times[name] < max(1.3 * times[others[0]], times[others[0]] + doubt):
        return None
    heard = listening(voices, rng)
    for part in parts:
        heard.listen(part)
    sums = " and ".join(f"{one} {times[one]:.1f} s" for one in (name, others[0]))
    return _asked(voices, rng, "speaks_most", name, names, heard, f"so it is {sums}, and {name} speaks the longest")


def next_speaker(subject: Subject, rng: Rng) -> Example | None:
    """Who speaks right after the first turn of a speaker; among three or more."""
    voices = _voices(subject)
    if voices is None or len(names := _names(voices)) < 3:
        return None
    options = []
    seen: set[str] = set()
    for number, event in enumerate(voices.events[:-1]):
        late = voices.events[number + 1]
        first = event.label not in seen
        seen.add(event.label)
        if (
            first
            and late.onset >= event.offset - voices.margin
            and voices.apart(voices.events[number : number + 3])
        ):
            options.append((event, late))
    if not options:
        return None
    event, late = pick(rng, options)
    heard = listening(voices, rng)
    if not heard.seek(event, late):
        return None
    choices = [name for name in names if name != event.label]
    end = f"so {late.label} speaks right after {event.label}"
    return _asked(voices, rng, "next_speaker", late.label, choices, heard, end, one=event.label)


def said_by(subject: Subject, rng: Rng) -> Example | None:
    """Who says certain words."""
    voices = _voices(subject)
    if voices is None or len(names := _names(voices)) < 2:
        return None
    quotes = _quotable(subject.turns)
    if not quotes:
        return None
    turn = pick(rng, quotes)
    event = _event_of(voices, turn)
    heard = listening(voices, rng, notes={event.onset: f'with "{turn.text}"'})
    heard.listen(around(voices, rng, turn.start, min(turn.end, turn.start + 5)))
    end = f"so these are the words of {event.label}"
    return _asked(voices, rng, "said_by", event.label, names, heard, end, words=turn.text)


def said_after(subject: Subject, rng: Rng) -> Example | None:
    """What is said right after certain words."""
    quotes = _quotable(subject.turns)
    options = [(early, late) for early, late in _successions(subject) if early in quotes and late in quotes]
    if not options or len(quotes) < 4:
        return None
    early, late = pick(rng, options)
    others = [turn.text for turn in quotes if turn not in (early, late)]
    lines = subject.naming(
        [LabelledEvent(t.start, t.end, f'"{t.text}"' if t.text else "speech") for t in subject.turns]
    )
    heard = listening(lines, rng)
    if not heard.seek(lines.events[subject.turns.index(early)], lines.events[subject.turns.index(late)]):
        return None
    choices = (late.text, *shuffled(rng, others)[:3])
    end = f'so "{late.text}" comes right after it'
    return _asked(lines, rng, "said_after", late.text, choices, heard, end, words=early.text)


def asks(subject: Subject, rng: Rng) -> Example | None:
    """Who asks a question, where only one speaker does."""
    voices = _voices(subject)
    if voices is None or len(names := _names(voices)) < 2 or not all(turn.text for turn in subject.turns):
        return None
    questions = [turn for turn in subject.turns if turn.text.rstrip("\"' ").endswith("?")]
    if len({turn.speaker for turn in questions}) != 1:
        return None
    turn = pick(rng, questions)
    event = _event_of(voices, turn)
    heard = listening(voices, rng, notes={event.onset: f'asking "{turn.text}"' if _plain(turn.text) else "asking"})
    heard.listen(around(voices, rng, turn.start, min(turn.end, turn.start + 5)))
    return _asked(voices, rng, "asks", event.label, names, heard, f"so it is {event.label} who asks")


def answers(subject: Subject, rng: Rng) -> Example | None:
    """Who replies to a question, among three or more speakers."""
    voices = _voices(subject)
    if voices is None or len(names := _names(voices)) < 3:
        return None
    quotes = _quotable(subject.turns)
    options = [
        (early, late)
        for early, late in _successions(subject)
        if early in quotes and early.text.endswith("?") and early.speaker != late.speaker
    ]
    if not options:
        return None
    early, late = pick(rng, options)
    asked, replied = _event_of(voices, early), _event_of(voices, late)
    heard = listening(voices, rng, notes={asked.onset: f'asking "{early.text}"', replied.onset: "replying"})
    if not heard.seek(asked, replied):
        return None
    choices = [name for name in names if name != asked.label]
    end = f"so {replied.label} answers"
    return _asked(voices, rng, "answers", replied.label, choices, heard, end, words=early.text)


def talk_over(subject: Subject, rng: Rng) -> Example | None:
    """Do two people ever speak at the same time."""
    voices = _voices(subject)
    if voices is None or len(_names(voices)) < 2:
        return None
    pairs = list(itertools.combinations(voices.events, 2))
    shared = [(min(a.offset, b.offset) - max(a.onset, b.onset), a, b) for a, b in pairs if a.label != b.label]
    most, one, other = max(shared, key=lambda item: item[0])
    doubt = 2 * voices.margin
    if most >= TALK_OVER + doubt:
        heard = listening(voices, rng)
        heard.listen(around(voices, rng, other.onset, min(one.offset, other.offset, other.onset + 5)))
        answer, end = "yes", f"so {one.label} and {other.label} speak at once"
    elif most <= -doubt and len(parts := walk(voices)) <= MAX_LISTENS:
        heard = listening(voices, rng)
        for part in parts:
            heard.listen(part)
        answer, end = "no", "so nobody speaks while another does"
    else:
        return None
    return _asked(voices, rng, "talk_over", answer, ("yes", "no"), heard, end)


DIALOGUE: Final = {
    make.__name__: make
    for make in (
        speakers, speaker_turns, last_word, speaks_most, next_speaker, said_by, said_after, asks, answers,
        talk_over,
    )
}  # fmt: skip


def _asked(
    subject: Subject,
    rng: Rng,
    kind: str,
    answer: str,
    choices: Iterable[str],
    heard: Listening,
    end: str,
    **words: str,
) -> Example:
    text = pick(rng, QUESTIONS[kind]).format(**words)
    return example_of(subject, rng, kind, text, answer, choices, heard, "speech", end)


def _voices(subject: Subject) -> Subject | None:
    """The same clip with turns for events, named by speaker; None where it is in doubt who is first, second, ..."""
    turns = subject.turns
    if not turns or not all(turn.speaker for turn in turns):
        return None
    order = list(dict.fromkeys(turn.speaker for turn in turns))
    firsts = [next(turn for turn in turns if turn.speaker == name) for name in order]
    if len(order) > _MOST_SPEAKERS or any(
        late.start - early.start < subject.gap for early, late in itertools.pairwise(firsts)
    ):
        return None
    names = {name: f"the {ORDINALS[number]} speaker" for number, name in enumerate(order)}
    spoken: list[tuple[LabelledEvent, str]] = []
    for turn in turns:
        if spoken and spoken[-1][1] == turn.speaker:
            # The same voice goes on after a pause: still the same turn.
            event = spoken[-1][0]
            spoken[-1] = replace(event, offset=max(event.offset, turn.end)), turn.speaker
        else:
            spoken.append((LabelledEvent(turn.start, turn.end, names[turn.speaker]), turn.speaker))
    return replace(subject.naming([event for event, _ in spoken]), speakers=dict(spoken))


def _successions(subject: Subject) -> list[tuple[Turn, Turn]]:
    """Turns that follow one another beyond doubt: no other starts about when either does."""
    turns = subject.turns
    return [
        (turns[at], turns[at + 1])
        for at in range(len(turns) - 1)
        if turns[at + 1].start >= turns[at].end - subject.margin
        and all(b.start - a.start >= subject.gap for a, b in itertools.pairwise(turns[max(0, at - 1) : at + 3]))
    ]


def _names(voices: Subject) -> list[str]:
    return list(dict.fromkeys(event.label for event in voices.events))


def _event_of(voices: Subject, turn: Turn) -> LabelledEvent:
    """The event that a turn is part of."""
    return next(
        event
        for event, speaker in voices.speakers.items()
        if event.onset <= turn.start <= event.offset and speaker == turn.speaker
    )


def _plain(text: str) -> bool:
    return not any(mark in text for mark in '<>"\n')


def _quotable(turns: Sequence[Turn]) -> list[Turn]:
    """Turns whose words can be quoted: said once, of a fair length, and without marks of the protocol."""
    times = Counter(_key(turn.text) for turn in turns)
    few, many = _WORDS
    return [
        turn
        for turn in turns
        if few <= len(turn.text.split()) <= many and times[_key(turn.text)] == 1 and _plain(turn.text)
    ]


def _key(text: str) -> str:
    return " ".join(word.strip(".,!?;:'") for word in text.casefold().split())
