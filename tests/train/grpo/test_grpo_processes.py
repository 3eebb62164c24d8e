"""Whole runs in several processes: they do what one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.cli import run
from support.grpo_runs import rows, weights

from relisten.errors import InputError
from relisten.train.grpo.config import GrpoConfig
from relisten.train.grpo.trainer import train_grpo
from relisten.train.settings import dump_settings


def in_two_processes(config: GrpoConfig, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("accelerate")
    # The other processes need the reward.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=os.pathsep)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    file = out.parent / "settings.toml"
    file.write_text(dump_settings(config))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--main_process_port", "0", "-m", "relisten", "train", "grpo", "--json"]
    command += ["--config", str(file), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == config.steps


def test_two_processes_divide_a_model_in_half_precision(
    config: GrpoConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, steps=2, divided=True, precision="bf16", train_audio=True, gradient_checkpointing=True)
    in_two_processes(config, tmp_path / "two", monkeypatch)
    for row in rows(tmp_path / "two"):
        assert 0 < row["gap_mean"] < 0.005  # of the copy that answers
        assert row["updates"] > 0
        assert row["failed"] == 0
    before, after = weights(Path(config.model)), weights(tmp_path / "two" / "checkpoint")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert all(value.isfinite().all() for value in after.values())
    assert any("audio_tower.layers.0" in name for name in moved)
    assert any("language_model.layers.0" in name for name in moved)


@pytest.mark.parametrize(
    "change",
    [
        {"train_audio": True},
        {"train_audio": True, "divided": True},
        {"divided": True, "lora_rank": 2, "gradient_checkpointing": True, "old": "trainer"},
    ],
    ids=["replicas", "divided", "divided adapters"],
)
def test_two_processes_learn_what_one_does(
    config: GrpoConfig, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    config = replace(config, validation=str(questions), validation_size=3, **change)
    train_grpo(replace(config, steps=3), tmp_path / "alone")
    for steps in (2, 3):  # the second time the run goes on from its state
        (tmp_path / "two").mkdir(exist_ok=True)
        (tmp_path / "two" / "config.toml").write_text(dump_settings(replace(config, steps=steps)))
        in_two_processes(replace(config, steps=steps), tmp_path / "two", monkeypatch)
    alone, two = rows(tmp_path / "alone"), rows(tmp_path / "two")
    two[2] = {name: two[2][name] for name in alone[2]}  # its last step was validated when it was the last
    for mine, other in zip(alone, two, strict=True):
        assert mine.keys() == other.keys()
        gaps = {"gap_mean", "gap_max"}
        assert other.get("gap_max", 0.0) < 1e-4
        numbers = [name for name in mine if name not in gaps]
        assert [other[name] for name in numbers] == pytest.approx(
            [mine[name] for name in numbers], rel=1e-3, abs=1e-5
        )
    first, second = weights(tmp_path / "alone" / "checkpoint"), weights(tmp_path / "two" / "checkpoint")
    for name in first:
        torch.testing.assert_close(second[name], first[name], atol=2e-3, rtol=1e-2, msg=name)


def test_vllm_is_for_one_process(config: GrpoConfig, tmp_path: Path) -> None:
    two: Any = SimpleNamespace(count=2, index=0, first=True, device="cpu")
    with pytest.raises(InputError, match="engine vllm with 2 processes"):
        train_grpo(replace(config, engine="vllm"), tmp_path / "run", processes=two)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("first", [True, False])
def test_of_several_processes_the_first_one_tells_what_cannot_be_used(
    config: GrpoConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    first: bool,
) -> None:
    def agree(problem: InputError | None) -> None:
        raise InputError("the folder is full")

    two = SimpleNamespace(count=2, index=1 - first, first=first, device="cpu", agree=agree, close=lambda: None)
    monkeypatch.setattr("relisten.train.parallel.Processes", lambda device: two)
    monkeypatch.setenv("WORLD_SIZE", "2")
    (tmp_path / "c.toml").write_text(dump_settings(config))
    code, _, err = run(capsys, "train", "grpo", "--config", tmp_path / "c.toml", "--out", tmp_path / "run")
    assert code == 2
    assert ("the folder is full" in err) == first
