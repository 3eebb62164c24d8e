"""What is sent to a chat endpoint and what comes back; the identity of a request."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import soundfile

from relisten.audio import SAMPLE_RATE, Clip
from relisten.llm.endpoint import Endpoint, Output

AUDIO_TOKENS_PER_SECOND: Final = 25.0
"""Assumed where a prompt's tokens are estimated; Qwen's audio tower makes so many."""
_CHARACTERS_PER_TOKEN: Final = 3.0
"""Fewer than English text has in any common tokenizer, so that estimates rather come out too high."""
_KEY_VERSION: Final = 1


@dataclass(frozen=True)
class AudioPart:
    """A clip inside a message. Known by its hash, and read only when it has to be sent."""

    hash: str
    duration: float
    load: Callable[[], Clip] = field(compare=False, repr=False)


@dataclass(frozen=True)
class Message:
    role: str
    text: str
    sound: AudioPart | None = None


@dataclass(frozen=True)
class ChatRequest:
    """One question to a model, with the form its answer must have."""

    step: str
    """"caption", "write" or "judge"; used in the ledger and for estimates."""
    version: str
    """Name and content hash of the prompt."""
    messages: tuple[Message, ...]
    schema: Mapping[str, Any]
    """JSON schema of the answer (the subset that `schema.validate` knows)."""

    def key(self, endpoint: Endpoint) -> str:
        """What makes two requests the same one: everything that decides the answer, and nothing else.

        The URL, the key, streaming, the longest reply and the way JSON is asked for are not in it: a whole reply
        stays paid for when the same model moves to another host or may write more.
        """
        content = {
            "key": _KEY_VERSION,
            "model": endpoint.model,
            "temperature": endpoint.temperature,
            "extra": dict(endpoint.extra),
            "version": self.version,
            "messages": [[m.role, m.text, m.sound.hash if m.sound else None] for m in self.messages],
            "schema": self.schema,
        }
        text = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def prompt_tokens(self) -> int:
        """An estimate that errs on the high side."""
        text = sum(len(message.text.encode("utf-8", "surrogatepass")) for message in self.messages)
        sound = sum(message.sound.duration for message in self.messages if message.sound)
        return int(text / _CHARACTERS_PER_TOKEN + sound * AUDIO_TOKENS_PER_SECOND) + 8 * len(self.messages)

    def body(self, endpoint: Endpoint, output: Output) -> dict[str, Any]:
        """The JSON body of the HTTP request; reads the sounds."""
        body: dict[str, Any] = {
            "model": endpoint.model,
            "messages": [{"role": message.role, "content": _content(message)} for message in self.messages],
            "max_tokens": endpoint.max_tokens,
        }
        if endpoint.temperature is not None:
            body["temperature"] = endpoint.temperature
        if output is Output.JSON_SCHEMA:
            form = {"name": self.step, "schema": self.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        elif output is Output.JSON_OBJECT:
            body["response_format"] = {"type": "json_object"}
        if endpoint.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        body |= endpoint.extra
        return {name: value for name, value in body.items() if value is not None}


@dataclass(frozen=True)
class Reply:
    """A whole answer of a model."""

    text: str
    finish: str
    """The endpoint's word for how it ended: "stop", "length", "content_filter", ..."""
    prompt_tokens: int
    completion_tokens: int


def _content(message: Message) -> str | list[dict[str, Any]]:
    text = message.text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate could not be sent
    if message.sound is None:
        return text
    sound = {"data": base64.b64encode(wav_bytes(message.sound.load())).decode("ascii"), "format": "wav"}
    return [{"type": "input_audio", "input_audio": sound}, {"type": "text", "text": text}]


def wav_bytes(clip: Clip) -> bytes:
    """The clip as a 16-bit wav file in memory."""
    buffer = io.BytesIO()
    soundfile.write(buffer, clip.samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
