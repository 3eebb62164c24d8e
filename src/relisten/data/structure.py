"""Checks of an example that need no model: is it built as training needs it?

| flaw | what must hold |
|---|---|
| `choices` | the number asked for (if any), none twice but for case and white space, none lettered |
| `answer` | the reference is one of the choices, character by character |
| `blocks` | one think block, then one answer block, nothing around them |
| `said` | the answer block says the reference |
| `tag` | every `<seg>` is one that inference would listen to (see `relisten.protocol`); at least one |
| `outside` | no segment reaches past the clip, beyond a rounding of 0.05 s |
| `reason` | at least three words before each segment |
| `analysis` | at least three words behind each segment |
| `sentence` | the sentence goes on behind `</seg>`: no capital, no tag, no full stop |
| `source` | no word of annotations, metadata, captions or lettered options |
| `length` | at most 400 words of thinking |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from relisten.data.examples import Example
from relisten.protocol import Interleaver, Listen, Skip, parse_answer

TOLERANCE: Final = 0.05
MIN_WORDS: Final = 3
MAX_WORDS: Final = 400

_RESPONSE: Final = re.compile(r"\s*<think>(?P<think>.*)</think>\s*<answer>(?P<answer>.*)</answer>\s*", re.DOTALL)
_BLOCK_TAGS: Final = ("<think>", "</think>", "<answer>", "</answer>")
_SEGMENT: Final = re.compile(r"<seg>(.*?)</seg>", re.DOTALL)
_LETTERED: Final = re.compile(r"\s*\(?[A-Da-d1-4][).:]\s")
_SOURCE: Final = re.compile(
    r"\b(?:(?i:metadata|annotations?|annotated|captions?|timed (?:events?|facts?|speech)|event list|ground truth|"
    r"the (?:description|transcript)|(?:given|provided) (?:description|transcript|labels?|facts?|notes))"
    r"|(?:[Oo]ption|[Cc]hoice) [A-D1-4])\b"
)


@dataclass(frozen=True)
class Flaw:
    """One broken rule: its name in the table, and what is wrong, in words that a writer can act on."""

    kind: str
    message: str


def question_flaws(example: Example, *, choices: int | None = None) -> list[Flaw]:
    """What is wrong with question, choices and reference; `choices` is how many there must be."""
    question = example.question
    flaws = []
    if choices is not None and len(question.choices) != choices:
        flaws.append(Flaw("choices", f"there are {len(question.choices)} choices; give {choices}"))
    if len({" ".join(choice.casefold().split()) for choice in question.choices}) < len(question.choices):
        flaws.append(Flaw("choices", "two choices are the same; make each different"))
    for choice in question.choices:
        if _LETTERED.match(choice):
            flaws.append(Flaw("choices", f"the choice {choice!r} begins with a letter or number; leave that out"))
    if question.answer is None or (question.choices and question.answer not in question.choices):
        flaws.append(Flaw("answer", f"the answer {question.answer!r} is none of the choices; repeat one exactly"))
    for text in (question.text, *question.choices):
        if word := _SOURCE.search(text):
            flaws.append(Flaw("source", f"{word[0]!r} is not something a listener can hear of; leave it out"))
    return flaws


def response_flaws(example: Example, duration: float) -> list[Flaw]:
    """What is wrong with the response, for a clip of `duration` seconds."""
    response = example.response
    blocks = _RESPONSE.fullmatch(response)
    if blocks is None or any(response.count(tag) != 1 for tag in _BLOCK_TAGS):
        rule = "write one <think>...</think> and then one <answer>...</answer>, with nothing around them"
        return [Flaw("blocks", f"the blocks are not in order; {rule}")]
    flaws = []
    if parse_answer(response) != example.question.answer:
        flaws.append(Flaw("said", f"the response answers {parse_answer(response)!r}; it must be the reference"))
    flaws += _tag_flaws(response, duration)
    think = blocks["think"]
    flaws += _wording_flaws(think)
    if (words := len(_SEGMENT.sub(" ", think).split())) > MAX_WORDS:
        flaws.append(Flaw("length", f"the thinking has {words} words; at most {MAX_WORDS}"))
    if word := _SOURCE.search(think):
        flaws.append(Flaw("source", f"{word[0]!r} is not something a listener can hear of; leave it out"))
    return flaws


def _tag_flaws(response: str, duration: float) -> list[Flaw]:
    events = Interleaver(duration).feed(response)
    flaws = [
        Flaw(
            "tag",
            f"{event.tag!r} would not be listened to ({event.reason}); write <seg>start, end</seg> in seconds",
        )
        for event in events
        if isinstance(event, Skip)
    ]
    listens = sum(isinstance(event, Listen) for event in events)
    if not flaws and not response.count("<seg>") == response.count("</seg>") == listens:
        flaws.append(Flaw("tag", "a <seg> is not closed, or stands inside another; close each before the next"))
    elif not flaws and not listens:
        flaws.append(Flaw("tag", "no part is cited; write at least one <seg>start, end</seg>"))
    if not flaws:
        for content in _SEGMENT.findall(response):
            start, end = (float(time) for time in content.split(","))
            if start < 0 or end > duration + TOLERANCE:
                flaws.append(
                    Flaw("outside", f"<seg>{content}</seg> reaches outside the recording, 0 to {duration:.2f} s")
                )
    return flaws


def _wording_flaws(think: str) -> list[Flaw]:
    """Reason, analysis and flow around the segments. Between two segments one text is both."""
    flaws = []
    texts = _SEGMENT.split(think)[::2]
    tags = _SEGMENT.findall(think)
    for number, tag in enumerate(tags):
        before, behind = texts[number], texts[number + 1]
        if number == 0 and len(before.split()) < MIN_WORDS:
            flaws.append(Flaw("reason", f"no reason stands before <seg>{tag}</seg>; say why to listen there"))
        if len(behind.split()) < MIN_WORDS:
            flaws.append(Flaw("analysis", f"nothing is told behind <seg>{tag}</seg>; say what is heard there"))
        following = behind.lstrip()[:1]
        if following and (following.isupper() or following in "<.!?;"):
            flaws.append(
                Flaw("sentence", f"the sentence does not go on behind <seg>{tag}</seg>; go on in lower case")
            )
    return flaws
