"""Reading what an endpoint sends: one JSON object, or a stream of server-sent events. Retries are elsewhere."""

from __future__ import annotations

import json
import math
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx

LARGEST_REPLY: Final = 8 << 20
"""Bytes of one reply that are read; a stream that never ends stops here."""


class GarbledError(Exception):
    """What came is not a whole reply of the chat protocol. `text` is what had come of the answer by then."""

    def __init__(self, reason: str, text: str = "") -> None:
        super().__init__(reason)
        self.text = text


@dataclass
class Arrived:
    """A reply as far as it has come; token counts are None where the endpoint does not tell."""

    text: str = ""
    finish: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


async def read_whole(response: httpx.Response) -> Arrived:
    """The reply of a request that does not stream.

    Raises:
        GarbledError: it is not a chat completion.
    """
    data = _decoded(await read_text(response))
    arrived = Arrived()
    _take_usage(arrived, data)
    choice = _choice(data)
    if choice is None:
        raise GarbledError(f"no choice in the reply ({_error_text(data) or 'another shape'})")
    message = choice.get("message")
    if not isinstance(message, dict):
        raise GarbledError("no message in the reply")
    arrived.text = _text(message)
    arrived.finish = str(choice.get("finish_reason") or "stop")
    return arrived


async def read_stream(response: httpx.Response) -> Arrived:
    """The reply of a request that streams.

    Raises:
        GarbledError: the stream ended before the model did, carries an error, or is no chat stream.
    """
    arrived = Arrived()
    parts: list[str] = []
    try:
        async for data in _events(response):
            _take_usage(arrived, data)
            if error := _error_text(data):
                raise GarbledError(f"an error in the stream ({error})")
            choice = _choice(data)
            if choice is None:
                continue
            delta = choice.get("delta")
            parts.append(_text(delta) if isinstance(delta, dict) else "")
            arrived.finish = choice.get("finish_reason") or arrived.finish
    except GarbledError as error:
        raise GarbledError(str(error), "".join(parts)) from None
    except httpx.HTTPError as error:
        raise GarbledError(f"the stream broke off ({type(error).__name__})", "".join(parts)) from None
    arrived.text = "".join(parts)
    if arrived.finish is None:
        raise GarbledError("the stream ended before the reply did", arrived.text)
    return arrived


async def read_text(response: httpx.Response, most: int = LARGEST_REPLY) -> str:
    """The body as text, up to `most` bytes.

    Raises:
        GarbledError: there is more.
    """
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > most:
            raise GarbledError(f"the reply is longer than {most} bytes")
    return body.decode("utf-8", "replace")


def retry_after(headers: httpx.Headers) -> float | None:
    """Seconds that the endpoint asks to wait (`Retry-After`: a number or a date), None where it does not."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def error_message(body: str) -> tuple[str, str]:
    """(message, code) of an error body, whatever its shape; the message is one line of at most 300 characters."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    code = ""
    message = body
    if isinstance(data, dict):
        inner = data.get("error", data)
        if isinstance(inner, dict):
            code = str(inner.get("code") or inner.get("type") or "")
            message = str(inner.get("message") or inner.get("detail") or inner)
        else:
            message = str(inner)
    message = " ".join(message.split())
    return (message if len(message) <= 300 else f"{message[:297]}..."), code


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The decoded `data:` fields up to `[DONE]`; comments and other fields are passed over."""
    size = 0
    async for line in response.aiter_lines():
        size += len(line)
        if size > LARGEST_REPLY:
            raise GarbledError(f"the stream is longer than {LARGEST_REPLY} bytes")
        if not line.startswith("data:"):
            continue
        content = line.removeprefix("data:").strip()
        if content == "[DONE]":
            return
        yield _decoded(content)


def _decoded(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise GarbledError("the reply is not JSON") from None
    if not isinstance(data, dict):
        raise GarbledError(f"the reply is a JSON {type(data).__name__}, not an object")
    return data


def _choice(data: Mapping[str, Any]) -> dict[str, Any] | None:
    choices = data.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    return None


def _text(message: Mapping[str, Any]) -> str:
    """The answer's text; some endpoints send a list of parts. A lone surrogate could not be stored."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    if not isinstance(content, str):
        refusal = message.get("refusal")
        content = refusal if isinstance(refusal, str) else ""
    return content.encode("utf-8", "replace").decode("utf-8")


def _take_usage(arrived: Arrived, data: Mapping[str, Any]) -> None:
    usage = data.get("usage")
    if not isinstance(usage, dict):
        return
    for name in ("prompt_tokens", "completion_tokens"):
        value = usage.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            setattr(arrived, name, value)


def _error_text(data: Mapping[str, Any]) -> str:
    return error_message(json.dumps(data))[0] if data.get("error") else ""
