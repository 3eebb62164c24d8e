"""Captioning: a model that hears the clip writes up to three sentences about it."""

from __future__ import annotations

from typing import Any, Final

from relisten.data.llm.facts import Captions
from relisten.data.llm.prompts import load_prompt
from relisten.llm.chat import AudioPart, ChatRequest, Message
from relisten.llm.client import Client
from relisten.llm.structured import ask

_OPTIONAL: Final = {"type": ["string", "null"]}
SCHEMA: Final = {
    "type": "object",
    "properties": {"description": {"type": "string", "minLength": 1}, "speech": _OPTIONAL, "music": _OPTIONAL},
    "required": ["description", "speech", "music"],
    "additionalProperties": False,
}
_NOTHING: Final = {"", "none", "null", "n/a", "no speech", "no music"}


def caption_request(sound: AudioPart) -> ChatRequest:
    prompt = load_prompt("caption")
    messages = (Message("system", prompt.text), Message("user", "This is the recording.", sound))
    return ChatRequest("caption", prompt.version, messages, SCHEMA)


async def caption(client: Client, sound: AudioPart) -> Captions:
    """Captions of one clip.

    Raises:
        EndpointError: none came, or none in the form asked for (`BadReplyError`).
    """
    return (await ask(client, caption_request(sound), _parse))[-1]


def _parse(value: dict[str, Any]) -> Captions:
    description, speech, music = (_sentence(value[name]) for name in ("description", "speech", "music"))
    return Captions(description or "", speech, music)


def _sentence(text: str | None) -> str | None:
    """One line; the words that models write in place of null are null."""
    line = " ".join((text or "").split())
    return None if line.lower().rstrip(".") in _NOTHING else line
