"""A real HTTP server for tests of the endpoint client: the stand-in, with faults on demand and an account of
everything that was asked and paid for."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from relisten.data.llm.stand_in import ChatHandler, StandInServer

Act = Callable[[ChatHandler, dict[str, Any]], None]


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    body: dict[str, Any]
    authorization: str
    idempotency_key: str


class LlmServer(StandInServer):
    """Runs in a thread while it is a context.

    `plan` decides on each request by its number (from 0): None answers as the stand-in does. `billed` counts whole
    replies by idempotency key: more than one means that something was paid for twice. With `idempotent` a key that
    was billed gets its reply again for nothing.
    """

    def __init__(
        self,
        plan: Callable[[int, dict[str, Any]], Act | None] = lambda number, body: None,
        *,
        careless: float = 0.0,
        seconds: float = 0.0,
        idempotent: bool = False,
    ) -> None:
        super().__init__(careless=careless, seconds=seconds)
        self.plan = plan
        self.seen: list[Seen] = []
        self.billed: Counter[str] = Counter()
        self.most_at_once = 0
        self.released = threading.Event()
        self._idempotent = idempotent
        self._at_once = 0
        self._lock = threading.Lock()

    def answer(self, handler: ChatHandler, body: dict[str, Any]) -> None:
        key = handler.headers.get("Idempotency-Key", "")
        with self._lock:
            number = len(self.seen)
            self.seen.append(Seen(body, handler.headers.get("Authorization", ""), key))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            act = self.plan(number, body)
            if act is not None:
                act(handler, body)
                return
            with self._lock:
                if not (self._idempotent and self.billed[key]):
                    self.billed[key] += 1
            super().answer(handler, body)
        finally:
            with self._lock:
                self._at_once -= 1

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is no error of the server."""

    def __enter__(self) -> LlmServer:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()


def status(code: int, message: str = "no", **headers: str) -> Act:
    """An error status; `Retry_After="2"` becomes a header."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, body: handler.send_json(code, {"error": {"message": message, "type": "test"}}, named)


def says(text: str, finish: str = "stop") -> Act:
    """A whole reply with this text."""
    return lambda handler, body: handler.send_reply(text, body, finish=finish)


def raw(content: bytes) -> Act:
    """Status 200 with any bytes."""
    return lambda handler, body: handler.send_bytes(200, content)


def hang(handler: ChatHandler, body: dict[str, Any]) -> None:
    """Never answer; the connection stays open until the server ends."""
    server = handler.server
    assert isinstance(server, LlmServer)
    server.released.wait(60)
    handler.close_connection = True


def cut(handler: ChatHandler, body: dict[str, Any]) -> None:
    """Break off in the middle of the reply, in whatever way it was asked for."""
    if body.get("stream"):
        handler.send_stream([{"choices": [{"index": 0, "delta": {"content": '{"descr'}}]}], done=False)
        return
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [{"mess')
    handler.close_connection = True
