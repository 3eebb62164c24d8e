"""Benchmarks: official rows in, bad rows told, nothing stopped."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from support.questions import write_questions, write_rows

from relisten.errors import InputError
from relisten.evaluate.benchmarks.base import BadRow, digest, question_from_json, question_to_json, unique
from relisten.evaluate.benchmarks.questions import Questions, find_breakdowns
from relisten.evaluate.benchmarks.registry import BENCHMARKS, find_benchmark
from relisten.evaluate.benchmarks.scenes import Scenes
from relisten.question import Question

MMAR = Path(__file__).parent / "data"

MMAU_ROW: dict[str, Any] = {
    "id": "3fe64f3d",
    "audio_id": "./test-mini-audios/3fe64f3d.wav",
    "question": "Who speaks?",
    "choices": ["Man", "Woman"],
    "answer": "Man",
    "dataset": "AudioSet",
    "task": "sound",
    "split": "test-mini",
    "category": "Reasoning",
    "sub-category": "Acoustic Source Inference",
    "difficulty": "medium",
}
MMSU_ROW: dict[str, Any] = {
    "id": "code_switch_1",
    "audio_path": "audio/code_switch_1.wav",
    "question": "What is said?",
    "choice_a": "this",
    "choice_b": "that",
    "choice_c": 3,
    "choice_d": "none",
    "answer_gt": "that",
    "task_name": "code_switch",
    "category": "Reasoning",
    "sub-category": "Linguistics",
    "sub-sub-category": "Semantics",
    "linguistics_sub_discipline": "Semantics",
}
PRO_ROW: dict[str, Any] = {
    "id": "p1",
    "audio_path": ["data/p1.wav"],
    "question": "What?",
    "choices": ["a", "b"],
    "answer": "a",
    "category": "sound",
    "length_type": "short",
    "kwargs": None,
}
STAR_ROW: dict[str, Any] = {
    "id": "s1",
    "task": "perception",
    "category": "pitch",
    "sub-category": "absolute",
    "question": "Higher?",
    "options": ["first", "second"],
    "answer": "second",
    "audio_paths": ["starbench_audios/s1.wav"],
}


def one(name: str, data: Path, audio: Path | None = None) -> Question:
    (row,) = BENCHMARKS[name].rows(data, audio)
    assert isinstance(row, Question), row
    return row


def test_mmar_from_its_own_file() -> None:
    rows = list(BENCHMARKS["mmar"].rows(MMAR))
    assert all(isinstance(row, Question) for row in rows)
    first = rows[0]
    assert isinstance(first, Question)
    assert first.id == "qx8hrhBZJ98_00-01-32_00-02-02"
    assert first.audio == MMAR / "audio" / "qx8hrhBZJ98_00-01-32_00-02-02.wav"
    assert first.answer == "Open Grassland"
    assert first.metadata["modality"] == "music"
    assert len(first.metadata["rubric"]) == 5


def test_an_empty_choice_of_mmar_is_not_shown() -> None:
    rows = {row.id: row for row in BENCHMARKS["mmar"].rows(MMAR)}
    row = rows["ztvEag8Y2_Y_00-00-00_00-00-16"]
    assert isinstance(row, Question)
    assert "" in row.metadata["choices"]
    assert row.choices == ("Scrabble", "Number guessing game", "Do not do challenge", "Word guessing game")


def test_mmau_with_and_without_answers(tmp_path: Path) -> None:
    withheld = {**MMAU_ROW, "id": "2", "answer": ""}
    missing = {key: value for key, value in MMAU_ROW.items() if key != "answer"} | {"id": "3"}
    (tmp_path / "mmau-test.json").write_text(json.dumps([MMAU_ROW, withheld, missing]))
    rows = list(BENCHMARKS["mmau"].rows(tmp_path))
    assert [row.answer for row in rows if isinstance(row, Question)] == ["Man", None, None]
    mini = tmp_path / "mmau-test-mini.json"
    mini.write_text(json.dumps([MMAU_ROW]))
    assert one("mmau_mini", tmp_path) == one("mmau_mini", mini)
    assert one("mmau_mini", tmp_path).audio == tmp_path / "test-mini-audios" / "3fe64f3d.wav"


def test_mmsu(tmp_path: Path) -> None:
    (tmp_path / "question").mkdir()
    write_rows(tmp_path / "question" / "mmsu.jsonl", [MMSU_ROW])
    row = one("mmsu", tmp_path)
    assert row.choices == ("this", "that", "3", "none")
    assert row.answer == "that"
    assert row.audio == tmp_path / "audio" / "code_switch_1.wav"


@pytest.mark.parametrize("name", ["test.jsonl", "test.parquet"])
def test_mmau_pro(tmp_path: Path, name: str) -> None:
    rows = [PRO_ROW, {**PRO_ROW, "id": "p2", "choices": None}, {**PRO_ROW, "id": "p3", "audio_path": ["a", "b"]}]
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / name)
    else:
        write_rows(tmp_path / name, rows)
    closed, open_, several = BENCHMARKS["mmau_pro"].rows(tmp_path)
    assert isinstance(closed, Question)
    assert (closed.answer, closed.audio) == ("a", tmp_path / "data" / "p1.wav")
    assert isinstance(open_, Question)
    assert (open_.answer, open_.choices) == (None, ())
    assert isinstance(several, BadRow)
    assert "2 sounds" in several.error


def test_star_bench(tmp_path: Path) -> None:
    (tmp_path / "meta_info").mkdir()
    (tmp_path / "meta_info" / "foundation_perception_nonspatial.json").write_text(json.dumps([STAR_ROW]))
    row = one("star_bench", tmp_path)
    assert (row.choices, row.answer) == (("first", "second"), "second")
    assert row.audio == tmp_path / "starbench_audios" / "s1.wav"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"id": None}, "id is None"),
        ({"id": ["x"]}, "id is ['x']"),
        ({"question": " "}, "question is ' '"),
        ({"question": 3}, "question is 3"),
        ({"choices": "Man"}, "choices"),
        ({"choices": [["Man"]]}, "choices"),
        ({"audio_id": None}, "audio_id is None"),
        ({"audio_id": []}, "0 sounds"),
        ({"answer": ["Man"]}, "answer is ['Man']"),
    ],
)
def test_a_bad_official_row_is_told_and_stops_nothing(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    path = tmp_path / "mmau-test-mini.json"
    path.write_text(json.dumps([MMAU_ROW | change, "no object", {**MMAU_ROW, "id": "good"}]))
    bad, string, good = BENCHMARKS["mmau_mini"].rows(path)
    assert isinstance(bad, BadRow)
    assert told in bad.error
    assert isinstance(string, BadRow)
    assert isinstance(good, Question)


@pytest.mark.parametrize("text", ["", "hello", "[{", "3", '[{"id": 1}'])
def test_a_file_that_is_no_list_of_rows(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mmau-test-mini.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"mmau-test-mini\.json"):
        list(BENCHMARKS["mmau_mini"].rows(path))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "MMAR-meta.jsonl"
    path.write_bytes(b'{"id": "\xff"}')
    with pytest.raises(InputError, match="UTF-8"):
        list(BENCHMARKS["mmar"].rows(path))


def test_sounds_in_another_folder(tmp_path: Path) -> None:
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    name = "qx8hrhBZJ98_00-01-32_00-02-02.wav"
    (sounds / name).touch()
    first = next(iter(BENCHMARKS["mmar"].rows(MMAR, sounds)))
    assert isinstance(first, Question)
    assert first.audio == sounds / name


def test_no_data_says_which_file(tmp_path: Path) -> None:
    for data, told in (
        (None, "mmar: needs its data"),
        (tmp_path, f"mmar: {tmp_path}: holds no MMAR-meta.jsonl and no MMAR-meta.json"),
        (tmp_path / "q.jsonl", f"mmar: {tmp_path / 'q.jsonl'}: no such file or folder"),
    ):
        remedy = (
            "; give --data with the folder that holds MMAR-meta.jsonl or MMAR-meta.json, or with the file itself"
        )
        with pytest.raises(InputError, match=f"^{re.escape(told + remedy)}$"):
            list(BENCHMARKS["mmar"].rows(data))
    with pytest.raises(InputError, match="star_bench"):
        find_benchmark("nonsense")


def test_own_questions_with_bad_rows_and_breakdowns(tmp_path: Path) -> None:
    folder = write_questions(tmp_path / "data", 8)
    with (folder / "questions.jsonl").open("a") as file:
        file.write('{"id": "q1", "audio": "noise.wav", "question": "again?"}\nnot json\n')
    rows = list(unique(Questions().rows(folder)))
    assert [row.id for row in rows[-2:]] == ["q1 (row 9)", "(row 10)"]
    assert all(isinstance(row, BadRow) for row in rows[-2:])
    assert find_breakdowns(rows) == ("group",)


def test_scores_are_not_broken_down_by_clip(tmp_path: Path) -> None:
    told = [
        {"clip": f"c{n // 2}", "source": f"s{n // 4}", "hash": f"h{n // 2}", "duration": n // 4} for n in range(8)
    ]
    rows = [Question("?", id=str(n), metadata={**row, "kind": "ab"[n % 2]}) for n, row in enumerate(told)]
    assert find_breakdowns(rows) == ("kind",)


@pytest.mark.parametrize("name", ["scenes", "questions"])
def test_a_folder_of_clips_without_questions_says_how_to_make_them(tmp_path: Path, name: str) -> None:
    (tmp_path / "manifest.jsonl").touch()
    told = rf"{name}: .*relisten data compose {tmp_path}/manifest\.jsonl --out {tmp_path}/questions\.jsonl"
    with pytest.raises(InputError, match=told):
        list(BENCHMARKS[name].rows(tmp_path))


def test_simulated_scenes_take_no_folder_of_sounds(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--audio goes with --data"):
        list(BENCHMARKS["scenes"].rows(None, tmp_path))


def test_scenes_are_the_same_every_time_and_hold_their_truth() -> None:
    rows = list(islice(Scenes().rows(None), 9))
    assert digest(rows) == digest(islice(Scenes().rows(None), 9))
    assert len({row.id for row in rows}) == 9
    for row in rows:
        assert isinstance(row, Question)
        assert row.answer in row.choices
        assert row.clip().duration == row.metadata["duration"]
        assert all(0 <= event["onset"] < event["offset"] for event in row.metadata["events"])
        assert all(0 <= start < end <= row.metadata["duration"] for start, end in row.metadata["segments"])
        stored = json.loads(json.dumps(question_to_json(row)))
        assert question_from_json(stored) == row


def test_rows_as_json() -> None:
    bad = BadRow("x", "because")
    assert question_from_json(question_to_json(bad)) == bad
    with pytest.raises(InputError, match="is no file"):
        question_to_json(Question("?", id="x"))
