"""MMAR-Rubrics against a real server that plays the judge."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from support.cli import lines
from support.llm_server import LlmServer, says, status
from support.questions import write_questions, write_rows

from relisten.cli import main
from relisten.engines.scripted import ScriptedEngine
from relisten.errors import InputError
from relisten.evaluate.benchmarks.registry import BENCHMARKS
from relisten.evaluate.predictions import known_questions, read_predictions
from relisten.evaluate.results import read_run
from relisten.evaluate.rubrics import Judged, criteria_of, judge_all, prediction_cases, run_cases, summarize
from relisten.evaluate.run_folder import Evaluated, prepare
from relisten.evaluate.runner import work
from relisten.llm.client import ChatClient
from relisten.llm.endpoint import Endpoint
from relisten.llm.limits import Budget
from relisten.llm.store import ReplyStore
from relisten.question import Question

MMAR = Path(__file__).parent / "data" / "MMAR-meta.jsonl"
ROWS: list[dict[str, Any]] = [json.loads(line) for line in MMAR.read_text(encoding="utf-8").splitlines()]


def verdict(*met: bool) -> str:
    return json.dumps({"criteria": [{"reason": "because", "met": each} for each in met]})


MIXED = verdict(True, True, False, False, True)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run over the real rows: the first answer is right, the second says nothing, the rest are wrong."""
    folder = write_questions(tmp_path / "data", 1)
    write_rows(folder / "MMAR-meta.jsonl", [{**row, "audio_path": "noise.wav"} for row in ROWS])

    def script(question: Question) -> str:
        if question.id == ROWS[1]["id"]:
            return "<think></think>"
        return (
            f"<think>I hear it.</think><answer>{question.answer if question.id == ROWS[0]['id'] else '?'}</answer>"
        )

    work(
        prepare(BENCHMARKS["mmar"], tmp_path / "a", Evaluated("scripted", "0"), data=folder), ScriptedEngine(script)
    )
    return tmp_path / "a"


def judged(run: Path, server: LlmServer, store: Path, **changes: Any) -> list[Judged]:
    async def all_of_them() -> list[Judged]:
        with ReplyStore(store) as replies:
            endpoint = Endpoint(server.url, "judge", **{"timeout": 5.0, "retries": 0, **changes})
            budget = Budget()
            async with ChatClient(endpoint, replies, budget, backoff=0.01) as client:
                return [each async for each in judge_all(client, run_cases(read_run(run)), budget)]

    return asyncio.run(all_of_them())


def test_scores(run: Path, tmp_path: Path) -> None:
    with LlmServer(lambda number, body: says(MIXED)) as server:
        found = judged(run, server, tmp_path / "store")
    assert len(server.seen) == len(ROWS) - 1  # what says nothing is not asked about
    sent = server.seen[0].body["messages"][1]["content"]
    assert "I hear it." in sent
    assert "5. " in sent
    summary = summarize(found, ["modality"])
    assert summary["answers"] == len(ROWS)
    assert summary["mean"] == pytest.approx(0.6 * (len(ROWS) - 1) / len(ROWS))
    assert (summary["right_answers"], summary["mean_of_right"]) == (1, 0.6)
    assert summary["mean_wrong_as_0"] == pytest.approx(0.6 / len(ROWS))
    assert sum(means["answers"] for means in summary["breakdowns"]["modality"].values()) == len(ROWS)


@pytest.mark.parametrize("reply", ["no JSON", verdict(True), '{"criteria": [1, 2, 3, 4, 5]}', "{}"])
def test_a_judge_that_does_not_keep_to_the_form_gives_no_score(run: Path, tmp_path: Path, reply: str) -> None:
    with LlmServer(lambda number, body: says(reply)) as server:
        found = judged(run, server, tmp_path / "store")
    assert [each.met is None for each in found].count(True) == len(ROWS) - 1
    assert all(each.error for each in found if each.met is None)
    assert summarize(found, [])["answers"] == 1


def test_it_goes_on_where_it_was_and_pays_nothing_twice(run: Path, tmp_path: Path) -> None:
    with LlmServer(lambda number, body: says(MIXED) if number < 4 else status(500)) as server:
        first = judged(run, server, tmp_path / "store", concurrency=1)
    assert sum(each.met is not None for each in first) == 5
    with LlmServer(lambda number, body: says(MIXED)) as server:
        second = judged(run, server, tmp_path / "store", concurrency=1)
    assert all(each.met is not None for each in second)
    assert len(server.seen) == len(ROWS) - 5


def test_the_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LlmServer(lambda number, body: says(MIXED)) as server, pytest.raises(SystemExit) as ended:
        main(["rubrics", str(run), "--judge", server.url, "judge"])
    assert ended.value.code == 0
    assert "mean score 54.00 %" in capsys.readouterr().out
    assert len((run / "rubrics" / "rubrics.jsonl").read_text().splitlines()) == len(ROWS)
    path = write_rows(
        tmp_path / "p.jsonl",
        [{"id": row["id"], "thinking_prediction": "so", "answer_prediction": row["answer"]} for row in ROWS],
    )
    with LlmServer(lambda number, body: says(MIXED)) as server, pytest.raises(SystemExit):
        main(["rubrics", str(path), "--data", str(MMAR), "--out", str(tmp_path / "r"), "--judge", server.url,
              "judge", "--json"])  # fmt: skip
    assert json.loads(capsys.readouterr().out)["mean_wrong_as_0"] == pytest.approx(0.6)


def test_a_file_of_traces_is_judged_by_what_was_reasoned(run: Path) -> None:
    (path,) = run.glob("traces-*.jsonl")
    whole = {case.question.id: case.thinking for case in run_cases(read_run(run))}
    envelopes = lines(path)
    failed = envelopes[0] | {"trace": envelopes[0]["trace"] | {"finish": "failed", "error": "no memory"}}
    lost = envelopes[2] | {"trace": envelopes[2]["trace"] | {"finish": "failed", "error": "no memory"}}
    write_rows(path, [failed, *envelopes[:2], lost, *envelopes[3:]])
    file = read_predictions(path, BENCHMARKS["mmar"].official)
    questions, _ = known_questions(BENCHMARKS["mmar"], file, MMAR)
    cases = {
        case.question.id: case.thinking for case in prediction_cases(questions, file.rows, "thinking_prediction")
    }
    del whole[envelopes[2]["id"]]
    assert cases == whole
    assert "I hear it." in cases.values()


def test_an_endpoint_that_says_stop_is_asked_no_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**ROWS[0], "id": f"row {number}"} for number in range(200)]
    data = write_rows(tmp_path / "MMAR-meta.jsonl", rows)
    given = [{"id": row["id"], "thinking_prediction": row["id"], "answer_prediction": "?"} for row in rows]
    arguments = ["rubrics", str(write_rows(tmp_path / "p.jsonl", given)), "--data", str(data), "--out",
                 str(tmp_path / "r")]  # fmt: skip
    with LlmServer(lambda number, body: status(401, "no such key")) as server:
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--judge", server.url, "judge", "--concurrency", "4"])
        assert len(server.seen) < 20
    shown = capsys.readouterr()
    assert ended.value.code == 1
    assert "stopped early" in shown.err
    assert "access denied (401 test: no such key); check whether it needs a key" in shown.err
    assert "not judged" not in shown.out  # the reason is told once
    summary = json.loads((tmp_path / "r" / "rubrics.json").read_text())
    assert len(summary["not_judged"]) == 200
    with LlmServer(lambda number, body: says(MIXED)) as server:
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--judge", server.url, "judge", "--json"])
        assert ended.value.code == 0
        assert len(server.seen) == 200


@pytest.mark.parametrize("dollars", ["0", "-1", "nan"])
def test_a_budget_is_above_0(tmp_path: Path, dollars: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["rubrics", str(tmp_path), "--judge", "http://h/v1", "m", "--budget", dollars])
    assert ended.value.code == 2
    assert "dollars above 0" in capsys.readouterr().err


def test_rows_without_a_rubric() -> None:
    for rubric in (None, [], "x", [{"name": "x"}], 3):
        with pytest.raises(InputError, match="has no rubric"):
            criteria_of(Question("?", id="1", metadata={"rubric": rubric}))
