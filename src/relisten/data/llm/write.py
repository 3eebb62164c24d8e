"""Writing: a model that knows the facts makes questions and the reasoning that answers them by listening again."""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass
from typing import Any, Final

from relisten.data.examples import Example
from relisten.data.llm.facts import Captions, facts_text
from relisten.data.llm.prompts import load_prompt
from relisten.data.manifest import ClipRecord
from relisten.data.structure import Flaw, question_flaws, response_flaws
from relisten.errors import InputError
from relisten.llm.chat import ChatRequest, Message
from relisten.llm.client import Client
from relisten.llm.structured import ask
from relisten.question import Question

CHOICES: Final = 4
_TEXT: Final = {"type": "string", "minLength": 1}
_ITEM: Final = {
    "type": "object",
    "properties": {
        "question": _TEXT,
        "choices": {"type": "array", "items": _TEXT},
        "answer": _TEXT,
        "reasoning": _TEXT,
    },
    "required": ["question", "choices", "answer", "reasoning"],
    "additionalProperties": False,
}
_WRAPPED: Final = re.compile(r"\s*<think>(.*)</think>\s*(?:<answer>[^<]*</answer>\s*)?", re.DOTALL)


@dataclass(frozen=True)
class Draft:
    """One question as written; not yet known to be in order."""

    text: str
    choices: tuple[str, ...]
    answer: str
    reasoning: str


@dataclass(frozen=True)
class Written:
    """What a writer made of one clip: examples that are built right, and drafts that are not, even after repair."""

    examples: tuple[Example, ...]
    rejected: tuple[tuple[Draft, tuple[Flaw, ...]], ...]


def write_request(record: ClipRecord, captions: Captions, count: int) -> ChatRequest:
    prompt, focus = load_prompt("write"), load_prompt(_focus(record))
    system = prompt.fill(count=count, focus=focus.text)
    schema = {
        "type": "object",
        "properties": {"questions": {"type": "array", "items": _ITEM, "minItems": 1}},
        "required": ["questions"],
        "additionalProperties": False,
    }
    messages = (Message("system", system), Message("user", facts_text(record, captions)))
    return ChatRequest("write", f"{prompt.version}+{focus.version}", messages, schema)


async def write(client: Client, record: ClipRecord, captions: Captions, count: int) -> Written:
    """Up to `count` questions about a clip.

    Where drafts have flaws, the writer is told once and its second version is taken for those alone.

    Raises:
        EndpointError: none came, or nothing in the form asked for (`BadReplyError`).
    """

    def flaws_of(drafts: list[Draft]) -> list[str]:
        found = []
        for number, draft in enumerate(drafts, 1):
            _, flaws = _check(record, draft, number)
            found += [f"Question {number}: {flaw.message}." for flaw in flaws]
        return found

    versions = await ask(client, write_request(record, captions, count), _parse, flaws_of)
    examples, rejected = [], []
    for index, draft in enumerate(versions[0][:count]):
        example, flaws = _check(record, draft, index + 1)
        if flaws and len(versions) == 2 and index < len(versions[1]):
            draft = versions[1][index]
            example, flaws = _check(record, draft, index + 1)
        if example is None or flaws:
            rejected.append((draft, tuple(flaws)))
        else:
            examples.append(example)
    return Written(tuple(examples), tuple(rejected))


def make_example(record: ClipRecord, draft: Draft, number: int) -> Example:
    """The example of a draft. Its choices are put in an order drawn from their content: models like to write the
    right one first.

    Raises:
        InputError: question or choices cannot be used (empty, or a choice twice).
    """
    content = "\0".join((record.hash, draft.text, *sorted(draft.choices)))
    seed = hashlib.sha256(content.encode("utf-8", "surrogatepass")).digest()
    choices = sorted(draft.choices)
    random.Random(seed).shuffle(choices)
    known = {"clip": record.id, "source": record.source, "split": record.split, "hash": record.hash}
    question = Question(
        text=draft.text,
        choices=tuple(choices),
        audio=record.audio,
        id=f"{record.id}-llm-{number}",
        answer=draft.answer,
        metadata={**{name: value for name, value in known.items() if value}, "duration": record.duration},
    )
    response = f"<think>{draft.reasoning}</think><answer>{draft.answer}</answer>"
    return Example(question, response, kind="llm")


def _check(record: ClipRecord, draft: Draft, number: int) -> tuple[Example | None, list[Flaw]]:
    try:
        example = make_example(record, draft, number)
    except InputError as error:
        return None, [Flaw("choices", str(error))]
    return example, question_flaws(example, choices=CHOICES) + response_flaws(example, record.duration)


def _parse(value: dict[str, Any]) -> list[Draft]:
    return [
        Draft(
            " ".join(item["question"].split()),
            tuple(" ".join(choice.split()) for choice in item["choices"]),
            " ".join(item["answer"].split()),
            _unwrapped(item["reasoning"]),
        )
        for item in value["questions"]
    ]


def _unwrapped(reasoning: str) -> str:
    """The thinking alone: models that think in blocks themselves like to write the block as well."""
    match = _WRAPPED.fullmatch(reasoning)
    return " ".join((match[1] if match else reasoning).split())


def _focus(record: ClipRecord) -> str:
    """What to ask about. Clips with chords or beats get basic and expert questions in turns, by their content."""
    if record.music is None or not (record.music.chords or record.music.beats):
        return "focus-sound"
    return "focus-music-expert" if hashlib.sha256(record.hash.encode()).digest()[0] % 2 else "focus-music-basic"
