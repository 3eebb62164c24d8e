"""A dry run counts what the run itself would do, and needs no weights for it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.sounds import noise_clip

from relisten.audio import write_clip
from relisten.data.examples import Example, write_examples
from relisten.errors import InputError
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.protocol import Format
from relisten.question import Question
from relisten.train.settings import SHIPPED, make_config, read_settings
from relisten.train.sft.config import FinetuneConfig
from relisten.train.sft.dryrun import dry_run
from relisten.train.sft.sequences import Layout

RESPONSE = "<think>I hear <seg>0.2, 1.0</seg> that.</think><answer>2</answer>"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    examples = []
    for n in range(5):
        write_clip(tmp_path / f"{n}.wav", noise_clip(1.0 + 0.5 * n, n))
        examples.append(Example(Question("How many?", audio=tmp_path / f"{n}.wav", id=f"{n}"), RESPONSE, ""))
    write_examples(tmp_path / "train.jsonl", examples)
    return tmp_path


def test_sizes_and_lengths_are_those_of_the_model(tiny_folder: Path, data: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(tiny_folder, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    config = FinetuneConfig(str(bare), str(data), format=Format.INTERLEAVED, batch_size=2, epochs=3)
    found = dry_run(config, processes=2)
    family = Qwen2_5Omni.load(tiny_folder)
    assert found.exact
    assert found.parameters["total"] == sum(p.numel() for p in family.thinker.parameters())
    assert found.parameters["trained"] == found.parameters["language model"]
    layout = Layout(family, Format.INTERLEAVED)
    examples = [Example(Question("How many?"), RESPONSE, "")] * 5
    lengths = [len(layout.sequence(e, noise_clip(1.0 + 0.5 * n, n)).ids) for n, e in enumerate(examples)]
    assert found.data is not None
    assert (found.data["examples"], found.data["steps"], found.data["passes a step"]) == (5, 9, 1)
    assert (found.data["tokens an epoch"], found.data["longest"]) == (sum(lengths), max(lengths))


def test_tag_tokens_make_examples_shorter(untagged_folder: Path, data: Path) -> None:
    found = []
    for tag_tokens in (False, True):
        family = Qwen2_5Omni.load(untagged_folder)
        if tag_tokens:
            family.add_tag_tokens()
        example = Example(Question("How many?"), RESPONSE, "")
        shortest = Layout(family, Format.GROUNDED).sequence(example, noise_clip(1.0))
        dry = dry_run(FinetuneConfig(str(untagged_folder), str(data), tag_tokens=tag_tokens), processes=1)
        assert dry.data is not None
        found.append((len(shortest.ids), dry.data["tokens an example"]))
    (pieces, mean_of_pieces), (tags, mean_of_tags) = found
    assert mean_of_pieces - mean_of_tags == pieces - tags > 6


def no_hub(path: str) -> None:
    raise InputError("no network")


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.startswith("sft-")])
def test_shipped_settings_run_dry_where_there_is_no_hub(
    name: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Qwen2_5Omni, "outline", no_hub)
    config = make_config(FinetuneConfig, {**read_settings(name), "data": str(data)})
    alone, eight = dry_run(config, 1), dry_run(config, 8)
    assert not alone.exact
    assert 7.5e9 < alone.parameters["trained"] < 7.7e9  # the 7B's language model, its head included
    assert alone.memory["optimizer"] == pytest.approx(8 * eight.memory["optimizer"], rel=1e-6)
    assert sum(eight.memory.values()) < 80 * 2**30 < sum(alone.memory.values())
    adapted = dry_run(replace(config, lora_rank=16), 1)
    assert adapted.parameters["trained"] == adapted.parameters["adapters"] < 0.01 * alone.parameters["trained"]
    assert json.loads(json.dumps(alone.to_json()))["data"]["steps"] == 1


def test_layers_that_stay_gathered_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Qwen2_5Omni, "outline", no_hub)
    config = FinetuneConfig("Qwen/Qwen2.5-Omni-7B", data="", precision="bf16")
    given_up, kept = (dry_run(replace(config, reshard=reshard), 8, "cuda").memory for reshard in (True, False))
    inner = 28 * 233_057_792 + 32 * 19_676_160  # weights of a layer of the language model, and of the tower
    assert kept["gathered"] - given_up["gathered"] == 2 * (inner - 2 * 233_057_792)
    assert {**kept, "gathered": 0} == {**given_up, "gathered": 0}


def test_an_unknown_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        dry_run(FinetuneConfig(str(tmp_path)), 1)
