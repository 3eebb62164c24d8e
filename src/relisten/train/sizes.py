"""Sizes of a model and of a pass through it, for dry runs; the model is built without weights.

Memory is an estimate for each process, in the parts that can be reasoned about: what is stored, what is gathered at
one time, which activations are kept. Allocators need some tenths more than the sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from torch import nn
from transformers import Qwen2_5OmniThinkerConfig

from relisten.errors import InputError
from relisten.models import locate
from relisten.models.qwen2_5_omni import AUDIO_TOWER, LANGUAGE_MODEL, Qwen2_5Omni, build_outline

KNOWN_SHAPES: Final = {"Qwen/Qwen2.5-Omni-7B": {"tie_word_embeddings": False}}
"""Models with the sizes of transformers' default configuration, except for the values given here."""
LOGITS_AT_ONCE: Final = 1024
"""Positions whose logits are held at one time."""


@dataclass(frozen=True)
class DryRun:
    """Sizes of a run. Memory in bytes for each process."""

    model: str
    exact: bool
    """False where the checkpoint is not at hand: sizes of a known model, lengths from the size of texts."""
    processes: int
    parameters: dict[str, int]
    memory: dict[str, int]
    data: dict[str, float] | None

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "exact": self.exact,
            "processes": self.processes,
            "parameters": self.parameters,
            "memory": {**self.memory, "total": sum(self.memory.values())},
            "data": self.data,
        }


def outline(model: str) -> tuple[Qwen2_5Omni | None, Any]:
    """A model without weights: its family where the checkpoint is at hand, and its thinker.

    Raises:
        InputError: it is neither at hand nor known.
    """
    try:
        family = Qwen2_5Omni.outline(locate(model))
    except InputError:
        if model not in KNOWN_SHAPES:
            raise
        return None, build_outline(Qwen2_5OmniThinkerConfig(**KNOWN_SHAPES[model]))
    return family, family.thinker


def count_parameters(thinker: nn.Module) -> dict[str, int]:
    """Numbers of parameters, by what they are."""
    everything = dict(thinker.named_parameters())
    heard = {name: p for name, p in everything.items() if name.startswith(f"{AUDIO_TOWER}.")}
    tower = sum(p.numel() for name, p in heard.items() if "lora_" not in name)
    adapters = sum(p.numel() for name, p in everything.items() if "lora_" in name)
    total = sum(p.numel() for p in everything.values())
    return {
        "total": total - adapters,
        "audio tower": tower,
        "language model": total - adapters - tower,
        "adapters": adapters,
        "trained": sum(p.numel() for p in everything.values() if p.requires_grad),
    }


def pass_memory(
    thinker: Any,
    tokens: int,
    processes: int,
    half: bool,
    *,
    gradient_checkpointing: bool,
    masked: bool,
    reshard: bool = True,
) -> dict[str, int]:
    """Bytes at the peak of a pass of `tokens` positions, by what they are for.

    Args:
        thinker: after `trainable.freeze`, which tells what is trained.
        processes: among which the model is divided.
        half: matrix products run in bfloat16.
        masked: several sequences in one row are told apart by a mask.
        reshard: gathered layers are given up again between forward and backward.
    """
    trained = sum(p.numel() for p in thinker.parameters() if p.requires_grad)
    frozen = _size(thinker) - trained
    compute = 2 if half else 4
    gathered = compute * trained if half else 0  # autocast keeps half precision copies of a pass
    if processes > 1:
        gathered = _gathered_memory(thinker, compute, reshard)
    # Where the model is divided, what passes from layer to layer is as precise as its gathered weights.
    residual = compute if processes > 1 else 4
    mask = 3 * tokens if masked else 0
    text = thinker.config.text_config
    activations = tokens * (_text_activations(text, compute, residual, gradient_checkpointing) + mask)
    if any(p.requires_grad for p in thinker.get_submodule(AUDIO_TOWER).parameters()):
        frames = 2 * tokens  # at most: a pass of nothing but sound; pooling halves the states
        activations += frames * _audio_activations(thinker.config.audio_config, compute, gradient_checkpointing)
    return {
        "weights": (4 * trained + compute * frozen) // processes,
        "gradients": 4 * trained // processes,
        "optimizer": 8 * trained // processes,
        "gathered": gathered,
        "activations": activations,
        "logits": min(LOGITS_AT_ONCE, tokens) * text.vocab_size * (compute + 12),
    }


def _gathered_memory(thinker: Any, compute: int, reshard: bool) -> int:
    """Weights of a divided model that are whole at one time: what belongs to no layer, and two layers or all; with
    those gradients of what belongs to no layer and of one layer, in float32 and in the precision of products."""
    layers = thinker.get_submodule(LANGUAGE_MODEL).layers
    layer = _size(layers[0])
    every_layer = sum(map(_size, [*layers, *thinker.get_submodule(AUDIO_TOWER).layers]))
    outer = _size(thinker) - every_layer
    adapters = any("lora_" in name for name, _ in thinker.named_parameters())
    held = 2 * layer if reshard else every_layer
    return compute * (outer + held) + (0 if adapters else (compute + 4) * (outer + layer))


def _text_activations(text: Any, compute: int, residual: int, gradient_checkpointing: bool) -> int:
    """What the language model keeps for the backward pass, for each token."""
    width = text.hidden_size
    heads = text.num_key_value_heads * (width // text.num_attention_heads)
    # Of one layer: states before and behind both norms in float32, the projections of attention and of the
    # feed-forward part, keys and values repeated for all heads.
    layer = 4 * 4 * width + compute * (8 * width + 4 * heads + 4 * text.intermediate_size)
    number = text.num_hidden_layers
    return int(number * residual * width + layer if gradient_checkpointing else number * layer)


def _audio_activations(audio: Any, compute: int, gradient_checkpointing: bool) -> int:
    """What the audio tower keeps for the backward pass, for each frame."""
    width = audio.d_model
    layer = 4 * 4 * width + compute * (6 * width + 2 * audio.encoder_ffn_dim)
    number = audio.encoder_layers
    return int(number * 4 * width + layer if gradient_checkpointing else number * layer)


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
