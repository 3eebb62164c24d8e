"""Models of a given shape with random weights, which cost the same time and need no download."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from relisten.models import default_dtype
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.models.tiny import TinyShape, build

_AUDIO = {
    "d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120, "n_window": 100,
}  # fmt: skip


def _sizes(width: int, inner: int, layers: int, heads: int, kv_heads: int) -> dict[str, dict[str, Any]]:
    quarter = width // heads // 8
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [quarter, *[3 * quarter // 2] * 2]}
    text = {
        "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "vocab_size": 152064, "max_position_embeddings": 32768,
        "rope_parameters": rope,
    }  # fmt: skip
    return {"audio_config": {**_AUDIO, "output_dim": width}, "text_config": text}


SHAPES: dict[str, dict[str, dict[str, Any]]] = {
    "echo-tiny": {"audio_config": {}, "text_config": {}},
    "0.5b": _sizes(896, 4864, 24, 14, 2),
    "3b": _sizes(2048, 11008, 36, 16, 2),
    "7b": _sizes(3584, 18944, 28, 28, 4),
}
"""What config.json of Qwen2.5-Omni's 7B and 3B, and of a model around Qwen2.5's 0.5B, says where it differs from
echo-tiny's."""


def make(sizes: Mapping[str, Mapping[str, Any]], device: torch.device, dtype: torch.dtype | None) -> Qwen2_5Omni:
    """A family with random weights, made on the device; echo-tiny's tokenizer does for any of `SHAPES`. Without a
    dtype, the one that is taken for a checkpoint of this size in bfloat16."""
    with tempfile.TemporaryDirectory() as name:
        folder = build(Path(name) / "tiny", shape=TinyShape())
        if any(sizes.values()):
            config = json.loads((folder / "config.json").read_text())
            for part, wanted in sizes.items():
                config["thinker_config"][part] |= wanted
            config["thinker_config"]["text_config"].pop("layer_types", None)
            (folder / "config.json").write_text(json.dumps(config))
            front = json.loads((folder / "preprocessor_config.json").read_text())
            front |= {"n_fft": 400, "hop_length": 160, "chunk_length": 300, "n_samples": 4800000}
            (folder / "preprocessor_config.json").write_text(json.dumps(front))
        family = Qwen2_5Omni.outline(folder)
        if dtype is None:
            os.truncate(folder / "model.safetensors", 2 * sum(p.numel() for p in family.thinker.parameters()))
            dtype = getattr(torch, default_dtype(str(device), folder))
    thinker = family.thinker
    thinker.to(dtype).to_empty(device=device)
    for module in thinker.modules():
        buffers = list(module.named_buffers(recurse=False))
        for buffer_name, buffer in buffers:
            module.register_buffer(buffer_name, buffer.float(), persistent=False)
        if buffers:
            thinker._init_weights(module)  # position tables are computed, in float32
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter_name, parameter in thinker.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.02)
            else:
                parameter.fill_(float(parameter_name.endswith("weight")))
    family.mel = family.mel.to(device)
    return family
