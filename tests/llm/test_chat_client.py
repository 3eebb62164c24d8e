"""The client against a real server: what is retried, what ends a request or the run, what it costs."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
from support.llm_server import Act, LlmServer, cut, hang, raw, says, status

from relisten.audio import Clip
from relisten.data.llm.caption import SCHEMA, caption_request
from relisten.errors import InputError
from relisten.llm.chat import AudioPart, ChatRequest, Message, Reply
from relisten.llm.client import ChatClient
from relisten.llm.endpoint import Endpoint, Output
from relisten.llm.errors import BudgetReachedError, EndpointError, StopRunError
from relisten.llm.limits import Budget
from relisten.llm.store import ReplyStore

Plan = Callable[[int, dict[str, Any]], Act | None]
GOOD = '{"description": "a bell", "speech": null, "music": null}'


def request(text: str = "hello") -> ChatRequest:
    return ChatRequest("caption", "test@1", (Message("user", text),), SCHEMA)


def first(*acts: Act) -> Plan:
    """These for the first requests, then a good reply."""
    return lambda number, body: acts[number] if number < len(acts) else says(GOOD)


def endpoint(server: LlmServer, **changes: Any) -> Endpoint:
    return Endpoint(server.url, "m", **{"timeout": 30.0, **changes})


async def ask(
    where: Endpoint, store: ReplyStore, *requests: ChatRequest, budget: Budget | None = None
) -> list[Reply | BaseException]:
    async with ChatClient(where, store, budget, backoff=0.01) as client:
        return await asyncio.gather(*(client.complete(r) for r in requests), return_exceptions=True)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(status(500), id="500"),
        pytest.param(status(503), id="503"),
        pytest.param(status(429), id="429"),
        pytest.param(raw(b"<html>bad gateway</html>"), id="not JSON"),
        pytest.param(raw(b"[1, 2]"), id="a list"),
        pytest.param(raw(b'{"object": "error", "message": "overloaded"}'), id="another shape"),
        pytest.param(raw(b'{"choices": [{"message": "text"}]}'), id="no message"),
        pytest.param(raw(b""), id="empty"),
        pytest.param(cut, id="cut"),
    ],
)
def test_what_may_pass_is_tried_again(store: ReplyStore, fault: Act, stream: bool) -> None:
    with LlmServer(first(fault, fault)) as server:
        (reply,) = asyncio.run(ask(endpoint(server, stream=stream), store, request()))
    assert isinstance(reply, Reply)
    assert reply.text == GOOD
    assert len(server.seen) == 3
    assert len({seen.idempotency_key for seen in server.seen}) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_hung_connection_times_out(store: ReplyStore, stream: bool) -> None:
    with LlmServer(first(hang)) as server:
        (reply,) = asyncio.run(ask(endpoint(server, timeout=1.0, stream=stream), store, request()))
    assert isinstance(reply, Reply)


def test_a_stream_that_drips_without_end_times_out(store: ReplyStore) -> None:
    def drip(handler: Any, body: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        for _ in range(2000):
            handler.wfile.write(b": still here\n\n")
            handler.wfile.flush()
            time.sleep(0.05)

    with LlmServer(first(drip)) as server:
        began = time.monotonic()
        (reply,) = asyncio.run(ask(endpoint(server, timeout=1.0, stream=True), store, request()))
    assert isinstance(reply, Reply)
    assert time.monotonic() - began < 60


def test_an_error_inside_a_stream_is_tried_again(store: ReplyStore) -> None:
    def broken(handler: Any, body: dict[str, Any]) -> None:
        handler.send_stream([{"error": {"message": "worker died", "code": 500}}])

    with LlmServer(first(broken)) as server:
        (reply,) = asyncio.run(ask(endpoint(server, stream=True), store, request()))
    assert isinstance(reply, Reply)


def test_streaming_and_whole_replies_are_the_same(store: ReplyStore, tmp_path: Path) -> None:
    text = GOOD.replace("bell", "béll " * 40)
    with LlmServer(first(*[says(text)] * 2)) as server, ReplyStore(tmp_path / "other") as other:
        (whole,) = asyncio.run(ask(endpoint(server), store, request()))
        (streamed,) = asyncio.run(ask(endpoint(server, stream=True), other, request()))
    assert isinstance(whole, Reply)
    assert isinstance(streamed, Reply)
    assert whole.text == streamed.text == text
    assert whole.completion_tokens == streamed.completion_tokens > 0


def test_retry_after_holds_every_request(store: ReplyStore) -> None:
    with LlmServer(first(status(429, Retry_After="0.6"))) as server:
        began = time.monotonic()
        asyncio.run(ask(endpoint(server, concurrency=1), store, request("a"), request("b")))
    assert 0.6 <= time.monotonic() - began < 60
    assert len(server.seen) == 3


@pytest.mark.parametrize("header", ["7200", "Fri, 31 Dec 2099 23:59:59 GMT"])
def test_a_pause_of_hours_ends_the_run(store: ReplyStore, header: str) -> None:
    with LlmServer(first(status(429, "daily limit", Retry_After=header))) as server:
        (error,) = asyncio.run(ask(endpoint(server), store, request()))
    assert isinstance(error, StopRunError)
    assert "daily limit" in str(error)


@pytest.mark.parametrize("header", ["soon", "nan", "-5", ""])
def test_a_strange_retry_after_is_passed_over(store: ReplyStore, header: str) -> None:
    with LlmServer(first(status(429, Retry_After=header))) as server:
        (reply,) = asyncio.run(ask(endpoint(server), store, request()))
    assert isinstance(reply, Reply)


def test_retries_end(store: ReplyStore) -> None:
    with LlmServer(lambda number, body: status(500, "out of memory")) as server:
        (error,) = asyncio.run(ask(endpoint(server, retries=2), store, request()))
    assert type(error) is EndpointError
    assert "out of memory" in str(error)
    assert len(server.seen) == 3


def test_an_endpoint_that_stays_down_ends_the_run(store: ReplyStore) -> None:
    with LlmServer(lambda number, body: status(502)) as server:
        where = endpoint(server, retries=0, concurrency=1)
        errors = asyncio.run(ask(where, store, *(request(str(n)) for n in range(5))))
    assert [type(error) for error in errors] == [EndpointError] * 4 + [StopRunError]


def test_nobody_listening(store: ReplyStore) -> None:
    (error,) = asyncio.run(ask(Endpoint("http://127.0.0.1:9/v1", "m", retries=1), store, request()))
    assert isinstance(error, EndpointError)
    assert "no connection" in str(error)
    assert store.lost() == {}


@pytest.mark.parametrize("code", [401, 402, 403, 404])
def test_refused_access_ends_the_run_at_once(store: ReplyStore, code: int) -> None:
    with LlmServer(first(status(code, "who are you"))) as server:
        (error,) = asyncio.run(ask(endpoint(server), store, request()))
    assert isinstance(error, StopRunError)
    assert "who are you" in str(error)
    assert len(server.seen) == 1


def test_a_used_up_account_ends_the_run(store: ReplyStore) -> None:
    def broke(handler: Any, body: dict[str, Any]) -> None:
        handler.send_json(429, {"error": {"message": "add credit", "code": "insufficient_quota"}})

    with LlmServer(first(broke)) as server:
        (error,) = asyncio.run(ask(endpoint(server), store, request()))
    assert isinstance(error, StopRunError)


def test_a_request_too_long_fails_alone(store: ReplyStore) -> None:
    def plan(number: int, body: dict[str, Any]) -> Act:
        long = body["messages"][0]["content"] == "long"
        return status(400, "context length exceeded") if long else says(GOOD)

    with LlmServer(plan) as server:
        bad, good = asyncio.run(ask(endpoint(server), store, request("long"), request("short")))
    assert isinstance(bad, EndpointError)
    assert not isinstance(bad, StopRunError)
    assert "context length exceeded" in str(bad)
    assert isinstance(good, Reply)


@pytest.mark.parametrize(
    ("taken", "sent"),
    [
        (("json_schema",), ["json_schema", "json_schema"]),
        (("json_object",), ["json_schema", "json_object", "json_object"]),
        ((), ["json_schema", "json_object", "text", "text"]),
    ],
)
def test_the_strictest_json_that_is_taken(store: ReplyStore, taken: tuple[str, ...], sent: list[str]) -> None:
    def kind(body: dict[str, Any]) -> str:
        return str(body.get("response_format", {"type": "text"})["type"])

    def plan(number: int, body: dict[str, Any]) -> Act:
        known = kind(body) in (*taken, "text")
        return says(GOOD) if known else status(400, "response_format is not supported")

    async def two() -> None:
        async with ChatClient(endpoint(server), store) as client:
            await client.complete(request("a"))
            await client.complete(request("b"))

    with LlmServer(plan) as server:
        asyncio.run(two())
    assert [kind(seen.body) for seen in server.seen] == sent


def test_a_way_of_asking_that_was_chosen_is_kept_to(store: ReplyStore) -> None:
    with LlmServer(lambda number, body: status(400, "no json_object here")) as server:
        where = endpoint(server, output=Output.JSON_OBJECT)
        (error,) = asyncio.run(ask(where, store, request()))
    assert "no json_object here" in str(error)
    assert len(server.seen) == 1


def test_half_a_character_is_sent_as_a_question_mark(store: ReplyStore) -> None:
    with LlmServer(lambda number, body: says(GOOD)) as server:
        (reply,) = asyncio.run(ask(endpoint(server), store, request("cut off \ud83d")))
    assert isinstance(reply, Reply)
    assert server.seen[0].body["messages"][0]["content"] == "cut off ?"


def test_sound_is_sent_as_wav(store: ReplyStore, tmp_path: Path) -> None:
    import numpy as np

    clip = Clip(np.sin(np.arange(8000, dtype=np.float32) / 5) / 2)
    with LlmServer() as server:
        sound = AudioPart(clip.hash, clip.duration, lambda: clip)
        (reply,) = asyncio.run(ask(endpoint(server), store, caption_request(sound)))
    assert isinstance(reply, Reply)
    part = server.seen[0].body["messages"][1]["content"][0]
    assert part["type"] == "input_audio"
    assert part["input_audio"]["format"] == "wav"
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(part["input_audio"]["data"])), dtype="float32")
    assert rate == 16000
    np.testing.assert_allclose(samples, clip.samples, atol=1 / 32767)


def test_a_repeat_costs_nothing_and_reads_no_sound(store: ReplyStore, tmp_path: Path) -> None:
    with LlmServer(lambda number, body: says(GOOD)) as server:
        asyncio.run(ask(endpoint(server), store, request()))
        store.close()
        with ReplyStore(store.path) as again:
            for changes in ({"stream": True}, {"output": Output.TEXT}, {"max_tokens": 99}):
                asyncio.run(ask(endpoint(server, **changes), again, request()))
        assert len(server.seen) == 1


@pytest.mark.parametrize("changes", [{"model": "n"}, {"temperature": 0.5}, {"extra": {"top_k": 3}}])
def test_what_decides_the_answer_makes_a_new_request(changes: dict[str, Any]) -> None:
    one = Endpoint("http://a/v1", "m")
    other = Endpoint(**{"url": "http://b/v1", "model": "m", **changes})
    assert request().key(one) != request().key(other)
    assert request().key(one) == request().key(Endpoint("http://b/v1", "m", key_env="X", stream=True))
    assert request("a").key(one) != request("b").key(one)


def test_the_same_request_at_the_same_time_is_sent_once(store: ReplyStore) -> None:
    with LlmServer(lambda number, body: says(GOOD), seconds=0.05) as server:
        replies = asyncio.run(ask(endpoint(server), store, *[request()] * 5))
    assert all(isinstance(reply, Reply) for reply in replies)
    assert len(server.seen) == 1


def test_a_reply_cut_at_the_limit_is_bought_again_only_when_it_may_be_longer(store: ReplyStore) -> None:
    with LlmServer(lambda number, body: says("{", "length")) as server:
        for most in (100, 100, 50, 200):
            asyncio.run(ask(endpoint(server, max_tokens=most), store, request()))
    assert len(server.seen) == 2
    assert store.lost()["caption"].requests == 1


def test_requests_at_once_are_limited(store: ReplyStore) -> None:
    with LlmServer(seconds=0.05) as server:
        server.plan = lambda number, body: None
        server.stand_in.reply = lambda body: GOOD  # type: ignore[method-assign]
        asyncio.run(ask(endpoint(server, concurrency=3), store, *(request(str(n)) for n in range(12))))
    assert server.most_at_once == 3


def test_requests_a_minute_are_limited(store: ReplyStore) -> None:
    with LlmServer(lambda number, body: says(GOOD)) as server:
        began = time.monotonic()
        where = endpoint(server, requests_per_minute=600)
        asyncio.run(ask(where, store, *(request(str(n)) for n in range(6))))
    assert 0.5 <= time.monotonic() - began < 60


def test_a_budget_is_never_passed(store: ReplyStore) -> None:
    with LlmServer(lambda number, body: says(GOOD)) as server:
        where = endpoint(server, input_price=1000.0, output_price=1000.0, max_tokens=100, concurrency=4)
        budget = Budget(0.5)
        results = asyncio.run(ask(where, store, *(request(str(n)) for n in range(30)), budget=budget))
    paid = [result for result in results if isinstance(result, Reply)]
    stopped = [result for result in results if isinstance(result, BudgetReachedError)]
    assert paid
    assert len(paid) + len(stopped) == 30
    assert 0.3 < budget.spent <= 0.5
    assert store.spent() == pytest.approx(budget.spent)
    assert len(server.seen) == len(paid)


def test_what_broke_off_counts_as_spent(store: ReplyStore) -> None:
    with LlmServer(first(cut)) as server:
        where = endpoint(server, input_price=1.0, output_price=1.0, stream=True)
        budget = Budget(1.0)
        asyncio.run(ask(where, store, request(), budget=budget))
    assert store.lost()["caption"].requests == 1
    assert store.lost()["caption"].cost > 0
    assert budget.spent == pytest.approx(store.spent())


def test_a_budget_needs_prices(store: ReplyStore) -> None:
    with pytest.raises(InputError, match="needs prices"):
        ChatClient(Endpoint("http://a/v1", "m"), store, Budget(1.0))


def test_a_closed_budget_ends_waiting_at_once(store: ReplyStore) -> None:
    async def run() -> Any:
        budget = Budget()
        asyncio.get_running_loop().call_later(0.2, budget.close, "enough")
        return await ask(endpoint(server), store, request(), budget=budget)

    with LlmServer(lambda number, body: status(429, Retry_After="300")) as server:
        began = time.monotonic()
        (error,) = asyncio.run(run())
    assert isinstance(error, StopRunError)
    assert str(error) == "enough"
    assert time.monotonic() - began < 60


def test_a_cancelled_caller_still_gets_its_reply_kept(store: ReplyStore) -> None:
    async def run() -> None:
        async with ChatClient(endpoint(server), store) as client:
            task = asyncio.create_task(client.complete(request()))
            while not server.seen:
                await asyncio.sleep(0.01)
            task.cancel()
            while not store.usage():
                await asyncio.sleep(0.01)

    with LlmServer(seconds=0.2) as server:
        server.stand_in.reply = lambda body: GOOD  # type: ignore[method-assign]
        asyncio.run(run())
    assert store.usage()["caption"].requests == 1


def test_a_full_disk_ends_the_run(store: ReplyStore) -> None:
    store._db.execute(f"PRAGMA max_page_count = {store._db.execute('PRAGMA page_count').fetchone()[0]}")
    with LlmServer(lambda number, body: says("long" * 10_000)) as server:
        (error,) = asyncio.run(ask(endpoint(server), store, request()))
    assert isinstance(error, StopRunError)
    assert "a reply cannot be kept (database or disk is full); free some space" in str(error)


def test_two_runs_do_not_share_a_store(store: ReplyStore) -> None:
    with pytest.raises(InputError, match="in use by another run"):
        ReplyStore(store.path)


def test_a_file_that_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes, and they must not be harmed" * 50)
    with pytest.raises(InputError, match="is not a store"):
        ReplyStore(path)
    assert path.read_text().startswith("these are my notes")


SECRET = "sk-very-secret-0123456789"


def test_the_key_is_sent_and_shows_up_nowhere(
    store: ReplyStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TEST_KEY", SECRET)

    def echo(handler: Any, body: dict[str, Any]) -> None:
        handler.send_reply(json.dumps({"headers": handler.headers["Authorization"]}), body)

    def reject(handler: Any, body: dict[str, Any]) -> None:
        handler.send_json(401, {"error": {"message": f"bad key {SECRET}"}})

    def fail(handler: Any, body: dict[str, Any]) -> None:
        handler.send_json(500, {"error": {"message": f"cannot forward {SECRET}"}})

    caplog.set_level(logging.DEBUG)
    waits: list[str] = []

    async def run(where: Endpoint, text: str) -> Any:
        async with ChatClient(where, store, backoff=0.01, on_wait=waits.append) as client:
            return await asyncio.gather(client.complete(request(text)), return_exceptions=True)

    with LlmServer(lambda number, body: (fail, echo, reject)[number]) as server:
        where = endpoint(server, key_env="TEST_KEY")
        (reply,) = asyncio.run(run(where, "a"))
        (error,) = asyncio.run(run(where, "b"))
    assert [seen.authorization for seen in server.seen] == [f"Bearer {SECRET}"] * 3
    assert all(said.startswith(where.url) for said in waits)
    store.close()
    everything = [repr(where), str(where), repr(reply), repr(error), str(error), *waits, caplog.text]
    everything += [path.read_bytes().decode("latin-1") for path in store.path.parent.iterdir()]
    assert "[TEST_KEY]" in reply.text
    assert all(SECRET not in text for text in everything)


def test_a_missing_or_broken_key_is_told_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    where = Endpoint("http://a/v1", "m", key_env="TEST_KEY")
    monkeypatch.delenv("TEST_KEY", raising=False)
    with pytest.raises(InputError, match="TEST_KEY is not set"):
        where.read_key()
    monkeypatch.setenv("TEST_KEY", f"{SECRET}\nX-Evil: 1")
    with pytest.raises(InputError) as error:
        where.read_key()
    assert SECRET not in str(error.value)
