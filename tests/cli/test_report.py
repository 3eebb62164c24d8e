"""`relisten report` as a user gives it, on runs that `relisten eval` made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.cli import run
from support.questions import write_questions

from relisten.cli import main
from relisten.evaluate.attention_curve import AttentionCurve


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, untrained_folder: Path) -> Path:
    """Two runs, `a` and `b`, over three questions."""
    folder = tmp_path_factory.mktemp("runs")
    questions = write_questions(folder / "data", 3)
    for name, seed in (("a", 0), ("b", 1)):
        options = ["--model", untrained_folder, "--max-tokens", 30, "--device", "cpu", "--temperature", 1]
        command = ["eval", "questions", "--data", questions, "--out", folder / name, "--seed", seed, *options]
        with pytest.raises(SystemExit):
            main([str(argument) for argument in command])
    return folder


def test_a_page_of_two_runs(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    status, out, err = run(capsys, "report", folder / "a", folder / "b", "--out", tmp_path / "new" / "r.html")
    assert (status, err) == (0, "")
    assert "3 questions, 1 of 1 sounds" in out
    assert "Comparison" in (tmp_path / "new" / "r.html").read_text(encoding="utf-8")


def test_a_page_never_replaces_what_it_is_made_of(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "again").symlink_to(folder / "a")
    before = (folder / "a" / "config.json").read_bytes()
    status, _, err = run(capsys, "report", folder / "a", "--out", tmp_path / "again" / "config.json")
    assert (status, len(err.splitlines())) == (2, 1)
    assert (folder / "a" / "config.json").read_bytes() == before


def test_attention_is_measured_kept_and_shown(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    command = ["report", folder / "a", "--out", tmp_path / "r.html", "--audio", "none"]
    run(capsys, *command)
    assert "Attention on sound" not in (tmp_path / "r.html").read_text(encoding="utf-8")
    status, out, _ = run(capsys, *command, "--attention", 2, "--device", "cpu")
    assert status == 0
    assert "0 of 1 sounds" in out
    curve = AttentionCurve.read(folder / "a")
    assert curve is not None
    assert curve.answers == 2
    run(capsys, *command)
    assert "Attention on sound" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_numbers_for_machines(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    status, out, err = run(capsys, "report", folder / "a", folder / "b", "--json")
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert [one["listening"]["answers"] for one in told["runs"]] == [3, 3]
    assert sum(told["comparisons"][0][key] for key in ("both", "gained", "lost", "neither")) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["data"], "is no run folder"),
        (["a", "--attention", "-1"], "attention -1"),
        (["a", "--max-audio", "-1"], "max audio -1"),
        (["a", "--out", "data"], "cannot be written"),
    ],
)
def test_bad_input_is_one_line(
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(folder)
    status, out, err = run(capsys, "report", *arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
