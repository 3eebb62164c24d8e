"""vLLM's own server with our model and front end in it, asked over HTTP as by anybody's client."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.vllm import needs_vllm, torchvision

from relisten.audio import Clip, write_clip
from relisten.engines.drive import answer
from relisten.engines.native import NativeEngine
from relisten.engines.vllm import ENVIRONMENT
from relisten.models import load, locate
from relisten.protocol import Format, system_prompt, user_text
from relisten.question import Question
from relisten.trace import PromptSpan, Sampling

pytestmark = needs_vllm
DRUMS = Path(__file__).parents[2] / "examples" / "drums.flac"
OPTIONS = (
    "--dtype",
    "float32",
    "--enforce-eager",
    "--max-model-len",
    "1024",
    "--limit-mm-per-prompt",
    '{"audio": 8}',
)
SECONDS = 600  # to start in, on a machine that does other things, too


@pytest.fixture(scope="module", params=["whole", "thinker-only", "torchvision"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address; of echo-tiny as it is shipped, as a trainer writes a model without a talker, and as shipped
    where torchvision is found, so that vLLM's own class runs it, with our front end."""
    model = locate("echo-tiny")
    finds = torchvision(tmp_path_factory.mktemp("site")) if request.param == "torchvision" else {}
    if request.param == "thinker-only":
        model = tmp_path_factory.mktemp("thinker") / "echo-tiny"
        load("echo-tiny").save(model, whole=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # `vllm serve` is this module, but for the build for CPUs, whose command looks for a package named vllm.
    command = [sys.executable, "-W", "ignore", "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(model), "--served-model-name", "echo-tiny", *OPTIONS]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as written:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env={**ENVIRONMENT, "TORCH_COMPILE_DISABLE": "1", **os.environ, **finds},
            stdout=written,
            stderr=subprocess.STDOUT,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            began = time.monotonic()
            while not healthy(address):
                if process.poll() is not None or time.monotonic() - began > SECONDS:
                    pytest.fail(f"the server did not start:\n{log.read_text()[-4000:]}")
                time.sleep(0.5)
            yield address
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def chat(address: str, question: Question, sound: bytes) -> dict[str, Any]:
    """The reply to a question in text format, as the OpenAI API has it."""
    heard = {"data": base64.b64encode(sound).decode(), "format": "wav"}
    said = [{"type": "input_audio", "input_audio": heard}, {"type": "text", "text": user_text(question)}]
    body = {
        "model": "echo-tiny",
        "temperature": 0,
        "max_tokens": 200,
        "skip_special_tokens": False,  # the tags of a response are tokens of their own
        "messages": [
            {"role": "system", "content": system_prompt(Format.TEXT)},
            {"role": "user", "content": said},
        ],
    }
    request = urllib.request.Request(
        f"{address}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=SECONDS) as reply:
        found: dict[str, Any] = json.load(reply)
    return found


def test_a_sound_sent_to_the_server_is_heard_as_here(server: str, tmp_path: Path) -> None:
    for seconds in (8.0, 3.21):
        path = tmp_path / "drums.wav"
        write_clip(path, Clip.load(DRUMS).crop(0.0, seconds))
        question = Question("Which sound comes first?", ("kick", "snare", "clap"), Clip.load(path))
        reply = chat(server, question, path.read_bytes())
        with NativeEngine(load("echo-tiny", dtype="float32")) as native:
            own = asyncio.run(answer(native, question, format=Format.TEXT, sampling=Sampling(max_tokens=200)))
        prompt = own.spans[0]
        assert isinstance(prompt, PromptSpan)
        assert reply["choices"][0]["message"]["content"] == own.text
        assert reply["usage"]["prompt_tokens"] == len(prompt.ids)
        assert reply["usage"]["completion_tokens"] == len(own.logprobs)


def test_a_sound_too_short_to_be_heard_is_refused(server: str, tmp_path: Path) -> None:
    """In the words of our front end, so it is the one that hears."""
    path = tmp_path / "click.wav"
    write_clip(path, Clip.load(DRUMS).crop(0.0, 0.04))
    with pytest.raises(urllib.error.HTTPError) as refused:
        chat(server, Question("What is it?", (), Clip.load(path)), path.read_bytes())
    with refused.value as reply:
        assert reply.status == 400
        assert "too short to be heard; give at least 641 samples" in reply.read().decode()
