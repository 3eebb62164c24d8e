"""What is trained of a model, and adapters that are the same in every process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from relisten.errors import InputError
from relisten.models.qwen2_5_omni import AUDIO_TOWER, Qwen2_5Omni
from relisten.train.shared_settings import LoraSettings
from relisten.train.trainable import add_adapters, freeze, merge_adapters


@pytest.mark.parametrize("train_audio", [False, True])
def test_without_adapters_the_tower_is_frozen_unless_it_is_trained(family: Qwen2_5Omni, train_audio: bool) -> None:
    assert freeze(family.thinker, None, train_audio, seed=0) is None
    trained = {name for name, p in family.thinker.named_parameters() if p.requires_grad}
    assert any(name.startswith(AUDIO_TOWER) for name in trained) == train_audio
    assert "lm_head.weight" in trained


@pytest.mark.parametrize("audio", [False, True])
def test_adapters_are_float32_follow_from_the_seed_and_draw_nothing_else(tiny_folder: Path, audio: bool) -> None:
    pytest.importorskip("peft", reason="adapters need peft")
    found = []
    torch.manual_seed(1)
    before = torch.get_rng_state()
    for _ in range(2):
        family = Qwen2_5Omni.load(tiny_folder, dtype="bfloat16")
        plain = dict(family.thinker.state_dict())
        lora = LoraSettings(2, 4.0, ("q_proj", "down_proj"))
        add_adapters(family.thinker, lora, seed=7, audio=audio)
        trained = {name: p for name, p in family.thinker.named_parameters() if p.requires_grad}
        assert all("lora_" in name and p.dtype == torch.float32 for name, p in trained.items())
        assert any(name.startswith(AUDIO_TOWER) for name in trained) == audio
        merged = dict(merge_adapters(family.thinker.state_dict(), lora))  # which add nothing yet
        assert merged.keys() == plain.keys()
        assert all(torch.equal(merged[name], tensor) for name, tensor in plain.items())
        found.append(trained)
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_adapters_out_of_bounds_are_refused(family: Qwen2_5Omni) -> None:
    pytest.importorskip("peft", reason="adapters need peft")
    with pytest.raises(InputError, match="rank 0"):
        LoraSettings(0, 16.0)
    with pytest.raises(InputError, match="the language model has no 'fc1'; use some of q_proj, k_proj"):
        add_adapters(family.thinker, LoraSettings(2, 4.0, ("q_proj", "fc1")), seed=0)
