"""`relisten data filter` and `relisten data export` as a user runs them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.cli import data, lines
from support.labelled_set import make_record

from relisten.data.examples import Example, write_examples
from relisten.engines.scripted import ScriptedEngine
from relisten.listener import Listener
from relisten.question import Question


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """Two questions on each of six clips; one of them twice; and a row that is none."""
    rows = []
    for number in range(6):
        record = make_record(tmp_path, number)
        known = {"hash": record.hash, "source": record.source, "duration": record.duration}
        for text in ("known", "open"):
            question = Question(f"{text} {number}", ("yes", "no"), record.audio, f"{number}-{text}", "yes", known)
            response = "<think>To see I play <seg>0.0, 1.0</seg> and hear it.</think><answer>yes</answer>"
            rows.append(Example(question, response, "test"))
    rows.append(replace(rows[0], question=replace(rows[0].question, text="KNOWN 0")))
    path = tmp_path / "examples.jsonl"
    write_examples(path, rows)
    with path.open("a") as file:
        file.write("not a row\n")
    return path


def test_duplicates_go_and_bad_rows_are_told(
    examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = data(capsys, "filter", examples, "--out", tmp_path / "kept.jsonl")
    assert code == 0
    assert "12 kept, 1 dropped (duplicate 1)" in out
    assert "examples.jsonl:14: is not JSON" in err
    assert len(lines(tmp_path / "kept.jsonl")) == 12


def test_half_a_character_stays_what_it_is(
    examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = json.loads(examples.read_text().splitlines()[0]) | {"question": "cut off \ud83d"}
    (tmp_path / "cut.jsonl").write_text(json.dumps(row) + "\n")
    kept, gone = tmp_path / "kept.jsonl", tmp_path / "gone.jsonl"
    code, _, err = data(capsys, "filter", tmp_path / "cut.jsonl", "--out", kept, "--dropped", gone)
    assert (code, err) == (0, "")
    assert [row["question"] for row in lines(kept)] == ["cut off \ud83d"]
    other = ("--not-in", tmp_path / "cut.jsonl")
    data(capsys, "filter", kept, "--out", tmp_path / "none.jsonl", "--dropped", gone, *other)
    assert [row["question"] for row in lines(gone)] == ["cut off \ud83d"]


def test_silence_and_other_splits(
    examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(question: Question) -> str:
        return f"<think>hm</think><answer>{'yes' if 'known' in question.text else 'no'}</answer>"

    monkeypatch.setattr(Listener, "load", lambda model, *, device: Listener(ScriptedEngine(script)))
    test_split = tmp_path / "test.jsonl"
    test_split.write_text(examples.read_text().splitlines()[0] + "\n")
    arguments = ("filter", examples, "--out", tmp_path / "kept.jsonl", "--silent", "any", "--not-in", test_split)
    code, out, _ = data(capsys, *arguments, "--dropped", tmp_path / "gone.jsonl", "--json")
    summary = json.loads(out)
    assert code == 0
    assert summary == {
        "kept": 4,
        "written": 4,
        "dropped": {"duplicate": 1, "shared": 4, "answered": 4},
        "bad_rows": 1,
        "not_asked": 0,
    }
    assert all("open" in row["question"] for row in lines(tmp_path / "kept.jsonl"))
    assert {row["metadata"]["filtered"].split()[0] for row in lines(tmp_path / "gone.jsonl")} == {
        "duplicate", "shared", "answered",
    }  # fmt: skip
    data(capsys, *arguments, "--tag")
    tagged = lines(tmp_path / "kept.jsonl")
    assert len(tagged) == 13
    assert sum("filtered" in row["metadata"] for row in tagged) == 9


def test_questions_that_cannot_be_asked_stay_and_are_told(
    examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(question: Question) -> str:
        raise ValueError("out of memory")

    monkeypatch.setattr(Listener, "load", lambda model, *, device: Listener(ScriptedEngine(script)))
    code, out, err = data(capsys, "filter", examples, "--out", tmp_path / "kept.jsonl", "--silent", "any")
    assert code == 0
    assert "12 kept" in out
    assert "12 questions kept that could not be asked in silence; question '0-known': 4 of 4" in err
    assert "out of memory" in err


@pytest.mark.parametrize("there", [False, True])
def test_what_stays_and_what_goes_are_two_files(
    examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], there: bool
) -> None:
    (tmp_path / "here").symlink_to(tmp_path)
    one, same = tmp_path / "same.jsonl", tmp_path / "here" / "same.jsonl"
    if there:
        one.write_text("mine\n")
    code, _, err = data(capsys, "filter", examples, "--out", one, "--dropped", same)
    assert (code, err) == (2, f"relisten: {same}: is given as --out and as --dropped; give two files\n")
    assert one.exists() == there


def test_what_went_before_stays_until_a_run_is_done(
    examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "new" / "gone.jsonl"
    for out, status, number in ((tmp_path / "kept.jsonl", 0, 1), (examples / "kept.jsonl", 2, 1)):
        assert data(capsys, "filter", examples, "--out", out, "--dropped", gone)[0] == status
        assert len(lines(gone)) == number


@pytest.mark.parametrize("option", ["--tries", "--at-least", "--temperature", "--seed", "--device"])
def test_options_of_silent_tries_go_with_silent(
    examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    code, _, err = data(capsys, "filter", examples, "--out", tmp_path / "kept.jsonl", option, 0)
    assert (code, err) == (2, f"relisten: {option} goes with --silent; leave it out\n")


def test_a_number_that_is_not_finite_is_a_bad_row(
    examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with examples.open("a") as file:
        row = json.loads(examples.read_text().splitlines()[0])
        file.write(json.dumps(row | {"metadata": {"snr": float("nan")}}) + "\n")
    code, out, err = data(capsys, "filter", examples, "--out", tmp_path / "kept.jsonl")
    assert code == 0
    assert "12 kept, 1 dropped" in out
    assert "examples.jsonl:15: holds NaN or an infinite number; write null, or leave it out" in err
    assert "2 bad rows left out" in err


def test_a_file_is_not_its_own_other_split(
    examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = data(capsys, "filter", examples, "--out", tmp_path / "kept.jsonl", "--not-in", examples)
    assert code == 2
    assert "names another split" in err


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("jsonl", "train.jsonl"),
        ("ms-swift", "train.jsonl"),
        ("verl", "train.parquet"),
        ("hf", "data/train-00000-of-00001.parquet"),
    ],
)
def test_export(examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, file: str) -> None:
    code, out, err = data(capsys, "export", kind, examples, "--out", tmp_path / "out", "--validation", 0.3)
    assert code == 0
    assert (tmp_path / "out" / file).exists()
    assert "validation:" in out
    assert "1 bad row left out" in out
    assert "examples.jsonl:14" in err
    code, out, _ = data(capsys, "export", kind, examples, "--out", tmp_path / "out", "--validation", 0.3, "--json")
    counts = json.loads(out)
    assert sum(counts["rows"].values()) == 13
    assert sum(counts["clips"].values()) == 6


@pytest.mark.parametrize("kind", ["jsonl", "ms-swift", "verl", "hf"])
def test_a_folder_holds_one_export(
    examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    folder = tmp_path / "out"
    data(capsys, "export", kind, examples, "--out", folder, "--validation", 0.3)
    (folder / "notes.jsonl").touch()
    (folder / "audio").mkdir()
    assert [path.name for path in folder.rglob("validation*")]
    code, said, _ = data(capsys, "export", kind, examples, "--out", folder, "--validation", 0)
    assert code == 0
    assert "removed from an export before: validation" in said
    left = {path.name.partition("-")[0].partition(".")[0] for path in folder.rglob("*")}
    assert left == {"train", "notes", "audio"} | ({"data"} if kind == "hf" else set())


def test_an_export_of_nothing_leaves_the_one_before(
    examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    data(capsys, "export", "ms-swift", examples, "--out", folder, "--validation", 0.3)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    examples.write_text(examples.read_text().replace('"response"', '"kind_of"'))
    code, _, told = data(capsys, "export", "ms-swift", examples, "--out", folder, "--validation", 0.3)
    assert (code, "no row could be written" in told) == (2, True)
    assert "no response to train on; without one it serves RL: `relisten train grpo`, or" in told
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "csv"), "export format 'csv' is unknown; use one of\n  ms-swift"),
        (("export", "verl", "--validation", 2), "validation share 2"),
    ],
)
def test_bad_exports(
    examples: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[object, ...],
    message: str,
) -> None:
    code, _, err = data(capsys, *arguments[:2], examples, "--out", tmp_path / "out", *arguments[2:])
    assert code == 2
    assert message in err


def test_an_empty_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.jsonl").touch()
    code, _, err = data(capsys, "export", "jsonl", tmp_path / "empty.jsonl", "--out", tmp_path / "out")
    assert code == 2
    assert "no row could be written; the first reason: it is empty" in err
