"""Sizes of a model and of a pass through it, as a dry run tells them; the model is built without weights.

Memory is an estimate for each process, in the parts that can be reasoned about: what is stored, what is gathered at
one time, what activations are kept. Allocators need some tenths more than the sum.
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
"""Models whose sizes are those of transformers' default configuration, but for what stands here."""
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
    """How many there are, by what they are."""
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
    """The peak of a pass of `tokens` positions, by what it is for.

    Args:
        thinker: what is trained in it has gradients, and adapters are there (`trainable.freeze`).
        processes: among which the model is divided.
        half: matrix products run in bfloat16.
        masked: several sequences in one row are told apart by a mask.
        reshard: gathered layers are given up again between forward and backward.
    """
    adapters = any("lora_" in name for name, _ in thinker.named_parameters())
    tower = thinker.get_submodule(AUDIO_TOWER)
    trained = sum(p.numel() for p in thinker.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in thinker.parameters()) - trained
    compute = 2 if half else 4
    text = thinker.config.text_config
    layers = thinker.get_submodule(LANGUAGE_MODEL).layers
    layer = sum(p.numel() for p in layers[0].parameters())
    inner = [*layers, *tower.layers]
    outer = sum(p.numel() for p in thinker.parameters()) - sum(p.numel() for m in inner for p in m.parameters())
    if processes == 1:
        gathered = compute * trained if half else 0  # autocast keeps half precision copies of a pass
    else:
        # What belongs to no layer stays gathered; of the layers two or all, the gradient of one in both precisions.
        trained_outer = outer if not adapters else 0
        held = 2 * layer if reshard else sum(p.numel() for m in inner for p in m.parameters())
        gathered = compute * (outer + held) + (compute + 4) * (trained_outer + (0 if adapters else layer))
    width = text.hidden_size
    heads = text.num_key_value_heads * (width // text.num_attention_heads)
    # Of one layer, for each token: states before and behind both norms in float32, the projections of attention and
    # of the feed-forward part, keys and values repeated for all heads.
    kept = 4 * 4 * width + compute * (8 * width + 4 * heads + 4 * text.intermediate_size)
    mask = 3 * tokens if masked else 0
    residual = 2 if half and processes > 1 else 4
    layers = text.num_hidden_layers
    activations = tokens * (residual * width * layers + kept + mask)
    if not gradient_checkpointing:
        activations = tokens * (layers * kept + mask)
    if any(p.requires_grad for p in tower.parameters()):
        audio = thinker.config.audio_config
        frames = 2 * tokens  # at most: a pass of nothing but sound; pooling halves the states
        once = 4 * 4 * audio.d_model + compute * (6 * audio.d_model + 2 * audio.encoder_ffn_dim)
        layers = audio.encoder_layers
        activations += frames * (4 * audio.d_model * layers + once if gradient_checkpointing else once * layers)
    return {
        "weights": (4 * trained + compute * frozen) // processes,
        "gradients": 4 * trained // processes,
        "optimizer": 8 * trained // processes,
        "gathered": gathered,
        "activations": activations,
        "logits": min(LOGITS_AT_ONCE, tokens) * text.vocab_size * (compute + 12),
    }
