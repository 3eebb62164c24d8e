"""A server that speaks the chat protocol and stands in for the models: to try the whole pipeline without paying.

    python -m relisten.data.llm.stand_in --port 8900

It hears nothing worth telling and writes by rule: it reads the timed events out of the prompt, asks about their
order and number, and judges by computing the answers anew. Now and then (`--careless`) it makes the mistakes of a
real writer: a wrong answer, a part cited where the sound is not, a broken tag.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import numpy as np
import soundfile

from relisten.data.llm.prompts import load_prompt

_EVENT: Final = re.compile(r"^- (\d+\.\d+) to (\d+\.\d+) s: (.+)$", re.MULTILINE)
_DURATION: Final = re.compile(r"^Duration: (\d+\.\d+) s$", re.MULTILINE)
_COUNT: Final = re.compile(r"How many times does (.+) start in the recording\?")
_CLAIM: Final = re.compile(r"<seg>([\d.]+), ([\d.]+)</seg> and hear ([^,]+) (?:start|begin)")
_OTHERS: Final = ("a whistle", "a door slam", "rain", "a car horn")
_CLEAR: Final = 0.3


@dataclass(frozen=True)
class _Event:
    onset: float
    offset: float
    label: str


class StandIn:
    """Answers to chat bodies. `careless` is the share of questions with a mistake."""

    def __init__(self, careless: float = 0.25) -> None:
        self.careless = careless

    def reply(self, body: dict[str, Any]) -> str:
        """The text of the answer to a request."""
        texts = [_text_of(message) for message in body["messages"]]
        system = texts[0]
        if system == load_prompt("caption").text:
            return json.dumps(_caption(body))
        facts = texts[1]
        if system == load_prompt("judge").text:
            return json.dumps(_judge(facts))
        wanted = re.search(r"Write (\d+) questions", system)
        count = int(wanted[1]) if wanted else 3
        return json.dumps({"questions": list(self._questions(facts, count, repairing=len(texts) > 2))})

    def _questions(self, facts: str, count: int, *, repairing: bool) -> Iterator[dict[str, Any]]:
        events = _events(facts)
        for number, item in enumerate(_possible(events, _duration(facts))):
            if number == count:
                return
            draw = hashlib.sha256(f"{number} {facts}".encode()).digest()
            if draw[0] < 256 * self.careless:
                _spoil(item, ("answer", "place", "tag", "tag for good")[draw[1] % 4], repairing=repairing)
            yield item


def _possible(events: Sequence[_Event], duration: float) -> Iterator[dict[str, Any]]:
    labels = list(dict.fromkeys(event.label for event in events))
    choices = [*labels, *(label for label in _OTHERS if label not in labels)][:4]
    if len(events) >= 2 and events[1].onset - events[0].onset >= _CLEAR:
        yield _question(
            "Which sound starts first in the recording?", events[0], "the first sound", choices, duration
        )
    if len(events) >= 2 and events[-1].onset - events[-2].onset >= _CLEAR:
        chosen = [events[-1].label, *(label for label in choices if label != events[-1].label)][:4]
        yield _question("Which sound starts last in the recording?", events[-1], "the last sound", chosen, duration)
    for label, number in Counter(event.label for event in events).most_common():
        heard = " and then ".join(
            f"<seg>{max(0.0, e.onset - 0.3):.1f}, {min(duration, e.onset + 1.0):.1f}</seg> and hear {label} start"
            for e in events
            if e.label == label
        )
        if number > 4:
            continue
        yield {
            "question": f"How many times does {label} start in the recording?",
            "choices": [_times(n) for n in range(max(1, number - 2), max(1, number - 2) + 4)],
            "answer": _times(number),
            "reasoning": f"I have to count {label}, so I play {heard}, which makes {_times(number)} in all and "
            "leaves nothing else of its kind in the rest of the recording.",
        }


def _question(text: str, event: _Event, what: str, choices: Sequence[str], duration: float) -> dict[str, Any]:
    start, end = max(0.0, event.onset - 0.4), min(duration, event.onset + 1.0)
    return {
        "question": text,
        "choices": list(choices),
        "answer": event.label,
        "reasoning": f"To tell {what} I go back to <seg>{start:.1f}, {end:.1f}</seg> and hear {event.label} start "
        f"at about {event.onset:.1f} seconds with nothing else of that kind near it, so it must be {event.label}.",
    }


def _spoil(item: dict[str, Any], mistake: str, *, repairing: bool) -> None:
    if mistake == "answer":
        item["answer"] = next(choice for choice in item["choices"] if choice != item["answer"])
    elif mistake == "place":
        item["reasoning"] = re.sub(r"<seg>[^<]*</seg>", "<seg>0.0, 0.3</seg>", item["reasoning"])
    elif mistake == "tag for good" or not repairing:
        item["reasoning"] = item["reasoning"].replace("</seg>", "", 1)


def _judge(facts: str) -> dict[str, Any]:
    events = _events(facts)
    asked = re.search(r"^Question: (.+)$", facts, re.MULTILINE)
    given = re.search(r"^Reference answer: (.+)$", facts, re.MULTILINE)
    thinking = facts.partition("Thinking: ")[2]
    right = _right_answer(asked[1] if asked else "", events)
    qa_valid = right is not None and given is not None and given[1] == right
    wrong = [
        label
        for start, end, label in _CLAIM.findall(thinking)
        if not any(e.label == label and float(start) <= e.onset <= float(end) for e in events)
    ]
    problem = f"{wrong[0]} does not start in the cited part" if wrong else "nothing"
    return {
        "qa_problem": "nothing" if qa_valid else f"the facts say {right}",
        "qa_valid": qa_valid,
        "cot_problem": problem if qa_valid else "it leads to another answer",
        "cot_valid": qa_valid and not wrong,
    }


def _right_answer(question: str, events: Sequence[_Event]) -> str | None:
    if counted := _COUNT.fullmatch(question):
        return _times(sum(event.label == counted[1] for event in events))
    if "first" in question and events:
        return events[0].label
    return events[-1].label if "last" in question and events else None


def _caption(body: dict[str, Any]) -> dict[str, Any]:
    """What can be told from the waveform alone."""
    sound = next(part for part in body["messages"][-1]["content"] if part["type"] == "input_audio")
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(sound["input_audio"]["data"])), dtype="float32")
    loudest = float(np.argmax(np.abs(samples)) / rate)
    text = f"A recording of {len(samples) / rate:.1f} seconds whose loudest sound comes at {loudest:.1f} seconds."
    return {"description": text, "speech": None, "music": None}


def _events(facts: str) -> list[_Event]:
    timed = facts.partition("Timed events:")[2].partition("Timed speech:")[0]
    return [_Event(float(start), float(end), label) for start, end, label in _EVENT.findall(timed)]


def _duration(facts: str) -> float:
    found = _DURATION.search(facts)
    return float(found[1]) if found else 10.0


def _times(number: int) -> str:
    return "one time" if number == 1 else f"{number} times"


def _text_of(message: dict[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


class StandInServer(ThreadingHTTPServer):
    """The stand-in behind HTTP; `seconds` is how long it thinks about each reply."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int = 0, *, careless: float = 0.25, seconds: float = 0.0) -> None:
        super().__init__(("127.0.0.1", port), ChatHandler)
        self.stand_in = StandIn(careless)
        self.seconds = seconds

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def answer(self, handler: ChatHandler, body: dict[str, Any]) -> None:
        """Answer one request; a subclass may do otherwise."""
        time.sleep(self.seconds)
        handler.send_reply(self.stand_in.reply(body), body)


class ChatHandler(BaseHTTPRequestHandler):
    """`POST /v1/chat/completions`, streaming or not."""

    protocol_version = "HTTP/1.1"
    server: StandInServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/v1/chat/completions":
            self.send_json(404, {"error": {"message": f"no such path: {self.path}", "type": "not_found"}})
            return
        try:
            self.server.answer(self, json.loads(body))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def send_json(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        self.send_bytes(status, json.dumps(content).encode(), headers)

    def send_bytes(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def send_reply(self, text: str, body: dict[str, Any], *, finish: str = "stop") -> None:
        """A whole reply, in the way the request asked for."""
        usage = {"prompt_tokens": _prompt_tokens(body), "completion_tokens": max(1, len(text) // 4)}
        if body.get("stream"):
            pieces = [text[at : at + 40] for at in range(0, len(text), 40)]
            self.send_stream(
                [_chunk(piece) for piece in pieces] + [_chunk("", finish), {"choices": [], "usage": usage}]
            )
            return
        message = {"role": "assistant", "content": text}
        choices = [{"index": 0, "message": message, "finish_reason": finish}]
        self.send_json(200, {"object": "chat.completion", "choices": choices, "usage": usage})

    def send_stream(self, events: Sequence[Any], *, done: bool = True) -> None:
        """Server-sent events; without `done` the connection ends before the stream does."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in events:
            self._write_chunk(f"data: {json.dumps(event)}\n\n".encode())
        if not done:
            self.close_connection = True
            return
        self._write_chunk(b"data: [DONE]\n\n")
        self._write_chunk(b"")

    def _write_chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: what goes on is the client's to tell."""


def _prompt_tokens(body: dict[str, Any]) -> int:
    """A token for four letters, and 25 for a second of sound (32,000 bytes, a third more in base64)."""
    letters = sum(len(_text_of(message)) for message in body["messages"])
    parts = [
        part for message in body["messages"] if isinstance(message["content"], list) for part in message["content"]
    ]
    sound = sum(len(part["input_audio"]["data"]) for part in parts if part["type"] == "input_audio")
    return letters // 4 + round(sound * 25 / (32_000 * 4 / 3))


def _chunk(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}]}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m relisten.data.llm.stand_in", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--port", type=int, default=8900)
    parser.add_argument("--careless", type=float, default=0.25, help="share of questions with a mistake")
    parser.add_argument("--seconds", type=float, default=0.0, help="how long each reply takes")
    options = parser.parse_args()
    with StandInServer(options.port, careless=options.careless, seconds=options.seconds) as server:
        print(f"standing in for all models at {server.url}; Ctrl-C ends it", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
