"""What `--help` tells of options."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from support.cli import run

from relisten.errors import InputError
from relisten.llm.endpoint import Endpoint
from relisten.train.grpo.config import GrpoConfig


def test_the_command_line_is_there_before_the_slow_libraries() -> None:
    slow = "{'torch', 'transformers', 'scipy'}"
    loaded = f"import sys, relisten.cli; print(sorted({slow} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True).stdout == "[]\n"


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("TERMINAL_WIDTH", "400")


def told_of(capsys: pytest.CaptureFixture[str], option: str, *command: str) -> str:
    """The line of an option in the help of a command."""
    _, out, _ = run(capsys, *command, "--help")
    (line,) = (line for line in out.splitlines() if option in line.split())
    return line


def test_each_training_names_the_files_that_are_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    for kind, other in (("sft", "grpo"), ("grpo", "sft")):
        told = told_of(capsys, "--config", "train", kind)
        assert f"{kind}-qwen2.5-omni-7b" in told
        assert f"{other}-" not in told
    assert "qwen" not in told_of(capsys, "--config", "router", "train")


def test_defaults_and_needs_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    usual = {field.name: field.default for field in fields(Endpoint)}
    for option, default, *command in (
        ("--at-once", "as many as the engine takes, and 32", "eval"),
        ("--concurrency", usual["concurrency"], "rubrics"),
        ("--timeout", f"{usual['timeout']:g}", "data", "judge"),
        ("--out", "rubrics in the run folder", "rubrics"),
        ("--judge", "the writer", "data", "synthesize"),
    ):
        assert f"[default: ({default})]" in told_of(capsys, option, *command)
    for option, *command in (
        ("--out", "train", "sft"),
        ("--data", "train", "sft"),
        ("--questions", "train", "grpo"),
        ("--questions", "router", "train"),
        ("--out", "reproduce"),
    ):
        assert "Needed" in told_of(capsys, option, *command)


@pytest.mark.parametrize(
    "given",
    [
        ("--engine-option", "a=1", "--engine-option", "b=2"),
        ("--engine-options", "a=1,b=2"),
    ],
)
def test_engine_options_of_grpo_are_given_one_by_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: tuple[str, ...]
) -> None:
    def tell(config: GrpoConfig, processes: int) -> None:
        raise InputError(config.engine_options)

    monkeypatch.setattr("relisten.train.grpo.dryrun.dry_run_grpo", tell)
    status, _, err = run(capsys, "train", "grpo", "--dry-run", "--model", tmp_path, "--engine", "vllm", *given)
    assert (status, err) == (2, "relisten: a=1,b=2\n")
