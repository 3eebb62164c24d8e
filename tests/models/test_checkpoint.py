"""Loading whole and thinker-only checkpoints, saving either, and every way in which a folder can be wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omni_checkpoint import noise, write_tokenizer
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from relisten import models
from relisten.errors import InputError
from relisten.models import checkpoint
from relisten.models.qwen2_5_omni import Qwen2_5Omni

INDEX, CONFIG, WEIGHTS = "model.safetensors.index.json", "config.json", "model.safetensors"
TALKER, TOKEN2WAV = "model-00003-of-00004.safetensors", "model-00004-of-00004.safetensors"


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    a_state, b_state = a.state_dict(), b.state_dict()
    return a_state.keys() == b_state.keys() and all(torch.equal(a_state[k], b_state[k]) for k in a_state)


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_whole_and_thinker_only_are_the_same_model(
    family: Qwen2_5Omni, thinker_folder: Path, stock: Qwen2_5OmniThinkerForConditionalGeneration
) -> None:
    alone = models.load(thinker_folder)
    assert alone.dtype == torch.float32
    assert not alone.thinker.training
    assert same_weights(alone.thinker, family.thinker)
    stock_state = stock.state_dict()
    for name, tensor in alone.thinker.state_dict().items():
        assert torch.equal(tensor, stock_state[name])
    for (name, ours), (_, theirs) in zip(
        alone.thinker.named_buffers(), ((n, b) for n, b in stock.named_buffers() if "visual" not in n), strict=True
    ):
        assert torch.equal(ours, theirs), name


def test_weights_outlive_their_file(thinker_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(thinker_folder, tmp_path / "m")
    family = models.load(folder)
    before = family.encode_audio([noise(0.5)])[0]
    (folder / WEIGHTS).write_bytes(b"\0" * (folder / WEIGHTS).stat().st_size)
    assert torch.equal(family.encode_audio([noise(0.5)])[0], before)


@pytest.mark.parametrize("source", ["omni_folder", "thinker_folder"])
def test_a_saved_thinker_loads_in_stock_transformers(
    source: str, request: pytest.FixtureRequest, stock: Qwen2_5OmniThinkerForConditionalGeneration, tmp_path: Path
) -> None:
    family = Qwen2_5Omni.load(request.getfixturevalue(source))
    with torch.no_grad():
        family.lm_head.weight.add_(1.0)
    family.save(tmp_path / "saved")
    loaded, report = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        tmp_path / "saved", output_loading_info=True
    )
    assert not any(report.values())
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded.lm_head.weight, stock.lm_head.weight + 1.0)
    assert same_weights(loaded.model, stock.model)  # the vision tower came along
    again = models.load(tmp_path / "saved")
    assert same_weights(again.thinker, family.thinker)
    assert again.encode_text("snare") == family.encode_text("snare")
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert "preprocessor_config.json" in names
    assert not names & {TALKER, TOKEN2WAV, "spk_dict.pt"}


def test_a_whole_checkpoint_keeps_what_was_never_loaded(omni_folder: Path, tmp_path: Path) -> None:
    family = Qwen2_5Omni.load(omni_folder)
    with torch.no_grad():
        family.lm_head.weight.mul_(2.0)
    family.save(tmp_path / "saved", whole=True)
    for name in (TALKER, TOKEN2WAV, "spk_dict.pt", "README.md", "tokenizer.json"):
        assert (tmp_path / "saved" / name).read_bytes() == (omni_folder / name).read_bytes()
    old, new = (json.loads((folder / INDEX).read_text()) for folder in (omni_folder, tmp_path / "saved"))
    assert new["weight_map"] == old["weight_map"]
    before, after = ({}, {})
    for shard in ("model-00001-of-00004.safetensors", "model-00002-of-00004.safetensors"):
        before |= load_file(omni_folder / shard)
        after |= load_file(tmp_path / "saved" / shard)
    before["thinker.lm_head.weight"] *= 2.0
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert same_weights(models.load(tmp_path / "saved").thinker, family.thinker)


def test_half_precision_is_saved_and_found_again(thinker_folder: Path, tmp_path: Path) -> None:
    Qwen2_5Omni.load(thinker_folder, "bfloat16").save(tmp_path / "half")
    assert models.load(tmp_path / "half").dtype == torch.bfloat16
    assert Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(tmp_path / "half").dtype == torch.bfloat16
    assert models.load(tmp_path / "half", torch.float32).dtype == torch.float32


def test_tied_word_embeddings_stay_tied(thinker_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(thinker_folder, tmp_path / "m")
    tensors = load_file(folder / WEIGHTS)
    del tensors["lm_head.weight"]
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(InputError, match="lacks 1 weights"):
        models.load(folder)
    edit(folder / CONFIG, lambda c: c.update(tie_word_embeddings=True))
    family = Qwen2_5Omni.load(folder)
    assert family.lm_head.weight is family.thinker.get_input_embeddings().weight
    family.save(tmp_path / "saved")
    assert same_weights(models.load(tmp_path / "saved").thinker, family.thinker)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    Qwen2_5Omni.load(folder).save(tmp_path / "again")
    assert same_weights(models.load(tmp_path / "again").thinker, family.thinker)


def test_saving_never_replaces_anything(family: Qwen2_5Omni, thinker_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(InputError, match="not empty"):
        family.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(InputError, match="thinker-only"):
        Qwen2_5Omni.load(thinker_folder).save(tmp_path / "new", whole=True)
    (tmp_path / "empty").mkdir()
    family.save(tmp_path / "empty")
    assert models.load(tmp_path / "empty").name == "qwen2_5_omni"


def test_saving_needs_the_source(omni_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(omni_folder, tmp_path / "m")
    family = Qwen2_5Omni.load(folder)
    (folder / "spk_dict.pt").unlink()
    with pytest.raises(InputError, match=r"spk_dict\.pt"):
        family.save(tmp_path / "new", whole=True)
    shutil.rmtree(folder)
    with pytest.raises(InputError, match="is gone"):
        family.save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_trainers_tensors_are_saved_in_place_of_the_modules(omni_folder: Path, tmp_path: Path) -> None:
    family = Qwen2_5Omni.load(omni_folder, "float32")
    held = {name: tensor.clone() for name, tensor in family.thinker.state_dict().items()}
    held["lm_head.weight"] *= 2.0
    family.save(tmp_path / "saved", whole=True, weights=held, dtype=torch.bfloat16)
    saved = models.load(tmp_path / "saved")
    assert saved.dtype == torch.bfloat16
    assert torch.equal(saved.lm_head.weight, held["lm_head.weight"].bfloat16())
    assert not torch.equal(saved.lm_head.weight, family.lm_head.weight.bfloat16())


def test_what_cannot_be_saved_is_told_before_training(omni_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(omni_folder, tmp_path / "m")
    family = Qwen2_5Omni.load(folder)
    family.check_savable(whole=True)
    (folder / "model-00003-of-00004.safetensors").unlink()
    with pytest.raises(InputError, match="model-00003"):
        family.check_savable(whole=True)
    family.check_savable(whole=False)


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def put(name: str, content: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes(content)


def change(name: str, **values: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / name, lambda content: content.update(values))


def retensor(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return apply


def only_pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def index_names(file: str) -> Callable[[Path], Any]:
    return put(INDEX, json.dumps({"weight_map": {"lm_head.weight": file}}).encode())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop(CONFIG), r"m: is no checkpoint folder \(it has no config\.json\)"),
        (put(CONFIG, b"{"), r"config\.json.*JSON"),
        (put(CONFIG, b"[]"), "not an object"),
        (change(CONFIG, model_type="llama"), "'llama'"),
        (change(CONFIG, model_type="qwen2_5_omni"), "with a thinker_config"),
        (change(CONFIG, audio_config="none"), "not valid"),
        (drop(WEIGHTS), "found none"),
        (only_pickled, r"only pytorch_model\.bin, which may run code"),
        (put(WEIGHTS, b"not safetensors"), "cannot be read as safetensors"),
        (index_names("../model.safetensors"), "names the file"),
        (index_names("pytorch_model.bin"), "names the file"),
        (index_names("model-1.safetensors"), "lacks"),
        (put(INDEX, b"{}"), "no weight_map"),
        (retensor(lambda t: t.pop("audio_tower.conv1.bias")), r"lacks 1 .*'model\.audio_tower\.conv1\.bias'"),
        (retensor(lambda t: t.update(extra=torch.zeros(1))), "unknown 1 weights .*'extra'"),
        (retensor(lambda t: t.update({"model.norm.weight": torch.zeros(7)})), r"shape \(7,\).*\(48,\)"),
        (drop("preprocessor_config.json"), r"preprocessor_config\.json"),
        (change("preprocessor_config.json", feature_size=80), "80 mel bands"),
        (drop("tokenizer.json"), "tokenizer"),
        (put("tokenizer.json", b"{}"), "tokenizer"),
        (put("tokenizer.json", b"not json"), "tokenizer cannot be loaded"),
        (lambda folder: write_tokenizer(folder, leave_out="<|AUDIO|>"), "do not fit together"),
        (lambda folder: write_tokenizer(folder, leave_out="<|im_start|>"), "no token <.im_start.>"),
        (change(CONFIG, text_config={}), "do not fit|lacks|shape"),
    ],
)
def test_a_damaged_checkpoint_says_so(
    damage: Callable[[Path], Any], message: str, thinker_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(thinker_folder, tmp_path / "m")
    damage(folder)
    with pytest.raises(InputError, match=message):
        models.load(folder)


@pytest.mark.parametrize("dtype", ["float16", torch.int8, "fast"])
def test_other_precisions_are_refused(thinker_folder: Path, dtype: torch.dtype | str) -> None:
    with pytest.raises(InputError, match="float32 or bfloat16"):
        models.load(thinker_folder, dtype)


@pytest.mark.parametrize("name", ["no-such-model", "a/b/c", "/no/such/folder", "../x", Path("some/folder")])
def test_a_name_that_is_neither_folder_nor_hub_id(name: str | Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "snapshot_download", lambda *a, **k: pytest.fail("reached for the network"))
    with pytest.raises(InputError, match="no folder and no hub id"):
        models.load(name)


def test_the_folder_of_a_training_run_says_where_its_checkpoint_is(thinker_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(thinker_folder, tmp_path / "checkpoint")
    with pytest.raises(InputError, match=f"there is a checkpoint in {tmp_path / 'checkpoint'}; give that"):
        models.load(tmp_path)


def test_a_hub_id_downloads_the_thinkers_files_only(omni_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[str] = set()

    def download(name: str, allow_patterns: list[str]) -> str:
        assert name == "Owner/Some.Model-7B"
        asked.update(allow_patterns)
        return str(omni_folder)

    monkeypatch.setattr(checkpoint, "snapshot_download", download)
    models.load("Owner/Some.Model-7B")
    shards = {"model-00001-of-00004.safetensors", "model-00002-of-00004.safetensors"}
    assert asked == {"*.json", "*.txt", "*.jinja", *shards}


def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(name: str, allow_patterns: list[str]) -> str:
        raise ConnectionError("no route\nlong story")

    monkeypatch.setattr(checkpoint, "snapshot_download", download)
    with pytest.raises(InputError, match=r"could not be downloaded \(no route\); check the name and the network"):
        models.load("Owner/Model")
