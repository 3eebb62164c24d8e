"""Reinforcement learning with answers from vLLM: it always has the weights in training."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from support.cli import lines
from support.questions import write_rows
from support.rewards import EVENNESS
from support.sounds import noise_clip
from support.vllm import TOLERANCE, answers, assert_same, needs_vllm

from relisten import models
from relisten.audio import write_clip
from relisten.engines.native import NativeEngine
from relisten.models.qwen2_5_omni import AUDIO_TOWER, Qwen2_5Omni
from relisten.question import Question
from relisten.train.grpo import trainer as grpo
from relisten.train.grpo.config import GrpoConfig
from relisten.train.grpo.rollouts import make_engine
from relisten.train.grpo.trainer import train_grpo
from relisten.train.watch import Watch

if TYPE_CHECKING:
    from relisten.engines.vllm.engine import VllmEngine


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> GrpoConfig:
    folder = tmp_path_factory.mktemp("questions")
    rows: list[dict[str, object]] = []
    for i in range(2):
        write_clip(folder / f"{i}.wav", noise_clip(2.0 + i, i))
        rows.append({"id": f"q{i}", "audio": f"{i}.wav", "question": "How many sounds are there?", "answer": "1"})
    write_rows(folder / "questions.jsonl", rows)
    return GrpoConfig(
        model="echo-tiny",
        questions=str(folder / "questions.jsonl"),
        reward=EVENNESS,
        engine="vllm",
        engine_options="max_context=1024",
        batch_size=2,
        group_size=4,
        update_size=2,
        steps=2,
        max_tokens=24,
        lr=3e-4,
        saved_as="float32",
        tensorboard=False,
        device="cpu",
    )


@pytest.fixture(scope="module")
def vllm(config: GrpoConfig) -> Iterator[VllmEngine]:
    """What a run would start for itself."""
    made: Any = make_engine(config, load("echo-tiny"))
    yield made
    made.close()


def load(model: str | Path) -> Qwen2_5Omni:
    family = models.load(model, dtype="float32")
    assert isinstance(family, Qwen2_5Omni)
    return family


class Lent:
    """An engine that whoever closes it leaves open."""

    def __init__(self, engine: VllmEngine) -> None:
        self.model, self.open, self.update_weights = engine.model, engine.open, engine.update_weights

    def close(self) -> None:
        """It is another's."""


def lent(engine: VllmEngine) -> Lent:
    """As if it had just been started."""
    engine.update_weights(load("echo-tiny").thinker.state_dict())
    return Lent(engine)


@needs_vllm
@pytest.mark.parametrize("adapters", [0, 4])
def test_vllm_answers_with_the_weights_in_training(
    config: GrpoConfig, vllm: VllmEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapters: int
) -> None:
    started = load("echo-tiny")
    monkeypatch.setattr(grpo, "make_engine", lambda *_: lent(vllm))
    config = replace(config, lora_rank=adapters, train_audio=not adapters)
    trained = load(train_grpo(config, tmp_path).checkpoint)
    rows = lines(tmp_path / "metrics.jsonl")
    assert [row["failed"] for row in rows] == [0, 0]
    assert all(row["updates"] == 1 for row in rows)
    # Of the second step, too, whose answers come from weights that vLLM was given behind the first.
    assert all(row["gap_max"] < TOLERANCE for row in rows)
    before, after = started.thinker.state_dict(), trained.thinker.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    heard = {name for name in moved if AUDIO_TOWER in name}
    assert moved > heard
    assert bool(heard) is not bool(adapters)
    asked = [Question("What is there?", (), noise_clip(2.5, seed)) for seed in range(4)]
    found = asyncio.run(answers(vllm, asked, max_tokens=40))
    with NativeEngine(trained) as native:
        assert_same(found, asyncio.run(answers(native, asked, max_tokens=40)))
    with NativeEngine(started) as native:
        old = asyncio.run(answers(native, asked, max_tokens=40))
    for one, other in zip(found, old, strict=True):
        assert one.logprobs != pytest.approx(other.logprobs, abs=100 * TOLERANCE)


class KilledError(Exception):
    pass


@needs_vllm
def test_a_killed_run_goes_on_with_its_weights_in_vllm(
    config: GrpoConfig, vllm: VllmEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(done: int, steps: int, values: Mapping[str, float]) -> None:
        raise KilledError

    monkeypatch.setattr(grpo, "make_engine", lambda *_: lent(vllm))
    config = replace(config, save_every=1)
    with pytest.raises(KilledError):
        train_grpo(config, tmp_path, watch=Watch(on_step=dies))
    assert train_grpo(config, tmp_path).steps == 2
    rows = lines(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["gap_max"] < TOLERANCE for row in rows)
