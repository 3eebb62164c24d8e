"""What is said: any OpenAI-compatible transcription endpoint, or faster-whisper where it is installed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from relisten.audio import Clip
from relisten.errors import InputError
from relisten.protocol import Segment
from relisten.tools.finding import Finding
from relisten.tools.sections import cut
from relisten.tools.tool import Argument, ToolError, tool

if TYPE_CHECKING:
    from relisten.llm.endpoint import Endpoint

URL: Final = "RELISTEN_TRANSCRIPTION_URL"
MODEL: Final = "RELISTEN_TRANSCRIPTION_MODEL"
KEY: Final = "RELISTEN_TRANSCRIPTION_KEY_ENV"
"""Environment variables that say what arguments leave open; the last one holds the name of the key's variable."""
_TIMEOUT: Final = 60.0
_RETRIES: Final = 2
_PASSING: Final = (408, 409, 429, 500, 502, 503, 504)
_LARGEST_REPLY: Final = 1 << 20
_SHOWN: Final = 600
_HELP: Final = (
    f"speech: nothing transcribes; set {URL} and {MODEL} to an OpenAI-compatible endpoint "
    "(such as http://localhost:8000/v1), or pip install faster-whisper and set the model to a folder of its weights"
)


@dataclass(frozen=True)
class Speech(Finding):
    """`words` as transcribed, on one line; "" where nothing is said. `language` "" where nobody tells."""

    words: str
    language: str = ""

    def text(self) -> str:
        if not self.words:
            return "no speech"
        shown = self.words if len(self.words) <= _SHOWN else f"{self.words[: _SHOWN - 3]}..."
        return f'speech: "{shown}"'


def _complete(given: Mapping[str, Argument]) -> Mapping[str, Argument]:
    """Arguments left open come from the environment, so that a cache never mixes up findings of two models."""
    open_to = {"url": URL, "model": MODEL, "key_env": KEY}
    filled = {name: given[name] or os.environ.get(variable, "") for name, variable in open_to.items()}
    # A key belongs to the endpoint of its environment, and is not sent to another one.
    if given["url"] and given["url"] != os.environ.get(URL, ""):
        filled["key_env"] = given["key_env"]
    if filled["url"]:
        _endpoint(filled)  # a URL that carries a secret must not come as far as a result or a cache
    return {**given, **filled}


def _endpoint(given: Mapping[str, Argument]) -> Endpoint:
    """
    Raises:
        InputError: the URL, the model or the key's variable cannot be used.
    """
    from relisten.llm.endpoint import Endpoint

    url, model, key_env = (str(given[name]) for name in ("url", "model", "key_env"))
    return Endpoint(url, model, key_env, timeout=_TIMEOUT, retries=_RETRIES)


@tool(
    "speech",
    "what is said, word for word",
    max_duration=600,
    timeout=_TIMEOUT * (_RETRIES + 1) + 10,
    complete=_complete,
)
def speech(
    clip: Clip,
    window: Segment | None = None,
    *,
    url: str = "",
    model: str = "",
    key_env: str = "",
    language: str = "",
) -> Speech:
    """Transcribe. Nothing leaves the machine unless a URL is given, here or by `RELISTEN_TRANSCRIPTION_URL`.

    Args:
        url: up to and without `/audio/transcriptions`; "" uses faster-whisper.
        model: as the endpoint calls it; for faster-whisper a folder with weights in its format.
        key_env: name of the environment variable with the endpoint's key.
        language: as ISO 639-1 ("en"); "" leaves it to the model.

    Raises:
        ToolError: nothing is there to transcribe with, or it failed.
        InputError: the URL or the key's variable is not usable.
    """
    part = cut(clip, window)
    if not part.samples.any():
        return Speech("")
    if url:
        return _ask(_endpoint({"url": url, "model": model, "key_env": key_env}), Clip(part.samples), language)
    if model and find_spec("faster_whisper") is not None:
        return _whisper(model, Clip(part.samples), language)
    raise ToolError(_HELP)


def _ask(endpoint: Endpoint, clip: Clip, language: str) -> Speech:
    """One request, tried again for what may pass.

    Raises:
        ToolError: no transcription came.
    """
    try:
        import httpx
    except ModuleNotFoundError:
        raise ToolError('speech: asking an endpoint needs httpx: pip install "relisten[llm]"') from None
    from relisten.llm.chat import wav_bytes
    from relisten.llm.wire import error_message, retry_after

    key = endpoint.read_key()
    address = f"{endpoint.url.rstrip('/')}/audio/transcriptions"
    fields = {"model": endpoint.model, "response_format": "json", **({"language": language} if language else {})}
    sound = wav_bytes(clip)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    problem = ""
    with httpx.Client(headers=headers, timeout=httpx.Timeout(endpoint.timeout, connect=10.0)) as client:
        for attempt in range(endpoint.retries + 1):
            pause = min(8.0, 0.5 * 2**attempt)
            try:
                with client.stream(
                    "POST", address, data=fields, files={"file": ("sound.wav", sound, "audio/wav")}
                ) as reply:
                    body = _read(reply.iter_bytes())
                    if reply.status_code == 200:
                        return _parse(body)
                    # A proxy may echo what it was sent.
                    message = error_message(body)[0]
                    message = message.replace(key, "***") if key else message
                    problem = f"status {reply.status_code}: {message}"
                    if reply.status_code not in _PASSING:
                        break
                    pause = min(_TIMEOUT, retry_after(reply.headers) or pause)
            except httpx.HTTPError as error:
                problem = f"{type(error).__name__} ({error})" if str(error) else type(error).__name__
            if attempt < endpoint.retries:
                time.sleep(pause)
    raise ToolError(f"speech: {endpoint.url}, model {endpoint.model}: {problem}; check that it runs and its name")


def _read(chunks: Any) -> str:
    body = b""
    for chunk in chunks:
        body += chunk
        if len(body) > _LARGEST_REPLY:
            raise ToolError(f"speech: the endpoint's reply is longer than {_LARGEST_REPLY} bytes")
    return body.decode("utf-8", "replace")


def _parse(body: str) -> Speech:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict) or not isinstance(data.get("text"), str):
        raise ToolError("speech: the endpoint's reply is no transcription; check that the URL ends before /audio")
    told = data.get("language")
    return Speech(_line(data["text"]), told if isinstance(told, str) else "")


def _whisper(model: str, clip: Clip, language: str) -> Speech:
    """faster-whisper, from a folder: a name would make it fetch weights, and nothing is fetched here."""
    if not Path(model).is_dir():
        raise InputError(f"speech: {model!r} is no folder; give one with weights for faster-whisper, or a URL")
    from faster_whisper import WhisperModel

    segments, info = WhisperModel(model, device="auto", local_files_only=True).transcribe(
        clip.samples, language=language or None
    )
    return Speech(_line(" ".join(segment.text for segment in segments)), str(info.language))


def _line(text: str) -> str:
    """On one line; a lone surrogate could not be written anywhere."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
