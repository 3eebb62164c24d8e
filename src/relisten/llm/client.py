"""`ChatClient`: one endpoint, asked side by side within its limits, nothing paid for twice."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol

import httpx

from relisten.errors import InputError
from relisten.llm import wire
from relisten.llm.chat import ChatRequest, Reply
from relisten.llm.endpoint import Endpoint, Output
from relisten.llm.errors import EndpointError, StopRunError
from relisten.llm.limits import Budget, Charge, Pace
from relisten.llm.store import ReplyStore

LONGEST_WAIT: Final = 900.0
"""Seconds; an endpoint that asks for a longer pause (a daily quota) ends the run instead."""
_LONGEST_BACKOFF: Final = 60.0
_DOWN_AFTER: Final = 5
"""Requests in a row that fail for good before the endpoint counts as down."""
_SECRET: Final = 8
"""Characters from which on a key is one worth hiding; local servers are content with "EMPTY"."""
_BAD_BODY: Final = (400, 415, 422, 501)
"""What endpoints answer to a `response_format` they do not know."""


class Client(Protocol):
    """Whoever answers requests: an endpoint, or in a dry run only the store."""

    @property
    def endpoint(self) -> Endpoint: ...

    async def complete(self, request: ChatRequest) -> Reply: ...


@dataclass
class Counts:
    """What happened at one endpoint in this run."""

    paid: int = 0
    """Replies that were bought."""
    stored: int = 0
    """Replies that were there already."""
    retries: int = 0


class _AgainError(Exception):
    """Worth another try. `wait` is what the endpoint asked for; `partial` is not None where it may have charged."""

    def __init__(self, reason: str, *, wait: float | None = None, partial: str | None = None) -> None:
        super().__init__(reason)
        self.wait = wait
        self.partial = partial


class _BodyRefusedError(EndpointError):
    """The request itself was not taken; perhaps only the way in which it asks for JSON."""


class ChatClient:
    """Asks one endpoint. Any number of tasks of one event loop may ask at once.

    Every reply is kept in the store before it is returned. The key is read from the environment when the client is
    made; it is sent as the `Authorization` header, and taken out of everything the endpoint says.

    Args:
        backoff: seconds before the first retry (at most: the wait is drawn from 0 to this, doubling each time).
        on_wait: told why a request is tried again.

    Raises:
        InputError: the key's variable is not set, or there is a budget without prices.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        store: ReplyStore,
        budget: Budget | None = None,
        *,
        backoff: float = 1.0,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.counts = Counts()
        self._key = endpoint.read_key()
        self._store = store
        self._budget = budget or Budget()
        if self._budget.limit is not None and not endpoint.priced:
            raise InputError(
                f"a budget needs prices: {endpoint.url} has none; give the dollars for a million prompt "
                "and reply tokens of every endpoint"
            )
        self._backoff = backoff
        self._on_wait = on_wait
        self._slots = asyncio.Semaphore(endpoint.concurrency)
        self._pace = Pace(endpoint.requests_per_minute, self._budget)
        self._under_way: dict[str, asyncio.Task[Reply]] = {}
        self._output = endpoint.output
        self._failed_in_a_row = 0
        self._http: httpx.AsyncClient | None = None

    async def __aenter__(self) -> ChatClient:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        seconds = self.endpoint.timeout
        self._http = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(seconds, connect=min(seconds, 20.0), pool=None),
            limits=httpx.Limits(max_connections=self.endpoint.concurrency),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def complete(self, request: ChatRequest) -> Reply:
        """The answer to a request: from the store, else from the endpoint.

        Raises:
            EndpointError: this request failed for good.
            StopRunError: so would all others.
            InputError: a sound of the request cannot be read.
        """
        key = request.key(self.endpoint)
        stored = self._store.get(key, self.endpoint.max_tokens)
        if stored is not None:
            self.counts.stored += 1
            return stored
        # The same request twice at the same time (one clip listed twice) is sent once.
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(self._buy(key, request))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._finished(key, done))
        # Whoever waits may be cancelled; what is being paid for is still brought home.
        return await asyncio.shield(task)

    def _finished(self, key: str, task: asyncio.Task[Reply]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # taken note of, also where nobody waits any more

    async def _buy(self, key: str, request: ChatRequest) -> Reply:
        most = self.endpoint.cost(request.prompt_tokens(), self.endpoint.max_tokens)
        attempt = 0
        async with self._slots:
            while True:
                await self._pace.wait()
                try:
                    async with self._budget.charge(most) as charge:
                        return await self._send(key, request, charge)
                except _AgainError as error:
                    await self._before_retry(error, attempt)
                attempt += 1

    async def _before_retry(self, error: _AgainError, attempt: int) -> None:
        """Sleep before the next try, or raise where there is none."""
        where = f"{self.endpoint.url}, model {self.endpoint.model}"
        if error.wait is not None and error.wait > LONGEST_WAIT:
            raise StopRunError(
                f"{where} asks to wait {error.wait:.0f} s ({error}); run again then, nothing is lost"
            )
        if attempt == self.endpoint.retries:
            self._failed_in_a_row += 1
            message = f"{where}: {error}, after {attempt + 1} tries"
            if self._failed_in_a_row >= _DOWN_AFTER:
                raise StopRunError(
                    f"{message}; {_DOWN_AFTER} requests in a row failed, the endpoint seems to be down"
                )
            raise EndpointError(message)
        self.counts.retries += 1
        pause = random.uniform(0, min(_LONGEST_BACKOFF, self._backoff * 2**attempt))
        if error.wait is not None:
            self._pace.hold(error.wait)
        if self._on_wait is not None:
            self._on_wait(f"{where}: {error}; trying again")
        await self._budget.sleep(pause)

    async def _send(self, key: str, request: ChatRequest, charge: Charge) -> Reply:
        """One request, in the strictest way of asking for JSON that the endpoint takes: the first that brings a
        reply is kept to."""
        if self._output is not Output.AUTO:
            return await self._send_as(self._output, key, request, charge)
        for output in (Output.JSON_SCHEMA, Output.JSON_OBJECT):
            with suppress(_BodyRefusedError):
                return await self._send_as(output, key, request, charge)
        return await self._send_as(Output.TEXT, key, request, charge)

    async def _send_as(self, output: Output, key: str, request: ChatRequest, charge: Charge) -> Reply:
        """One HTTP request; what came of it, good or bad, is in the store and in the charge afterwards."""
        body = await asyncio.to_thread(request.body, self.endpoint, output)
        try:
            async with asyncio.timeout(self.endpoint.timeout):
                reply = await self._post(key, request, body)
        except TimeoutError:
            error = _AgainError(f"no whole reply within {self.endpoint.timeout:g} s", partial="")
            self._note_lost(key, request, error, charge)
            raise error from None
        except _AgainError as error:
            self._note_lost(key, request, error, charge)
            raise
        charge.cost = self.endpoint.cost(reply.prompt_tokens, reply.completion_tokens)
        self._store.put(key, request.step, self.endpoint.model, self.endpoint.max_tokens, reply, charge.cost)
        self._output = output
        self._failed_in_a_row = 0
        self.counts.paid += 1
        return reply

    async def _post(self, key: str, request: ChatRequest, body: dict[str, object]) -> Reply:
        if self._http is None:
            raise RuntimeError("use the client as `async with ChatClient(...) as client`")
        url = f"{self.endpoint.url.rstrip('/')}/chat/completions"
        headers = {"Idempotency-Key": f"{key[:48]}-{self.endpoint.max_tokens}"}
        try:
            async with self._http.stream("POST", url, json=body, headers=headers) as response:
                if response.status_code != 200:
                    text = self._scrub(await wire.read_text(response))
                    raise self._refused(response.status_code, wire.retry_after(response.headers), text)
                stream = response.headers.get("content-type", "").startswith("text/event-stream")
                arrived = await (wire.read_stream(response) if stream else wire.read_whole(response))
        except httpx.ConnectError:
            raise _AgainError("no connection") from None
        except httpx.HTTPError as error:
            raise _AgainError(f"the connection broke ({type(error).__name__})", partial="") from None
        except wire.GarbledError as error:
            raise _AgainError(self._scrub(str(error)), partial=error.text) from None
        prompt, completion = arrived.prompt_tokens, arrived.completion_tokens
        return Reply(
            text=self._scrub(arrived.text),
            finish=arrived.finish or "stop",
            prompt_tokens=request.prompt_tokens() if prompt is None else prompt,
            completion_tokens=_tokens(arrived.text) if completion is None else completion,
        )

    def _refused(self, status: int, wait: float | None, body: str) -> Exception:
        """What an error status means."""
        message, code = wire.error_message(body)
        said = f"{status} {code}: {message}" if code else f"{status}: {message}"
        where = f"{self.endpoint.url}, model {self.endpoint.model}"
        if status == 429 and "insufficient_quota" not in code:
            return _AgainError(f"rate limit ({said})", wait=wait)
        if status in (408, 409, 425) or status >= 500:
            return _AgainError(f"the endpoint failed ({said})", wait=wait)
        if status in (401, 402, 403, 429):
            remedy = f"the key in {self.endpoint.key_env}" if self.endpoint.key_env else "whether it needs a key"
            return StopRunError(f"{where}: access denied ({said}); check {remedy}")
        if status in (404, 405) or 300 <= status < 400:
            return StopRunError(f"{where}: not there ({said}); check the URL and the model's name")
        kind = _BodyRefusedError if status in _BAD_BODY else EndpointError
        return kind(f"{where}: refused the request ({said})")

    def _note_lost(self, key: str, request: ChatRequest, error: _AgainError, charge: Charge) -> None:
        """A request that broke off after it was sent may have been charged: count what it would have cost."""
        if error.partial is None:
            return
        prompt, completion = request.prompt_tokens(), _tokens(error.partial)
        charge.cost = self.endpoint.cost(prompt, completion)
        self._store.lose(key, request.step, str(error), prompt, completion, charge.cost)

    def _scrub(self, text: str) -> str:
        return text.replace(self._key, f"[{self.endpoint.key_env}]") if len(self._key) >= _SECRET else text


def _tokens(text: str) -> int:
    return math.ceil(len(text.encode("utf-8", "replace")) / 3)
