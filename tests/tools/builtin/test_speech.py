"""Transcription through an endpoint: a small server of our own says what was heard."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.sounds import noise_clip

from relisten.audio import Clip
from relisten.protocol import Segment
from relisten.tools.builtin import speech as module
from relisten.tools.builtin.speech import KEY, MODEL, URL, speech
from relisten.tools.cache import ToolCache
from relisten.tools.running import Failure, run_tool


class Server(ThreadingHTTPServer):
    """Answers with `replies` in turn, the last one for ever; keeps what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: list[tuple[int, bytes]] = [(200, b'{"text": " Hello\\n there. "}')]
        self.asked: list[tuple[str, str, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers.get("Authorization", ""), body))
        code, reply = self.server.replies.pop(0) if len(self.server.replies) > 1 else self.server.replies[0]
        self.send_response(code)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in (URL, MODEL, KEY):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


CLIP = noise_clip(2.0)


def test_a_window_is_sent_and_the_words_come_back_on_one_line(server: Server) -> None:
    found = speech(CLIP, Segment(0.5, 1.0), url=server.url, model="whisper", language="en")
    assert found.words == "Hello there."
    assert found.text() == 'speech: "Hello there."'
    (path, authorization, body) = server.asked[0]
    assert (path, authorization) == ("/v1/audio/transcriptions", "")
    assert b"whisper" in body
    assert b'name="language"' in body
    assert 16_000 < len(body) < 17_500  # half a second of 16-bit samples


def test_what_may_pass_is_tried_again(server: Server) -> None:
    server.replies = [(503, b"busy"), (429, b"slow down"), (200, b'{"text": "yes"}')]
    assert speech(CLIP, url=server.url, model="m").words == "yes"


@pytest.mark.parametrize(
    ("code", "reply", "asked", "said"),
    [
        (503, b"busy", 3, "status 503: busy"),
        (401, b'{"error": {"message": "bad key sk-secret-1"}}', 1, "status 401: bad key ***"),
        (200, b"<html>", 1, "is no transcription"),
        (200, b'{"text": 3}', 1, "is no transcription"),
        (200, b"x" * (2 << 20), 1, "longer than"),
    ],
)
def test_a_failing_endpoint_is_a_result(
    server: Server, monkeypatch: pytest.MonkeyPatch, code: int, reply: bytes, asked: int, said: str
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret-1")
    server.replies = [(code, reply)]
    report = run_tool("speech", CLIP, arguments={"url": server.url, "model": "m", "key_env": "MY_KEY"})
    assert report.failure is Failure.FAILED
    assert said in report.error
    assert "sk-secret-1" not in json.dumps(report.to_json())
    assert len(server.asked) == asked
    assert server.asked[0][1] == "Bearer sk-secret-1"


def test_an_endpoint_that_is_down(server: Server) -> None:
    server.shutdown()
    server.server_close()
    report = run_tool("speech", CLIP, arguments={"url": server.url, "model": "m"})
    assert report.failure is Failure.FAILED
    assert "ConnectError" in report.error


def test_nothing_to_transcribe_with_says_what_to_do(server: Server) -> None:
    report = run_tool("speech", CLIP)
    assert report.failure is Failure.FAILED
    assert URL in report.error
    assert server.asked == []


def test_a_url_without_a_model_or_with_a_secret(server: Server) -> None:
    assert "model's name is empty" in run_tool("speech", CLIP, arguments={"url": server.url}).error
    secret = server.url.replace("//", "//me:hidden@")
    report = run_tool("speech", CLIP, arguments={"url": secret, "model": "m"})
    assert report.failure is Failure.BAD_ARGUMENTS
    assert "hidden" not in json.dumps(report.to_json())


def test_the_environment_fills_in_and_is_part_of_the_key(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(URL, server.url)
    monkeypatch.setenv(MODEL, "one")
    with ToolCache(tmp_path / "c.sqlite") as cache:
        assert run_tool("speech", CLIP, cache=cache).finding is not None
        assert run_tool("speech", CLIP, cache=cache).cached
        monkeypatch.setenv(MODEL, "two")
        assert not run_tool("speech", CLIP, cache=cache).cached
    assert len(server.asked) == 2


def test_a_key_goes_to_its_own_endpoint_only(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret-1")
    monkeypatch.setenv(URL, "https://elsewhere.example/v1")
    monkeypatch.setenv(KEY, "MY_KEY")
    run_tool("speech", CLIP, arguments={"url": server.url, "model": "m"})
    assert server.asked[0][1] == ""


def test_silence_is_not_sent(server: Server) -> None:
    clip = Clip.from_samples(np.zeros(16_000, np.float32))
    assert speech(clip, url=server.url, model="m").text() == "no speech"
    assert server.asked == []
