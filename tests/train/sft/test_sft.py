"""Fine-tuning of a checkpoint: what it learns, what it keeps, and that it goes on as if it had never stopped."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.cli import lines
from support.sounds import noise_clip
from transformers import Qwen2_5OmniForConditionalGeneration

from relisten.audio import write_clip
from relisten.data.examples import Example, write_examples
from relisten.errors import DivergedError, InputError
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.models.text import RESPONSE_TAGS
from relisten.protocol import Format
from relisten.question import Question
from relisten.train.sft import trainer as sft
from relisten.train.sft.config import FinetuneConfig
from relisten.train.sft.trainer import Finetuned, finetune
from relisten.train.watch import Watch

pytest.importorskip("accelerate", reason="training needs accelerate")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven examples to train on, two for validation."""
    folder = tmp_path_factory.mktemp("data")
    examples = []
    for n in range(9):
        write_clip(folder / f"{n}.wav", noise_clip(1.0 + 0.3 * (n % 4), n))
        heard = "so " * n
        response = f"<think>I hear <seg>0.2, 0.{6 + n % 3}</seg> {heard}</think><answer>{n % 2 + 1}</answer>"
        question = Question(f"How many {n}?", ("1", "2"), folder / f"{n}.wav", f"q{n}", str(n % 2 + 1))
        examples.append(Example(question, response, "count"))
    write_examples(folder / "train.jsonl", examples[:7])
    write_examples(folder / "validation.jsonl", examples[7:])
    return folder


@pytest.fixture
def config(tiny_folder: Path, data: Path) -> FinetuneConfig:
    return FinetuneConfig(
        model=str(tiny_folder), data=str(data), format=Format.INTERLEAVED, train_audio=True, batch_size=4,
        max_length=300, pass_tokens=400, lr=3e-3, epochs=3, validate_every=2, save_every=2, device="cpu",
        tensorboard=False,
    )  # fmt: skip


def run(config: FinetuneConfig, out: Path, stop_after: int | None = None) -> Finetuned:
    def on_step(done: int, steps: int, values: Mapping[str, float]) -> None:
        if done == stop_after:
            raise KeyboardInterrupt

    return finetune(config, out, watch=Watch(on_step=on_step))


def metrics(out: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if name != "seconds"} for row in lines(out / "metrics.jsonl")
    ]


def test_it_learns_and_says_how_the_checkpoint_was_made(config: FinetuneConfig, tmp_path: Path) -> None:
    result = run(config, tmp_path / "run")
    rows = metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert result.validation_loss == pytest.approx(rows[-1]["validation_loss"], rel=1e-5)
    assert rows[-1]["validation_loss"] < rows[1]["validation_loss"]
    made = json.loads((result.checkpoint / "training.json").read_text())
    assert made["config"]["lr"] == config.lr
    assert made["steps"] == 6
    assert sorted(path.name for path in (tmp_path / "run" / "states").iterdir()) == ["step-000004", "step-000006"]
    stock = Qwen2_5OmniForConditionalGeneration.from_pretrained(result.checkpoint)
    trained = Qwen2_5Omni.load(result.checkpoint, "float32")
    assert torch.equal(stock.thinker.lm_head.weight.float(), trained.lm_head.weight)


@pytest.mark.parametrize("stop_after", [1, 3, 6])
def test_a_run_that_was_ended_goes_on_as_if_it_had_not(
    config: FinetuneConfig, tmp_path: Path, stop_after: int
) -> None:
    config = replace(config, lora_rank=2, lora_dropout=0.2)
    whole = run(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "parts", stop_after)
    assert run(config, tmp_path / "parts").loss == whole.loss
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    before, after = (load_file(tmp_path / part / "checkpoint" / "model.safetensors") for part in ("whole", "parts"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert run(config, tmp_path / "parts").loss == whole.loss  # nothing is left to do


def test_tags_can_be_learned_as_tokens_that_the_model_did_not_have(
    config: FinetuneConfig, untagged_folder: Path, tmp_path: Path
) -> None:
    config = replace(config, model=str(untagged_folder))
    plain = run(config, tmp_path / "plain")
    result = run(replace(config, tag_tokens=True), tmp_path / "tags")
    begun, trained, still = (
        Qwen2_5Omni.load(folder, "float32") for folder in (untagged_folder, result.checkpoint, plain.checkpoint)
    )
    assert "<seg>" not in still.text.added
    for tag in RESPONSE_TAGS:
        (id_,) = trained.encode_response(tag)
        assert not torch.equal(
            trained.lm_head.weight[id_], begun.lm_head.weight[begun.encode_response(tag)].mean(0)
        )
    tokens = [metrics(tmp_path / name)[0]["tokens"] for name in ("plain", "tags")]
    assert tokens[1] < tokens[0]
    again = run(replace(config, model=str(result.checkpoint), tag_tokens=True), tmp_path / "again")
    assert again.loss < result.loss


def test_adapters_leave_no_place_for_tag_tokens(config: FinetuneConfig) -> None:
    with pytest.raises(InputError, match="adapters leave the embedding"):
        replace(config, tag_tokens=True, lora_rank=4)


@pytest.mark.parametrize("killed", [2, None])
def test_a_checkpoint_that_a_kill_prevented_is_made_when_the_run_goes_on(
    config: FinetuneConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: int | None
) -> None:
    config = replace(config, steps=3, export_every=2)
    export = sft._Run._export

    def dies(run: sft._Run, step: int | None, result: Mapping[str, float | None]) -> Path:
        if step == killed:
            raise KeyboardInterrupt
        return export(run, step, result)

    monkeypatch.setattr(sft._Run, "_export", dies)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path)
    monkeypatch.undo()
    result = run(config, tmp_path)
    last = metrics(tmp_path)[-1]
    assert (result.loss, result.validation_loss) == pytest.approx((last["loss"], last["validation_loss"]))
    assert json.loads((result.checkpoint / "training.json").read_text())["result"] == {
        "loss": result.loss,
        "validation_loss": result.validation_loss,
    }
    assert (tmp_path / "checkpoints" / "step-000002" / "training.json").exists()


def test_packed_and_padded_passes_learn_the_same(config: FinetuneConfig, tmp_path: Path) -> None:
    packed = run(replace(config, epochs=1, packing=True), tmp_path / "packed")
    padded = run(replace(config, epochs=1, pass_tokens=300), tmp_path / "padded")
    assert padded.loss == pytest.approx(packed.loss, rel=1e-4)
    assert padded.validation_loss == pytest.approx(packed.validation_loss, rel=1e-4)


def test_a_frozen_tower_and_what_is_never_loaded_stay_as_they_are(
    config: FinetuneConfig, tiny_folder: Path, tmp_path: Path
) -> None:
    source = shutil.copytree(tiny_folder, tmp_path / "source")
    names = list(load_file(source / "model.safetensors"))
    held = {**dict.fromkeys(names, "model.safetensors"), "talker.model.norm.weight": "talker.safetensors"}
    (source / "talker.safetensors").write_bytes(b"must not be read")
    (source / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": held}))
    (source / "spk_dict.pt").write_bytes(b"must not be unpickled")
    result = run(replace(config, model=str(source), train_audio=False, epochs=1), tmp_path / "run")
    for name in ("talker.safetensors", "spk_dict.pt", "tokenizer.json"):
        assert (result.checkpoint / name).read_bytes() == (source / name).read_bytes()
    before, after = (load_file(folder / "model.safetensors") for folder in (source, result.checkpoint))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(("thinker.model.", "thinker.lm_head.")) for name in changed)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks by an old name
def test_adapters_are_saved_alone_and_merged(config: FinetuneConfig, tiny_folder: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="adapters need peft")
    config = replace(config, lora_rank=2, lr=3e-2, epochs=1, saved_as="float32", export_every=1)
    result = run(config, tmp_path / "run")
    on_the_way = [tmp_path / "run" / kind / "step-000001" for kind in ("checkpoints", "adapters")]
    assert [(folder / "training.json").exists() for folder in on_the_way] == [True, False]
    assert (on_the_way[1] / "adapter_model.safetensors").exists()
    merged, base = Qwen2_5Omni.load(result.checkpoint), Qwen2_5Omni.load(tiny_folder, "float32")
    adapted = peft.PeftModel.from_pretrained(base.thinker, tmp_path / "run" / "adapter")
    adapted.merge_and_unload()
    weights = dict(base.thinker.state_dict())
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(Qwen2_5Omni.load(tiny_folder, "float32").thinker.get_parameter(name), weights[name])
    for name, tensor in merged.thinker.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], msg=name)


def test_half_precision_runs_on_a_cpu(config: FinetuneConfig, tmp_path: Path) -> None:
    half = run(replace(config, precision="bf16", epochs=1), tmp_path / "half")
    full = run(replace(config, epochs=1), tmp_path / "full")
    assert half.loss == pytest.approx(full.loss, rel=0.02)
    assert half.loss != full.loss


def test_small_steps_add_up_where_weights_are_stored_in_half_precision(
    config: FinetuneConfig, tiny_folder: Path, tmp_path: Path
) -> None:
    half = tmp_path / "half"
    Qwen2_5Omni.load(tiny_folder).save(half, whole=True, dtype=torch.bfloat16)
    # A step of 1e-6 is lost on a bfloat16 weight of 0.05.
    config = replace(config, model=str(half), precision="bf16", lr=1e-6, warmup=0.0, steps=1, weight_decay=0.0)
    exact = run(replace(config, saved_as="float32"), tmp_path / "exact").checkpoint
    before, after = (Qwen2_5Omni.load(folder, "float32").lm_head.weight.detach() for folder in (half, exact))
    assert 0.5e-6 < float((after - before).abs().mean()) < 1.1e-6
    assert Qwen2_5Omni.load(run(config, tmp_path / "run").checkpoint).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "near"),
    [
        ({"packing": True}, 1e-4),
        ({"precision": "bf16", "train_audio": False}, 1e-2),
        ({"precision": "bf16", "lora_rank": 2}, 1e-2),
    ],
    ids=["all weights, packed", "half precision, frozen tower, padded", "half precision, adapters"],
)
def test_two_processes_learn_what_one_does(
    config: FinetuneConfig, tmp_path: Path, change: dict[str, Any], near: float
) -> None:
    config = replace(config, **change)
    alone = run(config, tmp_path / "alone")
    options: list[str] = []
    for name, value in vars(config).items():
        option = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            options.append(option if value else option.replace("--", "--no-"))
        elif value not in ("", 0) and name != "betas":
            options += [option, str(value)]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += [
        "--main_process_port",
        "0",
        "-m",
        "relisten",
        "train",
        "sft",
        "--out",
        str(tmp_path / "two"),
        "--json",
    ]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == alone.steps
    made = json.loads((tmp_path / "two" / "checkpoint" / "training.json").read_text())
    assert made["processes"] == 2
    for mine, other in zip(metrics(tmp_path / "alone"), metrics(tmp_path / "two"), strict=True):
        assert other["loss"] == pytest.approx(mine["loss"], rel=near)
        assert other["gradient"] == pytest.approx(mine["gradient"], rel=10 * near)
    before, after = (load_file(tmp_path / part / "checkpoint" / "model.safetensors") for part in ("alone", "two"))
    if config.precision == "bf16":  # rounding decides the sign of Adam's steps where gradients are next to nothing
        return
    for name in before:
        torch.testing.assert_close(after[name], before[name], atol=2e-3, rtol=1e-2, msg=name)


def test_what_cannot_be_trained_is_told(config: FinetuneConfig, data: Path, tmp_path: Path) -> None:
    run(replace(config, steps=1), tmp_path / "run")
    with pytest.raises(InputError, match=r"holds a run with lr 0\.003 instead of 0\.1"):
        run(replace(config, steps=1, lr=0.1), tmp_path / "run")
    with pytest.raises(InputError, match="no example can be trained on"):
        run(replace(config, max_length=20), tmp_path / "short")
    assert len((tmp_path / "short" / "data" / "train-left-out.txt").read_text().splitlines()) == 7
    with pytest.raises(InputError, match="cannot be read"):
        run(replace(config, steps=1, validation="gone.jsonl"), tmp_path / "again")
    assert run(replace(config, steps=1), tmp_path / "again").steps == 1  # nothing had begun
    (tmp_path / "bad.jsonl").write_text("no example\n")
    with pytest.raises(InputError, match="no example can be trained on"):
        run(replace(config, data=str(tmp_path / "bad.jsonl")), tmp_path / "mended")
    assert run(replace(config, steps=1), tmp_path / "mended").validation_loss is not None  # of the good data
    with pytest.raises(InputError, match="holds other files"):
        run(config, data)
    with pytest.raises(InputError, match="no data"):
        run(replace(config, data=""), tmp_path / "none")
    with pytest.raises(InputError, match="has no 'w_proj'"):
        run(replace(config, lora_rank=1, lora_layers="q_proj,w_proj"), tmp_path / "lora")
    with pytest.raises(InputError, match="pass_tokens 200 is less than max_length 300"):
        replace(config, pass_tokens=200)


@pytest.mark.parametrize("spoilt_in", [0, 1])
def test_spoilt_weights_are_stepped_back_from(
    config: FinetuneConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoilt_in: int
) -> None:
    """Each number of the step that spoils them is finite: the loss of the next one tells."""
    monkeypatch.setattr(FinetuneConfig, "lr_at", lambda self, step, steps: 1e-4 if step < spoilt_in else 1e30)
    with pytest.raises(DivergedError, match=f"step {spoilt_in + 2}: loss nan.* spoilt the weights") as told:
        run(replace(config, clip_norm=0.0, save_every=1), tmp_path)
    assert [path.name for path in (tmp_path / "states").iterdir()] == ["step-000001"] * spoilt_in
    if spoilt_in:
        good = tmp_path / "checkpoints" / "step-000001"
        assert str(good) in str(told.value)
        assert all(value.abs().max() < 1e3 for value in load_file(good / "model.safetensors").values())
        assert json.loads((good / "training.json").read_text())["steps"] == 1
    else:
        assert "None before them were kept" in str(told.value)


def test_a_gradient_that_is_no_number_ends_the_run_before_its_update(
    config: FinetuneConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = iter([1.0, math.inf])
    monkeypatch.setattr(sft.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(next(lengths)))
    with pytest.raises(DivergedError, match=r"step 2: .*gradient inf.*step-000001: go on from them") as told:
        run(config, tmp_path)
    good = tmp_path / "checkpoints" / "step-000001"
    assert str(good) in str(told.value)
    assert all(value.isfinite().all() for value in load_file(good / "model.safetensors").values())


def test_rates_rise_and_fall() -> None:
    config = FinetuneConfig("m", lr=1.0, warmup=0.2)
    rates = [config.lr_at(step, 10) for step in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert 0 < rates[-1] < 0.05
    assert replace(config, schedule="constant").lr_at(9, 10) == 1.0
