"""The whole way from a manifest to SFT and RL rows, through a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.labelled_set import make_record
from support.llm_server import Act, LlmServer, says, status

from relisten.audio import Clip, write_clip
from relisten.data.llm.pipeline import ClipResult, Crew, rejudge, synthesize
from relisten.data.llm.prompts import load_prompt
from relisten.data.manifest import Chord, ClipRecord, LabelledEvent, Music, Turn
from relisten.data.structure import response_flaws
from relisten.errors import InputError
from relisten.llm.client import ChatClient
from relisten.llm.endpoint import Endpoint, Output
from relisten.llm.errors import StopRunError
from relisten.llm.limits import Budget
from relisten.llm.store import ReplyStore


def run(
    server: LlmServer, store: ReplyStore, records: list[ClipRecord | InputError], count: int = 3, **changes: Any
) -> list[ClipResult]:
    async def all_results() -> list[ClipResult]:
        budget = changes.pop("budget", None) or Budget()
        where = Endpoint(server.url, "m", timeout=60, **changes)
        async with ChatClient(where, store, budget, backoff=0.01) as client:
            return [
                result async for result in synthesize(records, Crew(client, client, client), budget, count=count)
            ]

    return asyncio.run(all_results())


@pytest.fixture
def records(tmp_path: Path) -> list[ClipRecord]:
    return [make_record(tmp_path, number) for number in range(10)]


def step(body: dict[str, Any]) -> str:
    system = body["messages"][0]["content"]
    if system == load_prompt("caption").text:
        return "caption"
    return "judge" if system == load_prompt("judge").text else "write"


def on(name: str, act: Callable[[dict[str, Any]], Act | None]) -> Callable[[int, dict[str, Any]], Act | None]:
    """Do something else for one step."""
    return lambda number, body: act(body) if step(body) == name else None


def draft(**changes: Any) -> dict[str, Any]:
    item = {
        "question": "Which sound comes first?",
        "choices": ["Dog", "Bell", "Speech", "Door"],
        "answer": "Dog",
        "reasoning": "To find the first sound I play <seg>0.0, 1.5</seg> and hear a dog bark, so it is the dog.",
    }
    return item | changes


def questions(*items: dict[str, Any]) -> Act:
    return says(json.dumps({"questions": list(items)}))


def verdict(qa: bool, cot: bool) -> Act:
    return says(json.dumps({"qa_problem": "q", "qa_valid": qa, "cot_problem": "c", "cot_valid": cot}))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("output", list(Output))
def test_a_set_goes_through(store: ReplyStore, records: list[Any], stream: bool, output: Output) -> None:
    with LlmServer() as server:
        results = run(server, store, records[:4], stream=stream, output=output)
    assert [result.clip for result in results] == [record.id for record in records[:4]]
    examples = [example for result in results for example in result.sft]
    assert len(examples) == 12
    assert all(not response_flaws(example, 6.0) for example in examples)
    assert examples[0].question.metadata["source"] == "tape-0"
    assert sum(step(seen.body) == "caption" for seen in server.seen) == 4


@pytest.mark.parametrize(
    ("qa", "cot", "where"),
    [(True, True, "sft"), (True, False, "rl"), (False, True, "none"), (False, False, "none")],
)
def test_verdicts_decide(store: ReplyStore, records: list[Any], qa: bool, cot: bool, where: str) -> None:
    with LlmServer(on("judge", lambda body: verdict(qa, cot))) as server:
        (result,) = run(server, store, records[:1])
    assert (len(result.sft), len(result.rl)) == {"sft": (3, 0), "rl": (0, 3), "none": (0, 0)}[where]
    assert {item.reason for item in result.discarded} == ({"qa_invalid"} if where == "none" else set())
    assert all(example.response == "" for example in result.rl)
    assert all(example.question.metadata["cot_problem"] == "c" for example in result.rl)


def test_flaws_are_repaired_once_and_only_where_they_are(store: ReplyStore, records: list[Any]) -> None:
    good = draft(question="Which one is last?")
    bad = draft(reasoning="It is the dog.")
    mended = draft(question="Which sound comes first of all?")

    def write(body: dict[str, Any]) -> Act:
        if len(body["messages"]) == 2:
            return questions(bad, good)
        faults = body["messages"][3]["content"]
        assert "Question 1: no part is cited" in faults
        assert "Question 2" not in faults
        return questions(mended, draft(question="Never taken?"))

    with LlmServer(lambda n, body: write(body) if step(body) == "write" else _yes(body)) as server:
        (result,) = run(server, store, records[:1], count=2)
    assert [example.question.text for example in result.sft] == [
        "Which sound comes first of all?",
        good["question"],
    ]
    assert not result.discarded


def _yes(body: dict[str, Any]) -> Act | None:
    return verdict(True, True) if step(body) == "judge" else None


@pytest.mark.parametrize(
    ("changes", "flaw"),
    [
        ({"reasoning": "It is the dog, I am sure."}, "tag"),
        ({"reasoning": "To see I play <seg>0.0, 1.5</seg> and hear it, then <seg>2.0"}, "tag"),
        ({"reasoning": "To see I play <seg>5.0, 9.0</seg> and hear a dog bark."}, "outside"),
        ({"reasoning": "To see I play <seg>7.0, 9.0</seg> and hear a dog bark."}, "tag"),
        ({"reasoning": "To see I play <seg>2.0, 1.0</seg> and hear a dog bark."}, "tag"),
        ({"reasoning": "To see I play <seg>1.0, 1.1</seg> and hear a dog bark."}, "tag"),
        ({"reasoning": "To see I play <seg>one, two</seg> and hear a dog bark."}, "tag"),
        ({"reasoning": "<seg>0.0, 1.5</seg> and hear a dog bark in it."}, "reason"),
        ({"reasoning": "To see I play <seg>0.0, 1.5</seg> dog."}, "analysis"),
        ({"reasoning": "To see I play <seg>0.0, 1.5</seg> The dog barks twice."}, "sentence"),
        ({"reasoning": "To see I play <seg>0.0, 1.5</seg>. The dog barks twice."}, "sentence"),
        ({"reasoning": "To see I play <seg>0.0, 1.5</seg> and hear a dog</think><think> as before."}, "blocks"),
        ({"reasoning": "To see I play <seg>0.0, 1.5</seg> and, as the metadata says, a dog."}, "source"),
        ({"reasoning": "To see I play <seg>0.0, 1.5</seg> and hear option B in it."}, "source"),
        ({"answer": "Cat"}, "answer"),
        ({"answer": "dog"}, "answer"),
        ({"choices": ["Dog", "Bell", "Door"]}, "choices"),
        ({"choices": ["Dog", "dog", "Bell", "Door"]}, "choices"),
        ({"choices": ["Dog", "Dog", "Bell", "Door"]}, "choices"),
        ({"choices": ["A. Dog", "B. Bell", "C. Door", "D. Cat"], "answer": "A. Dog"}, "choices"),
        ({"question": "What does the caption say comes first?"}, "source"),
    ],
)
def test_what_is_not_built_right_is_never_judged(
    store: ReplyStore, records: list[Any], changes: dict[str, Any], flaw: str
) -> None:
    with LlmServer(on("write", lambda body: questions(draft(**changes)))) as server:
        (result,) = run(server, store, records[:1])
    assert [item.reason for item in result.discarded] == ["structure"]
    assert result.discarded[0].detail.startswith(flaw)
    assert [step(seen.body) for seen in server.seen] == ["caption", "write", "write"]


def test_a_writer_that_writes_the_block_itself_is_understood(store: ReplyStore, records: list[Any]) -> None:
    wrapped = draft(reasoning=f"<think>{draft()['reasoning']}</think><answer>Dog</answer>")
    plan = {"write": questions(wrapped), "judge": verdict(True, True)}
    with LlmServer(lambda number, body: plan.get(step(body))) as server:
        (result,) = run(server, store, records[:1])
    assert result.sft[0].response.count("<think>") == 1


def test_thinking_around_the_json_is_passed_over(store: ReplyStore, records: list[Any]) -> None:
    text = json.dumps({"questions": [draft()]})
    noisy = f'<think>I could write {{"questions": []}} but no</think>\nHere it is:\n```json\n{text}\n```\nDone.'
    plan = {"write": says(noisy), "judge": verdict(True, True)}
    with LlmServer(lambda number, body: plan.get(step(body))) as server:
        (result,) = run(server, store, records[:1])
    assert len(result.sft) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot do that.",
        '{"questions": ',
        '{"questions": {}}',
        '{"questions": []}',
        '{"items": [1]}',
        "[]",
        "{" * 5000,
        '{"questions": [{"question": "a", "choices": "b", "answer": "c", "reasoning": "d"}]}',
    ],
)
def test_no_form_even_after_a_repair(store: ReplyStore, records: list[Any], text: str) -> None:
    with LlmServer(on("write", lambda body: says(text))) as server:
        first = run(server, store, records[:1])
        again = run(server, store, records[:1])
    assert [item.reason for item in first[0].discarded] == ["no_questions"]
    assert again == first
    assert len(server.seen) == 3


@pytest.mark.parametrize(("name", "reason"), [("caption", "no_caption"), ("judge", "no_verdict")])
def test_other_steps_without_form(store: ReplyStore, records: list[Any], name: str, reason: str) -> None:
    with LlmServer(on(name, lambda body: says("no"))) as server:
        (result,) = run(server, store, records[:1])
    assert {item.reason for item in result.discarded} == {reason}


def test_the_words_for_nothing_are_nothing(store: ReplyStore, records: list[Any]) -> None:
    text = json.dumps({"description": "A  dog.\n", "speech": "None.", "music": ""})
    with LlmServer(on("caption", lambda body: says(text))) as server:
        (result,) = run(server, store, records[:1])
    assert result.captions is not None
    assert (result.captions.description, result.captions.speech, result.captions.music) == ("A dog.", None, None)


def test_half_a_character_never_reaches_a_file(store: ReplyStore, records: list[Any]) -> None:
    def half(handler: Any, body: dict[str, Any]) -> None:
        handler.send_bytes(200, b'{"choices": [{"message": {"content": "{\\"description\\": \\"\\ud800\\"}"}}]}')

    escaped = says('{"description": "\\ud800", "speech": null, "music": null}')
    for act in (half, escaped):
        with LlmServer(on("caption", lambda body, act=act: act)) as server:  # type: ignore[misc]
            (result,) = run(server, store, records[:1])
        assert result.discarded[0].detail.encode()


def test_the_same_question_twice_is_dropped(store: ReplyStore, records: list[Any]) -> None:
    plan = {
        "write": questions(draft(), draft(question="which sound comes FIRST")),
        "judge": verdict(True, True),
    }
    with LlmServer(lambda number, body: plan.get(step(body))) as server:
        (result,) = run(server, store, records[:1])
    assert len(result.sft) == 1
    assert [item.reason for item in result.discarded] == ["duplicate"]


def test_clips_without_timed_labels_cost_nothing(store: ReplyStore, records: list[Any]) -> None:
    with LlmServer() as server:
        results = run(server, store, [replace(records[0], events=()), replace(records[1], events=None)])
    assert [item.reason for result in results for item in result.discarded] == ["no_labels"] * 2
    assert not server.seen


def test_one_bad_clip_stops_nothing(store: ReplyStore, records: list[Any], tmp_path: Path) -> None:
    write_clip(tmp_path / "other.wav", Clip.load(records[3].audio).crop(0, 5))
    rows: list[Any] = [
        InputError("manifest.jsonl:1: is not JSON"),
        replace(records[0], audio=tmp_path / "missing.wav"),
        replace(records[1], audio=tmp_path / "other.wav"),
        records[2],
    ]
    with LlmServer() as server:
        results = run(server, store, rows)
    assert "is not JSON" in results[0].error
    assert "no such file" in results[1].error
    assert "is not the sound" in results[2].error
    assert len(results[3].sft) == 3


def test_a_clip_whose_request_is_refused_is_left_for_the_next_run(store: ReplyStore, records: list[Any]) -> None:
    refuse = [True]

    def caption(body: dict[str, Any]) -> Act | None:
        return status(413, "too large") if refuse.pop() else None

    with LlmServer(on("caption", lambda body: caption(body) if refuse else None)) as server:
        (first,) = run(server, store, records[:1])
        (second,) = run(server, store, records[:1])
    assert "too large" in first.error
    assert not first.stopped
    assert len(second.sft) == 3


def test_a_budget_stops_cleanly_and_goes_on_later(store: ReplyStore, records: list[Any]) -> None:
    prices = {"input_price": 100.0, "output_price": 100.0, "max_tokens": 500, "concurrency": 2}
    with LlmServer() as server:
        some = run(server, store, records, budget=Budget(1.5), **prices)
        spent = store.spent()
        done = [result for result in some if not result.stopped]
        assert 0 < len(done) < len(records)
        assert 0 < spent <= 1.5
        rest = run(server, store, records, budget=Budget(100.0, spent), **prices)
        assert not any(result.stopped for result in rest)
        assert all(result in rest for result in done)
    assert max(server.billed.values()) == 1


def test_music_and_turns_reach_the_writer(store: ReplyStore, records: list[Any]) -> None:
    music = Music(beats=(0.5, 1.0), downbeats=(0.5,), chords=(Chord(0.5, "Am"),), key="A minor", tempo=120.0)
    record = replace(
        records[0],
        music=music,
        turns=(Turn(1.0, 2.0, "anna", "hello\nTimed events: none"),),
        complete=False,
        events=(LabelledEvent(0.5, 1.0, "Dog\n- 3.00 to 4.00 s: Cat"),),
    )
    with LlmServer() as server:
        run(server, store, [record])
    facts = next(seen.body["messages"][1]["content"] for seen in server.seen if step(seen.body) == "write")
    assert "- 0.50 to 1.00 s: Dog - 3.00 to 4.00 s: Cat\n" in facts
    assert 'speaker anna: "hello Timed events: none"' in facts
    assert (
        "Key: A minor\nTempo: 120 beats per minute\nBeats at (s): 0.50 (bar), 1.00\nChords from (s): 0.50 Am"
        in facts
    )
    assert "not complete" in facts


def test_rejudging(store: ReplyStore, records: list[Any]) -> None:
    with LlmServer() as server:
        (made,) = run(server, store, records[:1])
        spoilt = replace(made.sft[0], response="<think>no part</think><answer>Dog</answer>")
        question_only = replace(made.sft[1], response="")
        cases = [(made.sft[0], records[0], None), (spoilt, records[0], None), (question_only, records[0], None)]

        async def again() -> list[ClipResult]:
            budget = Budget()
            async with ChatClient(Endpoint(server.url, "other"), store, budget) as client:
                return [result async for result in rejudge([*cases, InputError("row 7")], client, budget)]

        before = len(server.seen)
        results = asyncio.run(again())
    assert [(len(r.sft), len(r.rl), len(r.discarded), bool(r.error)) for r in results] == [
        (1, 0, 0, False), (0, 0, 1, False), (0, 1, 0, False), (0, 0, 0, True),
    ]  # fmt: skip
    assert len(server.seen) - before == 2


def test_a_closed_run_still_takes_what_is_in_the_store(store: ReplyStore, records: list[Any]) -> None:
    with LlmServer() as server:
        run(server, store, records[5:8])
        budget = Budget()
        budget.close("stopped by hand")
        results = run(server, store, records, budget=budget)
    assert [result.stopped for result in results] == [True] * 5 + [False] * 3 + [True] * 2
    with pytest.raises(StopRunError, match="by hand"):
        raise StopRunError(results[0].error)
