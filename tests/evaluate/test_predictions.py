"""Prediction files: ours in the official formats, and anybody's, hostile ones among them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.questions import write_questions, write_rows

from relisten.engines.scripted import ScriptedEngine
from relisten.errors import InputError
from relisten.evaluate.benchmarks.registry import BENCHMARKS
from relisten.evaluate.predictions import (
    FileScore,
    read_predictions,
    score_predictions,
    thinking,
    write_predictions,
)
from relisten.evaluate.results import read_run
from relisten.evaluate.run_folder import Evaluated, prepare
from relisten.evaluate.runner import work
from relisten.evaluate.scoring import Rule, string_match
from relisten.question import Question

MMAR = Path(__file__).parent / "data" / "MMAR-meta.jsonl"
ROWS: list[dict[str, Any]] = [json.loads(line) for line in MMAR.read_text(encoding="utf-8").splitlines()]


def score(path: Path, data: Path | None = None, name: str = "mmar", key: str | None = None) -> FileScore:
    benchmark = BENCHMARKS[name]
    return score_predictions(benchmark, read_predictions(path, benchmark.official, key), data)


def official_script(rows: list[dict[str, Any]], key: str) -> dict[tuple[str, str], tuple[int, int]]:
    """(right, total) by breakdown and in all, as the scripts of MMAR and MMAU go about it."""
    right: Counter[tuple[str, str]] = Counter()
    total: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if key not in row:
            continue
        places = [(part, row[part]) for part in ("modality", "category", "sub-category")]
        total.update([("all", ""), *places])
        if string_match(row["answer"], row[key], row["choices"]):
            right.update([("all", ""), *places])
    return {place: (right[place], count) for place, count in total.items()}


def test_the_totals_are_those_of_the_official_script(tmp_path: Path) -> None:
    rows = [dict(row) for row in ROWS]
    for number, row in enumerate(rows):
        if number != 4:  # the script leaves out a row without the key
            row["answer_prediction"] = row["choices"][number % len(row["choices"])]
    rows.append(rows[0])  # and counts one that stands twice twice
    found = score(write_rows(tmp_path / "predictions.jsonl", rows)).official
    assert found is not None
    counted = {
        ("all", ""): (found.overall.right, found.overall.right + found.overall.wrong + found.overall.no_answer)
    }
    for breakdown in found.breakdowns:
        for value, tally in breakdown.groups.items():
            counted[breakdown.key, value] = (tally.right, tally.total)
    assert counted == official_script(rows, "answer_prediction")
    assert counted["all", ""][1] == len(ROWS)


@pytest.mark.parametrize("form", ["full", "list", "slim", "mapping", "mapping of rows", "other key", "traces"])
def test_all_the_forms_of_a_file(tmp_path: Path, form: str) -> None:
    slim = [{"id": row["id"], "thinking_prediction": "...", "answer_prediction": row["answer"]} for row in ROWS]
    full = [{**row, "answer_prediction": row["answer"]} for row in ROWS]
    path, data, key = tmp_path / "predictions", MMAR.parent, None
    if form == "full":
        write_rows(path, full)
    elif form == "list":
        path.write_text(json.dumps(full, indent=1))
    elif form == "slim":
        write_rows(path, slim)
    elif form == "mapping":
        path.write_text(json.dumps({row["id"]: row["answer"] for row in ROWS}))
    elif form == "mapping of rows":
        path.write_text(json.dumps({row["id"]: {"model_output": row["answer"]} for row in ROWS}))
    elif form == "other key":
        write_rows(path, [{"id": row["id"], "said": row["answer"]} for row in ROWS])
        key = "said"
    else:
        traces = [{"id": row["id"], "answer": row["answer"], "finish": "answer", "spans": []} for row in ROWS]
        write_rows(path, traces)
    found = score(path, data, key=key)
    assert found.ours.problems == ()
    assert {rule: card.overall.right for rule, card in found.ours.cards.items()} == dict.fromkeys(Rule, len(ROWS))
    assert found.official is not None
    assert found.official.overall.accuracy == 1


def test_without_data_the_rows_of_the_file_say_what_is_right(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.jsonl", [{**row, "model_prediction": row["answer"]} for row in ROWS])
    assert score(path).ours.main.overall.accuracy == 1
    slim = write_rows(tmp_path / "slim.jsonl", [{"id": row["id"], "answer_prediction": "x"} for row in ROWS])
    with pytest.raises(InputError, match="--data"):
        score(slim)
    with pytest.raises(InputError, match="under answer_prediction or model_output or model_prediction or"):
        score(MMAR)


def test_a_file_that_brings_its_own_references(tmp_path: Path) -> None:
    rows = [{**row, "answer": row["choices"][0], "answer_prediction": row["choices"][0]} for row in ROWS]
    path = write_rows(tmp_path / "p.jsonl", rows)
    assert score(path).ours.main.overall.accuracy == 1
    checked = score(path, MMAR.parent).ours
    assert checked.cards[Rule.STRICT].overall.right == sum(row["answer"] == row["choices"][0] for row in ROWS)
    assert any("reference answers that are not the benchmark's" in problem for problem in checked.problems)


def test_every_kind_of_bad_row_is_told(tmp_path: Path) -> None:
    good = [{**row, "answer_prediction": row["answer"]} for row in ROWS]
    rows: list[Any] = [dict(row) for row in good[:-1]]  # the last one is missing
    rows[0]["answer_prediction"] = 3
    rows[1]["answer_prediction"] = ["Man"]
    rows[2]["answer_prediction"] = None
    del rows[3]["answer_prediction"]
    rows.append({**good[5], "answer_prediction": "something else"})  # twice; the first counts
    rows += [{"answer_prediction": "no id"}, {"id": True, "answer_prediction": "x"}, "a string", 7]
    rows.append({"id": "foreign", "answer_prediction": "x"})
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"torn": \n\n')
    ours = score(path, MMAR.parent).ours
    told = "\n".join(ours.problems)
    for part in (
        "2 no text under the key",
        "answer_prediction is 3",
        "a list of 1",
        "id is None",
        "id is True",
        "got str; write one object a line",
        "is not JSON",
        "1 rows more than once; the first that did not fail counts",
        "1 ids that the benchmark does not have: foreign",
        f"1 rows missing; they count as without an answer: {ROWS[-1]['id']}",
    ):
        assert part in told, part
    overall = ours.main.overall
    assert (overall.right, overall.no_answer, overall.total) == (len(ROWS) - 5, 5, len(ROWS))


def test_leaving_out_hard_rows_gains_nothing(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.jsonl", [{**ROWS[0], "answer_prediction": ROWS[0]["answer"]}])
    found = score(path, MMAR.parent)
    assert found.official is not None
    assert found.official.overall.accuracy == 1
    assert found.ours.main.overall.accuracy == 1 / len(ROWS)


def test_an_answer_of_ten_megabytes(tmp_path: Path) -> None:
    rows = [{**row, "answer_prediction": row["answer"]} for row in ROWS]
    rows[0]["answer_prediction"] = "word " * 2_000_000
    rows[1]["answer_prediction"] = f"{ROWS[1]['answer']} " * 100_000
    found = score(write_rows(tmp_path / "p.jsonl", rows), MMAR.parent)
    assert found.ours.cards[Rule.OFFICIAL].overall.right == len(ROWS) - 1
    assert found.ours.cards[Rule.STRICT].overall.right == len(ROWS) - 2


@pytest.mark.parametrize("text", ["", "[]", "{}", "[1, 2]", "null", "<html>", '[{"id": "x"}]', "[" * 100_000])
def test_files_that_hold_no_predictions(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"p\.json"):
        score(path)


def test_half_characters_and_terminal_codes_are_shown_harmlessly(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "id": "\ud800 \x1b[31m", "answer_prediction": "\ud800"}]
    ours = score(write_rows(tmp_path / "p.jsonl", rows), MMAR.parent).ours
    "\n".join(ours.problems).encode()
    assert "\x1b" not in "".join(ours.problems)


def test_tags_around_the_answer_count_for_our_rules_only(tmp_path: Path) -> None:
    row = {"id": "1", "audio_id": "a.wav", "question": "?", "choices": ["cat", "dog"], "answer": "dog", "task": "x"}
    said = "<think>a cat, no</think><answer>Dog</answer>"
    path = write_rows(tmp_path / "p.json", [{**row, "difficulty": "easy", "model_output": said}])
    ours = score(path, name="mmau_mini").ours
    right = {rule: card.overall.right for rule, card in ours.cards.items()}
    assert right == {Rule.OFFICIAL: 0, Rule.STRICT: 1, Rule.LETTER: 1}


def test_what_a_run_writes_scores_as_the_run_did(tmp_path: Path) -> None:
    folder = write_questions(tmp_path / "data", 1)
    rows = [{**row, "audio_path": "noise.wav"} for row in ROWS]
    rows[1]["audio_path"] = "missing.wav"
    write_rows(folder / "MMAR-meta.jsonl", rows)

    def script(question: Question) -> str:
        said = "" if question.id == ROWS[2]["id"] else question.choices[0]
        return f"<think>so <seg>0.1, 0.5</seg> it is</think><answer>{said}</answer>"

    work(
        prepare(BENCHMARKS["mmar"], tmp_path / "a", Evaluated("scripted", "0"), data=folder), ScriptedEngine(script)
    )
    run = read_run(tmp_path / "a")
    official = BENCHMARKS["mmar"].official
    assert official is not None
    path = write_predictions(run, official)
    written = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert "answer_prediction" not in written[1]  # failed: the script leaves it out
    assert written[2]["answer_prediction"] == ""  # no answer: the script counts it as wrong
    assert written[0]["thinking_prediction"] == "so <seg>0.1, 0.5</seg> it is"
    assert {key: written[0][key] for key in rows[0]} == rows[0]
    found = score(path, folder)
    assert found.official is not None
    tally = [row.outcome(Rule.OFFICIAL) for row in run.rows]
    assert found.official.overall.right == tally.count("right")
    assert found.official.overall.total == len(ROWS) - 1


def test_mmsu_is_handed_in_by_letter(tmp_path: Path) -> None:
    folder = write_questions(tmp_path / "data", 1)
    row = {
        "id": "1", "audio_path": "noise.wav", "question": "?", "choice_a": "x", "choice_b": "y", "choice_c": "z",
        "choice_d": "w", "answer_gt": "y",
    }  # fmt: skip
    write_rows(folder / "mmsu.jsonl", [row, {**row, "id": "2"}])

    def script(question: Question) -> str:
        return f"<answer>{'y' if question.id == '1' else 'nonsense'}</answer>"

    work(
        prepare(BENCHMARKS["mmsu"], tmp_path / "a", Evaluated("scripted", "0"), data=folder), ScriptedEngine(script)
    )
    official = BENCHMARKS["mmsu"].official
    assert official is not None
    path = write_predictions(read_run(tmp_path / "a"), official)
    assert [json.loads(line)["response"] for line in path.read_text().splitlines()] == ["B", ""]
    assert score(path, name="mmsu").ours.main.overall.right == 1


def test_a_trace_that_failed_is_in_no_score(tmp_path: Path) -> None:
    folder = write_questions(tmp_path / "data", 3)
    failed = {"id": "q1", "spans": [], "finish": "failed", "answer": None, "error": "no such sound"}
    good = {"id": "q0", "spans": [], "finish": "answer", "answer": "one", "error": None}
    rows = [good, failed, {**failed, "id": "q2"}, {**good, "id": "q2", "answer": "three"}]
    ours = score(write_rows(tmp_path / "traces.jsonl", rows), folder, "questions").ours
    tally = ours.main.overall
    assert (tally.right, tally.total, tally.failed) == (2, 2, 1)
    assert [(failure.id, failure.error) for failure in ours.failures] == [("q1", "no such sound")]


def test_own_questions_with_their_breakdowns(tmp_path: Path) -> None:
    folder = write_questions(tmp_path / "data", 12)
    rows = [{"id": f"q{number}", "prediction": "one"} for number in range(12)]
    ours = score(write_rows(tmp_path / "p.jsonl", rows), folder, "questions").ours
    assert ours.main.overall.right == 4
    assert [breakdown.key for breakdown in ours.main.breakdowns] == ["group"]
    # The same with the answers in the rows themselves.
    full = [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]
    path = write_rows(tmp_path / "full.jsonl", [{**row, "prediction": "one"} for row in full])
    assert score(path, name="questions").ours.main == ours.main


def test_thinking() -> None:
    assert thinking("<think>so</think><answer>x</answer>") == "so"
    assert thinking("unfinished") == "unfinished"
