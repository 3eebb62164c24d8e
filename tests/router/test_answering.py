"""An answer comes by whatever route, and its trace says which, why, and what the tools told."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.policies import Scripted
from support.sounds import noise_clip
from support.tools import calls, extra_tools

from relisten import Finish, Format, InputError, Listener, Question, Trace
from relisten.engines.base import Engine, Stream
from relisten.engines.drive import Happening, Piece, answer
from relisten.engines.native import NativeEngine
from relisten.engines.scripted import ScriptedEngine
from relisten.models import Family, load
from relisten.protocol import FINDINGS_HEAD
from relisten.router.answering import Router
from relisten.router.head import Head, HeadPolicy, Reads
from relisten.router.routes import DIRECT, Route
from relisten.router.weights import weights_hash
from relisten.tools.cache import ToolCache
from relisten.trace import PromptSpan, Routing, Sampling

CLIP = noise_clip(4.0)
ASKED = Question("How long?", ("4 s", "9 s"), CLIP, "q")


@pytest.fixture(autouse=True)
def _tools() -> Iterator[None]:
    with extra_tools():
        yield


def read(question: Question) -> str:
    """Says what it was told, and listens once."""
    return f"<think><seg>1.0, 2.0</seg> so.</think><answer>{' | '.join(question.findings) or 'nothing'}</answer>"


@pytest.fixture
def engine() -> Iterator[Engine]:
    with_script = ScriptedEngine(read)
    yield with_script
    with_script.close()


def ask(router: Router, engine: Engine, question: Question = ASKED, **options: object) -> Trace:
    return asyncio.run(router.answer(engine, question, **options))  # type: ignore[arg-type]


def test_direct_is_the_answer_that_nobody_routed(engine: Engine) -> None:
    plain = asyncio.run(answer(engine, ASKED))
    for router in (
        Router(DIRECT),
        Router(Scripted(lambda _: "direct")),
        Router(Scripted(lambda _: "direct", looks=False)),
    ):
        trace = ask(router, engine)
        assert trace.routing is not None
        assert trace.routing.route == "direct"
        assert trace.routing.failures == ()
        assert replace(trace, routing=None, timings=plain.timings) == plain


def test_the_model_reads_what_tools_found_and_the_trace_says_where(engine: Engine) -> None:
    trace = ask(Router(Route(("length", "silence"))), engine)
    routing = trace.routing
    assert routing is not None
    assert routing.confidence is None
    assert trace.findings == ("[length] 4 s", "[silence] sound throughout, no silence")
    assert trace.answer == " | ".join(trace.findings)
    assert [report["text"] for report in routing.reports] == list(trace.findings)
    prompt = trace.spans[0]
    assert isinstance(prompt, PromptSpan)
    told = ["".join(map(chr, prompt.ids[start:stop])) for start, stop in prompt.findings]
    assert told == [f"\n{FINDINGS_HEAD}\n[length] 4 s", "\n[silence] sound throughout, no silence"]
    assert Trace.from_json(json.loads(json.dumps(trace.to_json()))) == trace


def test_a_policy_is_shown_the_prompt_before_the_tools_run(engine: Engine) -> None:
    policy = Scripted(lambda question: "length" if question.id == "q" else "direct")
    trace = ask(Router(policy), engine)
    other = ask(Router(policy), engine, replace(ASKED, id="r", text="What?"))
    first, second = policy.seen
    assert first is not None
    assert second is not None
    assert (first.last != second.last).any()
    assert (first.sound == second.sound).all()
    assert trace.routing is not None
    assert trace.routing.confidence == 0.75
    assert trace.routing.probabilities == {"length": 0.75, "other": 0.25}
    assert trace.routing.decision_seconds > 0
    assert trace.routing.tool_seconds > 0
    assert trace.timings.total > trace.routing.decision_seconds + trace.routing.tool_seconds
    assert (trace.answer, other.answer) == ("[length] 4 s", "nothing")


def test_findings_of_the_user_stay_in_front(engine: Engine) -> None:
    trace = ask(Router(Scripted(lambda _: "length")), engine, replace(ASKED, findings=("[ear] loud",)))
    assert trace.findings == ("[ear] loud", "[length] 4 s")


@pytest.mark.parametrize("looks", [True, False])
@pytest.mark.parametrize("tools", ["direct", "length"])
def test_a_route_without_listening_reasons_in_text(engine: Engine, looks: bool, tools: str) -> None:
    trace = ask(Router(Scripted(lambda _: f"{tools}/text", looks=looks)), engine)
    assert trace.format is Format.TEXT
    assert trace.listens == ()
    assert len(trace.findings) == (tools == "length")
    assert len(ask(Router(Route()), engine).listens) == 1
    assert ask(Router(Route()), engine, format=Format.GROUNDED).format is Format.GROUNDED


@pytest.mark.parametrize(
    ("route", "seconds", "said"),
    [
        ("ears", 4.0, "tool 'ears' is unknown"),
        ("absent", 4.0, "absent needs no_such_package: pip install no-such"),
        ("length", 6.0, "6 s of sound; length takes at most 5 s"),
        ("broken", 4.0, "ZeroDivisionError: two lines"),
        ("slow", 4.0, "not done within 0.05 s"),
        ("wordless", 4.0, "does not say how it reads"),
    ],
)
def test_a_tool_that_fails_is_told_and_the_answer_comes(
    engine: Engine, route: str, seconds: float, said: str
) -> None:
    trace = ask(Router(Route.parse(f"{route}+silence")), engine, replace(ASKED, audio=noise_clip(seconds)))
    assert trace.finish is Finish.ANSWER
    assert trace.routing is not None
    assert trace.routing.failures == (route,)
    assert trace.findings[0].startswith(f"[{route}] failed: ")
    assert said in trace.findings[0]
    assert trace.findings[1].startswith("[silence] sound throughout")


def test_an_endpoint_that_is_down_stops_no_answer(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    from relisten.tools.builtin import speech

    monkeypatch.setenv("RELISTEN_TRANSCRIPTION_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("RELISTEN_TRANSCRIPTION_MODEL", "ears")
    monkeypatch.setattr(speech, "_RETRIES", 0)
    trace = ask(Router(Route(("speech",))), engine)
    assert trace.finish is Finish.ANSWER
    assert trace.routing is not None
    assert trace.routing.failures == ("speech",)
    assert "http://127.0.0.1:9/v1" in trace.findings[0] or "httpx" in trace.findings[0]


def test_a_policy_that_cannot_decide_leaves_the_direct_answer(engine: Engine) -> None:
    trace = ask(Router(Scripted(lambda _: "?")), engine)
    assert trace.answer == "nothing"
    assert trace.routing is not None
    assert trace.routing.route == "direct"
    assert trace.routing.note == "the policy could not decide (no idea): direct"


@pytest.mark.parametrize(
    "choice", [Route(("length",)), Scripted(lambda _: "length"), Scripted(lambda _: "length/text")]
)
def test_findings_that_do_not_fit_are_left_out(choice: Route | Scripted) -> None:
    with_room = ScriptedEngine(lambda _: "<answer>a</answer>", max_context=170)
    trace = ask(Router(choice), with_room)
    assert trace.answer == "a"
    assert trace.findings == ()
    assert trace.routing is not None
    assert "does not fit the context window" in trace.routing.note
    assert trace.routing.reports[0]["text"] == "[length] 4 s"
    with pytest.raises(InputError, match="prompt tokens"):
        ask(Router(choice), with_room, replace(ASKED, text="long " * 100))


def test_a_model_that_breaks_fails_the_answer(untrained: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrained, "encode_audio", lambda *_: [][0])
    with NativeEngine(untrained) as broken:
        trace = ask(Router(Scripted(lambda _: "length")), broken)
        for _ in range(500):  # the engine's own thread takes the row away
            if broken.open_rows == 0:
                break
            time.sleep(0.01)
        assert broken.open_rows == 0
    assert trace.finish is Finish.FAILED
    assert "IndexError" in str(trace.error)


def test_an_engine_without_looks_is_refused_where_they_are_needed() -> None:
    class Blind(ScriptedEngine):
        def open(self, *args: object) -> Stream:  # type: ignore[override]
            stream = super().open(*args)  # type: ignore[arg-type]

            class Closed:
                prompt, full, timings = stream.prompt, False, stream.timings
                decode, listen, close = stream.decode, stream.listen, stream.close

            return Closed()

    assert ask(Router(Scripted(lambda _: "length", looks=False)), Blind(read)).answer == "[length] 4 s"
    engine = Blind(read)
    with pytest.raises(InputError, match="shows no hidden states"):
        ask(Router(Scripted(lambda _: "length")), engine)
    assert not engine._streams


def test_the_decision_and_the_findings_are_told_before_the_text(engine: Engine) -> None:
    told: list[Happening] = []
    trace = ask(Router(Scripted(lambda _: "length")), engine, on_event=told.append)
    decided, ran, *rest = told
    assert isinstance(decided, Routing)
    assert isinstance(ran, Routing)
    assert (decided.route, decided.reports) == ("length", ())
    assert ran == trace.routing
    assert "".join(piece.text for piece in rest if isinstance(piece, Piece)) == trace.text


def test_findings_are_kept_between_answers(engine: Engine, tmp_path: Path) -> None:
    with ToolCache(tmp_path / "tools.sqlite") as cache:
        router = Router(Route(("length",)), cache)
        first, second = ask(router, engine), ask(router, engine)
        assert first.routing is not None
        assert second.routing is not None
        assert [trace.reports[0]["cached"] for trace in (first.routing, second.routing)] == [False, True]
        assert len(calls) == 1


def test_every_way_of_asking_a_listener_is_routed() -> None:
    with Listener(ScriptedEngine(read), Router(Route(("length",)))) as listener:
        assert listener.ask(CLIP, "How long?").answer == "[length] 4 s"
        events = list(listener.stream(CLIP, "How long?"))
        assert isinstance(events[0], Routing)
        assert isinstance(events[-1], Trace)
        assert events[-1].answer == "[length] 4 s"
        bad = replace(ASKED, audio=None)
        traces = listener.ask_many([ASKED, bad, ASKED])
        assert [trace.answer for trace in traces] == ["[length] 4 s", None, "[length] 4 s"]
        assert asyncio.run(listener.answer(ASKED)).answer == "[length] 4 s"


@pytest.mark.parametrize("route", ["direct", "length", "length/text"])
def test_the_native_engine_answers_a_routed_question_to_the_token(untrained: Family, route: str) -> None:
    sampling = Sampling(temperature=1.0, seed=3, max_tokens=12)
    expected = replace(ASKED, findings=("[length] 4 s",) if route.startswith("length") else ())
    with NativeEngine(untrained) as engine:
        how = Route.parse(route).format(Format.INTERLEAVED)
        plain = asyncio.run(answer(engine, expected, format=how, sampling=sampling))
        for choice in (Route.parse(route), Scripted(lambda _: route), Scripted(lambda _: route, looks=False)):
            trace = ask(Router(choice), engine, sampling=sampling)
            assert trace.token_ids == plain.token_ids
            assert trace.spans[0] == plain.spans[0]
            assert trace.logprobs == pytest.approx(plain.logprobs, abs=1e-4)
        assert engine.open_rows <= 1
    prompt = plain.spans[0]
    assert isinstance(prompt, PromptSpan)
    texts = [decoded(untrained, prompt.ids[start:stop]) for start, stop in prompt.findings]
    assert texts == ([f"\n{FINDINGS_HEAD}\n[length] 4 s"] if expected.findings else [])


def test_another_format_than_the_one_looked_at_waits_for_no_slot_of_its_own(untrained: Family) -> None:
    with NativeEngine(untrained, max_rows=1) as engine:
        router = Router(Scripted(lambda _: "direct/text"))
        asked = [router.answer(engine, replace(ASKED, id=name), sampling=Sampling(max_tokens=3)) for name in "ab"]

        async def all_of_them() -> list[Trace]:
            return await asyncio.wait_for(asyncio.gather(*asked), 60)

        assert [trace.format for trace in asyncio.run(all_of_them())] == [Format.TEXT] * 2


def decoded(family: Family, ids: tuple[int, ...]) -> str:
    decoder = family.decoder()
    return "".join(map(decoder.push, ids)) + decoder.flush()


def test_a_listener_loads_a_saved_policy_and_refuses_one_of_another_model(
    tiny_folder: Path, untrained_folder: Path, tmp_path: Path
) -> None:
    routes = (DIRECT, Route(("length",)))
    family = load(tiny_folder)
    reasoner = weights_hash(family, exact=False)
    head = Head(family.lm_head.in_features, len(routes))
    head.outer.bias.data = torch.tensor([0.0, 2.0])
    HeadPolicy(routes, head, Reads((1,), ("last",)), reasoner=reasoner).save(tmp_path / "run" / "policy")
    options = {"router": tmp_path / "run", "tool_cache": tmp_path / "tools.sqlite", "device": "cpu"}
    with Listener.load(tiny_folder, **options) as listener:  # type: ignore[arg-type]
        trace = listener.ask(CLIP, "How long?", max_tokens=4)
        again = listener.ask(CLIP, "How long?", max_tokens=4)
    assert trace.routing is not None
    assert again.routing is not None
    assert trace.routing.route == "length"
    assert trace.routing.confidence == pytest.approx(1 / (1 + math.exp(-2)))
    assert trace.findings == ("[length] 4 s",)
    assert again.routing.reports[0]["cached"]
    assert again.token_ids == trace.token_ids
    with pytest.raises(InputError, match="hidden states of another model"):
        Listener.load(untrained_folder, **options)  # type: ignore[arg-type]
