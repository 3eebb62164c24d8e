"""Whole runs at the smallest size: learning, guards, going on after a kill, checkpoints."""

from __future__ import annotations

import json
import math
import shutil
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.cli import lines, run
from support.grpo_runs import rows, weights
from support.rewards import EVENNESS
from support.sounds import noise_clip

from relisten import models
from relisten.engines.base import Stream
from relisten.engines.native import NativeEngine
from relisten.errors import DivergedError, EngineError, InputError
from relisten.listener import Listener
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.question import Question
from relisten.trace import Trace
from relisten.train.grpo import trainer as grpo
from relisten.train.grpo.config import GrpoConfig
from relisten.train.grpo.policy import Policy
from relisten.train.grpo.policy_loss import Sums
from relisten.train.grpo.trainer import train_grpo
from relisten.train.grpo.updates import Gaps, Pass, Updates
from relisten.train.settings import dump_settings, make_config, read_settings
from relisten.train.watch import Watch


def constant(trace: Trace, question: Question) -> float:
    return 1.0


def test_reward_rises_and_every_guard_is_logged(config: GrpoConfig, questions: Path, tmp_path: Path) -> None:
    config = replace(
        config, steps=12, kl=0.01, lr=3e-3, validation=str(questions), validation_size=2, validate_every=6
    )
    seen: list[int] = []
    trained = train_grpo(config, tmp_path / "run", watch=Watch(on_step=lambda done, *_: seen.append(done)))
    assert seen == [*range(1, 13)]
    found = rows(tmp_path / "run")
    assert [row["step"] for row in found] == [*range(13)]
    first, last = found[1:4], found[-3:]
    assert sum(row["reward"] for row in last) > sum(row["reward"] for row in first) + 0.15
    for row in found[1:]:
        assert row["gap_max"] < 1e-4
        assert row["groups"] == 3
        assert row["updates"] == math.ceil((3 - row["groups_even"]) / 2)
        assert {"kl", "drift", "entropy", "clip_share", "grad_norm", "loss", "lr"} <= row.keys()
        assert {"listens", "listens_none", "listens_full", "tokens", "unfinished", "failed"} <= row.keys()
        assert row[f"reward_{EVENNESS}"] == pytest.approx(row["reward"])
    assert found[1]["kl"] == pytest.approx(0.0, abs=1e-6) or found[1]["updates"] > 1
    assert found[-1]["kl"] > 0
    assert [row["step"] for row in found if "val_reward" in row] == [0, 6, 12]
    assert "val_right_count" in found[0]
    told = lines(tmp_path / "run" / "rollouts" / "step-000001.jsonl")
    assert len(told) == 12
    assert {"id", "text", "earned", "advantage", "reference", "error"} <= told[0].keys()
    assert "spans" not in told[0]
    assert sum(row["advantage"] for row in told[:4]) == pytest.approx(0.0, abs=1e-6)
    assert trained.last["val_reward"] == found[-1]["val_reward"]
    before, after = weights(Path(config.model)), weights(trained.checkpoint)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("language_model.layers.0" in name for name in moved)
    assert not any("audio_tower" in name for name in moved)
    assert json.loads((trained.checkpoint / "training.json").read_text())["steps"] == 12


class KilledError(Exception):
    pass


@pytest.mark.parametrize("alive", [1, 3])
def test_a_killed_run_goes_on_with_the_same_losses(
    config: GrpoConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alive: int
) -> None:
    config = replace(config, train_audio=True, save_every=2, inner_epochs=2)
    train_grpo(config, tmp_path / "whole")
    step = grpo._Run._step

    def dies(run: grpo._Run, number: int) -> dict[str, float]:
        if number == alive:
            raise KilledError
        return step(run, number)

    monkeypatch.setattr(grpo._Run, "_step", dies)
    with pytest.raises(KilledError):
        train_grpo(config, tmp_path / "cut")
    monkeypatch.undo()
    train_grpo(config, tmp_path / "cut")
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    first, second = weights(tmp_path / "whole" / "checkpoint"), weights(tmp_path / "cut" / "checkpoint")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (tmp_path / "cut" / "rollouts" / "step-000004.jsonl").read_text() == (
        tmp_path / "whole" / "rollouts" / "step-000004.jsonl"
    ).read_text()


@pytest.mark.parametrize("folder", ["step-000002", "checkpoint"])
def test_a_checkpoint_that_a_kill_prevented_is_made_when_the_run_goes_on(
    config: GrpoConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    config = replace(config, steps=3, export_every=2, save_every=2)
    export = Policy.export

    def dies(policy: Policy, path: Path, steps: int) -> None:
        if path.name == folder:
            raise KilledError
        export(policy, path, steps)

    monkeypatch.setattr(Policy, "export", dies)
    with pytest.raises(KilledError):
        train_grpo(config, tmp_path)
    monkeypatch.undo()
    trained = train_grpo(config, tmp_path)
    assert json.loads((trained.checkpoint / "training.json").read_text())["steps"] == 3
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000002"]
    assert trained.last["loss"] == pytest.approx(rows(tmp_path)[-1]["loss"])


def test_a_finished_run_is_left_as_it_is(config: GrpoConfig, tmp_path: Path) -> None:
    trained = train_grpo(replace(config, steps=1), tmp_path)
    made = (trained.checkpoint / "training.json").stat().st_mtime_ns

    def never(family: Qwen2_5Omni) -> NativeEngine:
        raise AssertionError

    again = train_grpo(replace(config, steps=1), tmp_path, engine=never)
    assert (again.checkpoint, again.steps) == (trained.checkpoint, 1)
    assert again.last["loss"] == pytest.approx(trained.last["loss"])
    assert (trained.checkpoint / "training.json").stat().st_mtime_ns == made


def test_a_folder_of_another_run_is_refused_and_unimportant_settings_may_change(
    config: GrpoConfig, tmp_path: Path
) -> None:
    train_grpo(replace(config, steps=1), tmp_path)
    with pytest.raises(InputError, match=r"lr 0\.001 instead of 0\.1"):
        train_grpo(replace(config, steps=1, lr=0.1), tmp_path)
    train_grpo(replace(config, steps=1, record="full", save_every=9), tmp_path)
    assert make_config(GrpoConfig, read_settings(tmp_path / "config.toml")).save_every == 9


def test_even_groups_are_counted_and_teach_nothing(config: GrpoConfig, tmp_path: Path) -> None:
    notes: list[str] = []
    config = replace(config, steps=1, reward=f"{__name__}:constant")
    trained = train_grpo(config, tmp_path, watch=Watch(on_note=notes.append))
    [row] = rows(tmp_path)
    assert row["groups_even"] == row["groups"] == 3
    assert row["updates"] == 0
    assert row["loss"] == 0.0
    assert any("teaches nothing" in note for note in notes)
    before, after = weights(Path(config.model)), weights(trained.checkpoint)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_failed_answers_are_recorded_and_left_out(config: GrpoConfig, questions: Path, tmp_path: Path) -> None:
    folder = questions.parent
    missing = folder / "missing.jsonl"
    broken = {"id": "gone", "audio": "nowhere.wav", "question": "How?", "answer": "1"}
    extra = ['{"id": "x"}\n', '{"id": "open", "audio": "0.wav", "question": "How?"}\n']
    text = "".join(questions.read_text().splitlines(keepends=True)[:2])
    missing.write_text(text + json.dumps(broken) + "\n" + "".join(extra))
    notes: list[str] = []
    train_grpo(
        replace(config, steps=1, questions=str(missing)), tmp_path / "run", watch=Watch(on_note=notes.append)
    )
    [row] = rows(tmp_path / "run")
    assert row["failed"] == 4
    told = [r for r in lines(tmp_path / "run" / "rollouts" / "step-000001.jsonl") if r["id"] == "gone"]
    assert len(told) == 4
    assert all(r["earned"] is None and r["advantage"] is None and "nowhere.wav" in r["error"] for r in told)
    assert any("2 questions are left out" in note for note in notes)
    missing.write_text(json.dumps(broken) + "\n")
    with pytest.raises(EngineError, match=r"every answer failed.*nowhere\.wav"):
        train_grpo(replace(config, steps=1, questions=str(missing)), tmp_path / "none")


def test_what_is_no_number_stops_the_run_and_leaves_what_was_saved(
    config: GrpoConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from relisten.train.grpo import updates

    calls: list[int] = []
    real = updates.policy_loss

    def breaks(logprobs: torch.Tensor, *rest: Any) -> Any:
        calls.append(1)
        loss, sums = real(logprobs, *rest)
        return loss * (math.nan if len(calls) > 4 else 1.0), sums

    monkeypatch.setattr(updates, "policy_loss", breaks)
    with pytest.raises(DivergedError, match=r"step [23]: loss nan") as told:
        train_grpo(config, tmp_path)
    kept = max((tmp_path / "states").iterdir())
    assert kept.name == f"step-{rows(tmp_path)[-1]['step']:06d}"
    good = tmp_path / "checkpoints" / kept.name
    assert str(good) in str(told.value)
    assert all(value.isfinite().all() for value in weights(good).values())
    monkeypatch.undo()
    goes_on = train_grpo(config, tmp_path)  # from weights that are numbers
    assert all(value.isfinite().all() for value in weights(goes_on.checkpoint).values())


def test_the_checkpoint_of_a_step_is_not_replaced_by_weights_from_amid_the_next(
    config: GrpoConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, export_every=1, steps=2)
    losses = iter([1.0] * 3 + [math.nan])  # two updates a step: the second of the second step

    def accumulate(updates: Updates, update: Sequence[Pass], gaps: Gaps | None) -> tuple[float, Sums]:
        _, sums = real(updates, update, gaps)
        return next(losses), sums

    real = Updates._accumulate
    monkeypatch.setattr(Updates, "_accumulate", accumulate)
    good = tmp_path / "checkpoints" / "step-000001"
    for _ in range(2):  # the second time the run goes on from its state, to the same end
        with pytest.raises(DivergedError, match="step 2: loss nan") as told:
            train_grpo(config, tmp_path)
        assert str(good) in str(told.value)
        losses = iter([1.0, math.nan])
    monkeypatch.undo()
    train_grpo(replace(config, steps=1), tmp_path / "one")
    before, after = weights(tmp_path / "one" / "checkpoint"), weights(good)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("spoilt_in", [0, 1])
@pytest.mark.parametrize("update_size", [3, 2])
def test_spoilt_weights_are_stepped_back_from(
    config: GrpoConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoilt_in: int, update_size: int
) -> None:
    """Each number of the update that spoils them is finite: the next one tells, or the next step's answers."""
    monkeypatch.setattr(GrpoConfig, "lr_at", lambda self, step, steps: 1e-4 if step < spoilt_in else 1e30)
    if update_size == 3:  # one update a step
        told = f"step {spoilt_in + 2}: every answer came to no number, so step {spoilt_in + 1} spoilt the weights"
    else:
        told = f"step {spoilt_in + 1}: loss nan.* an update before it spoilt the weights"
    with pytest.raises(DivergedError, match=told) as error:
        train_grpo(replace(config, clip_norm=0.0, kl=0.0, update_size=update_size), tmp_path)
    left = [path.name for path in (tmp_path / "states").glob("step-*")]
    if spoilt_in:
        assert left == ["step-000001"]
        good = tmp_path / "checkpoints" / "step-000001"
        assert str(good) in str(error.value)
        assert all(value.abs().max() < 1e3 for value in weights(good).values())
    else:
        assert left == []
        assert "None before them were kept" in str(error.value)


def test_a_model_that_answers_nothing_from_the_start_is_told(config: GrpoConfig, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(config.model, model)
    broken = load_file(model / "model.safetensors")
    broken = {name: tensor * math.nan if "lm_head" in name else tensor for name, tensor in broken.items()}
    save_file(broken, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EngineError, match=r"step 1: every answer failed.*no numbers"):
        train_grpo(replace(config, model=str(model)), tmp_path / "run")


def test_what_a_run_would_write_over_is_refused(config: GrpoConfig, tmp_path: Path) -> None:
    model = tmp_path / "models" / "checkpoint"
    shutil.copytree(config.model, model)
    with pytest.raises(InputError, match="give another --out"):
        train_grpo(replace(config, model=str(model), steps=1), tmp_path / "models")
    assert (model / "model.safetensors").is_file()
    with pytest.raises(InputError, match="holds other files and no run"):
        train_grpo(replace(config, steps=1), model)
    own = tmp_path / "own"
    own.mkdir()
    (own / "config.toml").write_text("# mine\nsteps = 1\n")
    with pytest.raises(InputError, match="no settings of such a run"):
        train_grpo(replace(config, steps=1), own)
    assert (own / "config.toml").read_text().startswith("# mine")


def test_a_checkpoint_does_not_carry_the_figures_of_its_start(config: GrpoConfig, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(config.model, model)
    for name in ("metrics.json", "training.jsonl"):
        (model / name).write_text("{}\n")
    trained = train_grpo(replace(config, model=str(model), steps=1), tmp_path / "run")
    names = {path.name for path in trained.checkpoint.iterdir()}
    assert not names & {"metrics.json", "training.jsonl"}
    assert {"training.json", "model.safetensors", "config.json"} <= names


def test_adapters_are_trained_alone_against_the_base(config: GrpoConfig, tmp_path: Path) -> None:
    config = replace(config, lora_rank=2, steps=3, lr=1e-2, gradient_checkpointing=True)
    trained = train_grpo(config, tmp_path)
    found = rows(tmp_path)
    assert all(row["gap_max"] < 1e-4 for row in found)
    assert found[0]["kl"] < found[-1]["kl"]
    before, after = weights(Path(config.model)), weights(trained.checkpoint)
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.endswith("_proj.weight") and ".layers." in name for name in moved)


@pytest.mark.parametrize("change", [{"old": "trainer"}, {"precision": "bf16"}])
def test_an_engine_that_differs_is_weighed(config: GrpoConfig, tmp_path: Path, change: dict[str, Any]) -> None:
    train_grpo(replace(config, steps=2, **change), tmp_path)
    gaps = [row["gap_max"] for row in rows(tmp_path)]
    assert all(gap < (1e-4 if "old" in change else 0.3) for gap in gaps)
    assert all(gap > 1e-4 for gap in gaps) == ("precision" in change)


class Remote:
    """An engine with weights of its own, which know nothing of training unless they are handed over."""

    def __init__(self, folder: str) -> None:
        self.family = models.load(folder, dtype="float32")
        self.engine = NativeEngine(self.family)
        self.model = "remote"
        self.taken = 0

    def open(self, *arguments: Any) -> Stream:
        return self.engine.open(*arguments)

    def update_weights(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        self.taken += 1
        self.family.thinker.load_state_dict(dict(tensors))

    def close(self) -> None:
        self.engine.close()


def test_an_engine_with_weights_of_its_own_is_kept_up_to_date(config: GrpoConfig, tmp_path: Path) -> None:
    made: list[Remote] = []

    def make(family: Qwen2_5Omni) -> Remote:
        made.append(Remote(config.model))
        return made[-1]

    config = replace(config, lora_rank=2, lr=1e-2)
    train_grpo(replace(config, steps=3), tmp_path / "run", engine=make)
    assert made[0].taken == 3
    assert all(row["gap_max"] < 1e-4 for row in rows(tmp_path / "run"))
    assert rows(tmp_path / "run")[-1]["kl"] > 0
    (tmp_path / "run" / "config.toml").write_text(dump_settings(replace(config, steps=4)))
    train_grpo(replace(config, steps=4), tmp_path / "run", engine=make)
    assert made[1].taken == 2  # at the start, and after the step
    assert rows(tmp_path / "run")[-1]["gap_max"] < 1e-4


@pytest.mark.parametrize(
    "change",
    [
        {"normalise": False, "averaging": "constant"},
        {"averaging": "sequence", "unfinished": "mask"},
        {"kl": 0.0, "entropy": 0.01, "format": "grounded"},
    ],
)
def test_other_objectives_run(config: GrpoConfig, tmp_path: Path, change: dict[str, Any]) -> None:
    values = {**tomllib.loads(dump_settings(config)), **change, "steps": 1}
    train_grpo(make_config(GrpoConfig, values), tmp_path)
    [row] = rows(tmp_path)
    assert row["unfinished"] > 0.8  # a random model hardly ever ends its turn
    assert math.isfinite(row["loss"])


def test_the_command_trains_goes_on_and_reads_a_file(
    config: GrpoConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(dump_settings(replace(config, steps=2)))
    arguments: Sequence[object] = ("train", "grpo", "--out", tmp_path / "run", "--config", file, "--json")
    code, out, err = run(capsys, *arguments)
    assert code == 0, err
    assert json.loads(out)["steps"] == 2
    assert "step 2 of 2: reward" in err
    code, _, err = run(capsys, *arguments, "--lr", "0.5")
    assert code == 2
    assert "lr 0.001 instead of 0.5" in err
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    file.write_text(dump_settings(config) + "epoch = 3\n")
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert "did you mean epochs?" in err
    code, _, err = run(capsys, "train", "grpo", "--out", tmp_path / "new")
    assert code == 2
    assert "no model: give --model" in err
    code, _, err = run(capsys, "train", "grpo", "--config", file)
    assert code == 2
    file.write_text(dump_settings(config))
    code, _, err = run(capsys, "train", "grpo", "--config", file)
    assert code == 2
    assert "--out is not given" in err


def test_a_dry_run_counts(config: GrpoConfig, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(dump_settings(config))
    code, out, err = run(capsys, "train", "grpo", "--config", file, "--dry-run", "--json", "--processes", "2")
    assert code == 0, err
    found = json.loads(out)
    parameters, memory = found["parameters"], found["memory"]
    assert parameters["trained"] == parameters["language model"]
    assert memory["weights"] == 4 * parameters["total"]
    assert memory["reference"] == memory["gradients"] == 4 * parameters["trained"]
    assert memory["optimizer"] == 2 * memory["gradients"]
    # 12 answers, 512 + 8 + 8 x 75 tokens, keys and values, 2 layers of 64, 4 bytes
    assert memory["rollouts"] == 12 * 1120 * 2 * 2 * 64 * 4
    assert found["data"]["questions"] == 6
    assert found["data"]["answers a step"] == 12
    assert found["data"]["answers a step and process"] == 8
    code, out, _ = run(capsys, "train", "grpo", "--config", file, "--dry-run", "--json", "--engine", "vllm")
    assert json.loads(out)["memory"]["answering"] == 4 * parameters["total"]
    arguments = ("--config", file, "--dry-run", "--json", "--lora-rank", "2", "--precision", "bf16")
    code, out, _ = run(capsys, "train", "grpo", *arguments)
    found = json.loads(out)
    parameters, memory = found["parameters"], found["memory"]
    assert memory["weights"] == 2 * parameters["total"] + 4 * parameters["adapters"]
    code, out, _ = run(capsys, "train", "grpo", "--config", "grpo-qwen2.5-omni-7b", "--dry-run", "--processes", "8")
    assert code == 0
    assert "adapters" in out
    assert "memory of a process, of 8, estimated" in out
    code, _, err = run(capsys, "train", "grpo", "--config", "grpo-qwen2.5-omni-7b", "--out", tmp_path / "x")
    assert code == 2
    assert "no questions: give --questions" in err


def test_a_trained_model_answers_and_transformers_loads_it(config: GrpoConfig, tmp_path: Path) -> None:
    from transformers import Qwen2_5OmniForConditionalGeneration

    trained = train_grpo(replace(config, steps=1, saved_as="float32", export_every=1), tmp_path)
    stock = Qwen2_5OmniForConditionalGeneration.from_pretrained(trained.checkpoint, dtype="auto").state_dict()
    mine = weights(trained.checkpoint)
    assert all(torch.equal(stock[f"thinker.{name}"], value) for name, value in mine.items())
    assert weights(tmp_path / "checkpoints" / "step-000001").keys() == mine.keys()
    with Listener.load(trained.checkpoint) as listener:
        assert listener.ask(noise_clip(2.0), "How many?", max_tokens=4).token_ids
