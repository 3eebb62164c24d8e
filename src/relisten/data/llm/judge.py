"""Judging: is the question good, is the reasoning good (Echo, section 3.2)?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from relisten.data.examples import Example
from relisten.data.llm.facts import Captions, facts_text
from relisten.data.llm.prompts import load_prompt
from relisten.data.manifest import ClipRecord
from relisten.llm.chat import ChatRequest, Message
from relisten.llm.client import Client
from relisten.llm.structured import ask

SCHEMA: Final = {
    "type": "object",
    "properties": {
        "qa_problem": {"type": "string"},
        "qa_valid": {"type": "boolean"},
        "cot_problem": {"type": "string"},
        "cot_valid": {"type": "boolean"},
    },
    "required": ["qa_problem", "qa_valid", "cot_problem", "cot_valid"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Verdict:
    """The two yes or no, and what was found wrong in a few words."""

    qa_valid: bool
    cot_valid: bool
    qa_problem: str = ""
    cot_problem: str = ""


def judge_request(record: ClipRecord, captions: Captions | None, example: Example) -> ChatRequest:
    prompt = load_prompt("judge")
    question = example.question
    case = [
        facts_text(record, captions),
        f"Question: {question.text}",
        "Choices:",
        *(f"- {choice}" for choice in question.choices),
        f"Reference answer: {question.answer}",
        f"Thinking: {example.response or '(none)'}",
    ]
    messages = (Message("system", prompt.text), Message("user", "\n".join(case)))
    return ChatRequest("judge", prompt.version, messages, SCHEMA)


async def judge(client: Client, record: ClipRecord, captions: Captions | None, example: Example) -> Verdict:
    """The verdict on one example.

    Raises:
        EndpointError: none came, or none in the form asked for (`BadReplyError`).
    """
    return (await ask(client, judge_request(record, captions, example), _parse))[-1]


def _parse(value: dict[str, Any]) -> Verdict:
    qa, cot = (" ".join(value[name].split()) for name in ("qa_problem", "cot_problem"))
    return Verdict(value["qa_valid"], value["cot_valid"], qa, cot)
