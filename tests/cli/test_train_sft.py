"""`relisten train sft` from the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.cli import lines, run
from support.sounds import noise_clip

from relisten.audio import write_clip
from relisten.data.examples import Example, write_examples
from relisten.errors import DivergedError
from relisten.models.tiny import TinyShape, build
from relisten.question import Question

pytest.importorskip("accelerate", reason="training needs accelerate")


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """A TOML with a tiny model and four examples."""
    shape = TinyShape(audio_width=32, audio_layers=1, width=32, layers=1, feed_forward=64, vocabulary=400)
    build(tmp_path / "model", shape=shape)
    examples = []
    for n in range(4):
        write_clip(tmp_path / f"{n}.wav", noise_clip(1.0, n))
        question = Question("How many?", audio=tmp_path / f"{n}.wav", id=f"{n}")
        examples.append(Example(question, "<think>I hear it.</think><answer>2</answer>", ""))
    write_examples(tmp_path / "train.jsonl", examples)
    rows = {"model": tmp_path / "model", "data": tmp_path / "train.jsonl"}
    path = tmp_path / "settings.toml"
    path.write_text("".join(f"{name} = {json.dumps(str(value))}\n" for name, value in rows.items()))
    return path


def test_it_trains_with_a_file_and_options_over_it(
    settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    options = ("--config", settings, "--out", out, "--batch-size", 2, "--packing", "--device", "cpu")
    code, printed, _ = run(capsys, "train", "sft", *options, "--json")
    assert code == 0
    assert json.loads(printed)["steps"] == 2
    assert [row["step"] for row in lines(out / "metrics.jsonl")] == [1, 2]
    assert list((out / "tensorboard").iterdir())
    assert "packing = true" in (out / "config.toml").read_text()
    code, printed, _ = run(capsys, "train", "sft", *options)
    assert code == 0
    assert str(out / "checkpoint") in printed
    code, _, problem = run(capsys, "train", "sft", *options, "--lr", 1)
    assert (code, "lr 5e-06 instead of 1.0" in problem) == (2, True)


def test_a_dry_run_trains_nothing(settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(tmp_path.rglob("*"))
    code, printed, _ = run(capsys, "train", "sft", "--config", settings, "--dry-run", "--processes", 2, "--json")
    assert code == 0
    found = json.loads(printed)
    assert found["data"]["examples"] == 4
    assert found["memory"]["total"] == sum(v for name, v in found["memory"].items() if name != "total")
    code, printed, _ = run(capsys, "train", "sft", "--config", settings, "--dry-run")
    assert code == 0
    assert "parameters" in printed
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "no model: give --model, or a line model = "),
        (("--model", "echo-tiny"), "--out is not given"),
        (("--model", "echo-tiny", "--out", "run"), "no data"),
        (("--model", "echo-tiny", "--out", "run", "--data", "none"), "none: cannot be read"),
        (("--config", "sft-qwen2.5-omni-8b"), "name one of"),
        (("--model", "echo-tiny", "--dry-run", "--processes", "0"), "must be 1 or more"),
    ],
)
def test_what_is_missing_is_told(
    arguments: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, _, said = run(capsys, "train", "sft", *arguments)
    assert (code, problem in said) == (2, True), said
    assert not Path("run").exists()


def test_a_device_that_is_not_there_is_told_before_anything_is_written(
    settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--config", settings, "--out", tmp_path / "run", "--device", "cuda:99")
    code, _, said = run(capsys, "train", "sft", *options)
    assert (code, "relisten: device cuda:99" in said) == (2, True), said
    assert not (tmp_path / "run").exists()


def test_steps_are_told_where_there_is_no_terminal(
    settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (
        "--config",
        settings,
        "--out",
        tmp_path / "run",
        "--device",
        "cpu",
        "--batch-size",
        1,
        "--log-every",
        3,
    )
    code, _, said = run(capsys, "train", "sft", *options)
    assert code == 0
    assert re.findall(r"step (\d) of 4: loss \d", said) == ["3", "4"]


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (DivergedError("the loss is no number"), 1, "relisten: the loss is no number"),
        (KeyboardInterrupt(), 130, "the same command goes on"),
    ],
)
def test_what_ends_a_run_is_told(
    error: BaseException, status: int, told: str, settings: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def ends(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("relisten.train.sft.trainer.finetune", ends)
    code, _, said = run(capsys, "train", "sft", "--config", settings, "--out", tmp_path / "run")
    assert (code, told in said) == (status, True), said
