"""A whole run at the smallest size: every stage, a checkpoint that answers, and going on after a kill."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.cli import lines
from torch import Tensor

from relisten import models
from relisten.data.scenes import Event
from relisten.data.told import Told
from relisten.errors import DivergedError, InputError
from relisten.tools.finding import Moment
from relisten.train.scratch.config import PRESETS, ScratchConfig, Stage
from relisten.train.scratch.pool import PoolConfig, ScenePool
from relisten.train.scratch.tasks import TASKS
from relisten.train.scratch.trainer import train

SMOKE = PRESETS["smoke"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    train(SMOKE, out)
    return out


def test_a_run_ends_in_a_checkpoint_and_a_log(finished: Path) -> None:
    family = models.load(finished / "checkpoint")
    assert family.dtype == torch.bfloat16
    rows = lines(finished / "metrics.jsonl")
    assert [stage.name for stage in SMOKE.stages] == list(dict.fromkeys(row["stage"] for row in rows))
    assert all(row["loss"] > 0 for row in rows if "loss" in row)


def test_weights_move_in_every_part(finished: Path) -> None:
    before = models.load(finished / "start", dtype="float32").thinker.state_dict()
    after = models.load(finished / "checkpoint", dtype="float32").thinker.state_dict()
    for name in ("audio_tower.conv1", "audio_tower.proj", "layers.0.self_attn.q_proj", "lm_head"):
        key = next(key for key in before if name in key)
        assert not torch.equal(before[key], after[key])


class KilledError(Exception):
    pass


@pytest.mark.parametrize("ends", [KilledError, DivergedError])
def test_a_run_that_was_ended_goes_on_to_the_same_weights(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: type[Exception]
) -> None:
    from relisten.train.scratch import trainer as scratch

    loss = scratch._Run._loss

    def dies(run: scratch._Run, number: int, stage: Stage, step: int, pool: ScenePool) -> tuple[Tensor, Tensor]:
        total, weight = loss(run, number, stage, step, pool)
        if (number, step) != (1, 1):
            return total, weight
        if ends is KilledError:
            raise KilledError
        return total * math.nan, weight

    monkeypatch.setattr(scratch._Run, "_loss", dies)
    with pytest.raises(ends):
        train(SMOKE, tmp_path)
    monkeypatch.undo()
    train(SMOKE, tmp_path)
    for name, weight in models.load(finished / "checkpoint").thinker.state_dict().items():
        again = models.load(tmp_path / "checkpoint").thinker.state_dict()[name]
        assert torch.equal(weight, again), name
    rows = [[(row["stage"], row["step"]) for row in lines(out / "metrics.jsonl")] for out in (finished, tmp_path)]
    assert rows[0] == rows[1]


def test_findings_are_read_in_clips_of_which_tools_were_asked(tmp_path: Path) -> None:
    """Tools are asked about clips of up to 10 s; a stage may hear longer ones as well."""
    stage = Stage("read", 4, 1e-3, (("read", 0.5), ("qualities", 0.5)), rows=2, asked=2, longest=30.0)
    pool = PoolConfig(((4.0, 6), (12.0, 30)), tools=("silence",), told_share=1.0)
    train(replace(SMOKE, stages=(stage,), pool=pool, validation=replace(pool, split="validation")), tmp_path)
    assert [row["step"] for row in lines(tmp_path / "metrics.jsonl") if "loss" in row] == [1, 2, 3, 4]


def test_a_folder_of_another_run_is_refused(finished: Path) -> None:
    with pytest.raises(InputError, match="another configuration"):
        train(replace(SMOKE, seed=9), finished)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_task_makes_targets(finished: Path, task: str) -> None:
    import numpy as np

    scene = ScenePool.open(finished / "pool", SMOKE.pool).scene(0, 0)
    if TASKS[task].reads:
        kick = Event(1.0, 1.2, "kick", level=-6.0, weighted_level=-6.0)
        events = (kick, Event(2.0, 2.1, "clap", level=-30.0, weighted_level=-30.0))
        rises = (Moment(1.0, -6.2, "-6 dB"), Moment(2.05, -29.6, "-30 dB"))
        told = (Told("loudness", "[loudness] rises at 1.0 s -6 dB, 2.1 s -30 dB", rises),)
        scene = replace(scene, events=events, told=told)
    targets = TASKS[task].make(scene, np.random.default_rng(0), 3)
    assert 1 <= len(targets) <= 3
    assert all(target.response.startswith("<think>") for target in targets)


def test_pool_scenes_are_those_of_the_simulator(finished: Path) -> None:
    pool = ScenePool.open(finished / "pool", SMOKE.pool)
    assert pool.count(0) == 6
    scene = pool.scene(0, 2)
    assert scene.clip.duration == pytest.approx(4.0)
    assert scene.events
    assert all(0 <= event.onset < 4.0 for event in scene.events)


@pytest.mark.parametrize(
    "wrong",
    [{"mix": (("dance", 1.0),)}, {"steps": 0}, {"lr": 0.0}, {"rows": 0}, {"decay": 2.0}],
)
def test_a_stage_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Stage(**{"name": "x", "steps": 1, "lr": 1e-3, **wrong})  # type: ignore[arg-type]


def test_learning_rate_rises_stays_and_falls() -> None:
    stage = Stage("x", 100, 1.0, warmup=10, decay=0.5, last_lr=0.1)
    rates = [stage.lr_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:50] == pytest.approx([1.0] * 41)
    assert rates[99] == pytest.approx(0.118)
    assert rates[50:] == sorted(rates[50:], reverse=True)


def test_presets_say_who_they_are() -> None:
    assert PRESETS["echo-tiny"].digest != SMOKE.digest
    assert (
        ScratchConfig(SMOKE.stages, SMOKE.pool, SMOKE.validation).digest
        == ScratchConfig(SMOKE.stages, SMOKE.pool, SMOKE.validation).digest
    )
