"""`relisten router train` and `relisten router report` as a user gives them, on a model that knows nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli import run
from support.questions import write_questions
from support.tools import extra_tools

from relisten.models.tiny import TinyShape, build


@pytest.fixture(autouse=True)
def _tools() -> Iterator[None]:
    with extra_tools():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("router")
    shape = TinyShape(audio_width=32, audio_layers=1, width=64, layers=2, feed_forward=64, vocabulary=420)
    build(folder / "model", seed=1, shape=shape)
    write_questions(folder / "questions", 10)
    write_questions(folder / "test", 4)
    return folder


def test_a_router_is_trained_and_told_of(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    command = ["router", "train", "--model", folder / "model", "--questions", folder / "questions/questions.jsonl"]
    command += ["--tools", "length", "--steps", 5, "--max-tokens", 8, "--no-tensorboard", "--out", folder / "run"]
    status, out, err = run(capsys, *command)
    assert status == 0, err
    assert "5 steps; 130 parameters" in out
    assert "validation (2 questions): direct 0.0 %, router 0.0 %, oracle 0.0 %" in out
    assert "the reasoner is untouched" in out
    assert "held out" in err
    status, out, _ = run(capsys, *command, "--json")
    assert status == 0
    assert json.loads(out)["routes"] == ["direct", "length"]

    report = ["router", "report", folder / "run", "--questions", folder / "test/questions.jsonl", "--latency", 1]
    status, out, err = run(capsys, *report)
    assert status == 0, err
    assert "always length" in out
    assert "router against direct: +0.0 points, not told apart" in out
    assert "alone, median of 1: direct" in out
    assert (folder / "run" / "report.html").read_text().startswith("<!doctype html>")
    status, out, _ = run(capsys, *report, "--json")
    assert json.loads(out)["scores"]["questions"] == 4


def test_what_cannot_be_is_told(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    for command, said in (
        (["train"], "--out is not given"),
        (["train", "--out", tmp_path / "a"], "no questions: give --questions"),
        (["train", "--group-size", 1, "--out", tmp_path / "a"], "group_size 1"),
        (["report", tmp_path, "--questions", folder / "test/questions.jsonl"], "no config.toml"),
        (["report", tmp_path, "--questions", folder / "test/questions.jsonl", "--latency", -1], "latency -1"),
    ):
        status, out, err = run(capsys, "router", *command)
        assert (status, out) == (2, "")
        assert said in err


def test_a_wrong_path_does_not_take_the_folder(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    command = ["router", "train", "--model", folder / "model", "--tools", "length", "--steps", 1, "--max-tokens", 4]
    command += ["--layers", 0, "--layers", 1, "--no-tensorboard", "--out", tmp_path / "run"]
    status, _, err = run(capsys, *command, "--questions", tmp_path / "typo.jsonl")
    assert status == 2
    assert "typo.jsonl: cannot be read" in err
    status, _, err = run(capsys, *command, "--questions", folder / "questions/questions.jsonl")
    assert status == 0, err
    assert "layers = [0, 1]" in (tmp_path / "run" / "config.toml").read_text()
    status, _, err = run(capsys, *command, "--questions", tmp_path / "typo.jsonl")
    assert status == 2
    assert "holds a run with questions" in err
