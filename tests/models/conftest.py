"""Random-weight Omni checkpoints in the two layouts that are loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from omni_checkpoint import PREPROCESSOR_CONFIG, thinker_config, write_tokenizer
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

from relisten.models.qwen2_5_omni import Qwen2_5Omni


@pytest.fixture(scope="session")
def thinker_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thinker-only checkpoint as transformers itself saves it."""
    folder = tmp_path_factory.mktemp("thinker")
    config = Qwen2_5OmniThinkerConfig.from_dict(thinker_config(write_tokenizer(folder)))
    torch.manual_seed(0)
    Qwen2_5OmniThinkerForConditionalGeneration(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR_CONFIG))
    return folder


@pytest.fixture(scope="session")
def omni_folder(thinker_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights as a whole Omni checkpoint. Talker and token2wav are no safetensors: reading them raises."""
    folder = tmp_path_factory.mktemp("omni")
    config = {
        "model_type": "qwen2_5_omni",
        "architectures": ["Qwen2_5OmniForConditionalGeneration"],
        "enable_audio_output": True,
        "thinker_config": thinker_config(write_tokenizer(folder)),
        "talker_config": {"model_type": "qwen2_5_omni_talker"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR_CONFIG))
    tensors = {f"thinker.{name}": t for name, t in load_file(thinker_folder / "model.safetensors").items()}
    names = sorted(tensors)
    shards = {
        "model-00001-of-00004.safetensors": names[::2],
        "model-00002-of-00004.safetensors": names[1::2],
        "model-00003-of-00004.safetensors": ["talker.model.norm.weight"],
        "model-00004-of-00004.safetensors": ["token2wav.code2wav_dit_model.norm_out.weight"],
    }
    for file, part in shards.items():
        if part[0] in tensors:
            save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        else:
            (folder / file).write_bytes(b"must not be read: " + part[0].encode())
    weight_map = {name: file for file, part in shards.items() for name in part}
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "spk_dict.pt").write_bytes(b"must not be unpickled")
    (folder / "README.md").write_text("a note")
    return folder


@pytest.fixture(scope="session")
def family(omni_folder: Path) -> Qwen2_5Omni:
    return Qwen2_5Omni.load(omni_folder, "float32")


@pytest.fixture(scope="session")
def stock(thinker_folder: Path) -> Qwen2_5OmniThinkerForConditionalGeneration:
    """The same weights in transformers' own hands, vision tower included."""
    model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(thinker_folder, dtype=torch.float32)
    return model.eval()
