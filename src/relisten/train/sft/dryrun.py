"""What a run would take, without running it: the model is built without weights, the data is only counted.

Memory is an estimate for each process, in the parts that can be reasoned about: what is stored, what is gathered at
one time, what activations are kept. Allocators need some tenths more than the sum.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import Qwen2_5OmniThinkerConfig

from relisten.data.examples import Example
from relisten.data.filters import duration
from relisten.errors import InputError
from relisten.models import locate
from relisten.models.qwen2_5_omni import AUDIO_TOWER, LANGUAGE_MODEL, Qwen2_5Omni, build_outline
from relisten.protocol import Segment, split_at_listens, system_prompt, user_text
from relisten.train.planning import divide, members_of_step, steps_of_epoch
from relisten.train.sft.config import FinetuneConfig
from relisten.train.sft.reading import TRAIN, read_dataset
from relisten.train.sft.sequence_loss import LOGITS_AT_ONCE
from relisten.train.sft.sequences import Layout, ReadySet, make_ready
from relisten.train.trained_model import freeze, half_precision

KNOWN_SHAPES: Final = {"Qwen/Qwen2.5-Omni-7B": {"tie_word_embeddings": False}}
"""Models whose sizes are those of transformers' default configuration, but for what stands here."""
_BYTES_A_TOKEN: Final = 3.5
"""Of English with tags and numbers in Qwen's vocabulary, roughly."""
_TOKENS_A_SECOND: Final = 25
_SAMPLED_STEPS: Final = 200


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


def dry_run(config: FinetuneConfig, processes: int, device: str = "cuda") -> DryRun:
    """Build what `config` trains without weights, and count.

    Raises:
        InputError: the model is neither at hand nor known, or the data cannot be read.
    """
    family, thinker = outline(config.model)
    freeze(thinker, config)
    parameters = count_parameters(thinker)
    half = half_precision(config, torch.device(device)) is not None
    data = None
    if config.data:
        lengths, left_out = _lengths(config, family)
        if not len(lengths):
            raise InputError(f"{config.data}: no example can be trained on ({left_out} left out)")
        data = _work(config, lengths, left_out, processes)
    memory = pass_memory(config, thinker, processes, half)
    return DryRun(config.model, family is not None, processes, parameters, memory, data)


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


def pass_memory(config: FinetuneConfig, thinker: Any, processes: int, half: bool) -> dict[str, int]:
    """The peak of a pass that is full, by what it is for."""
    trained = sum(p.numel() for p in thinker.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in thinker.parameters()) - trained
    compute = 2 if half else 4
    text, tokens = thinker.config.text_config, config.pass_tokens
    layers = thinker.get_submodule(LANGUAGE_MODEL).layers
    layer = sum(p.numel() for p in layers[0].parameters())
    inner = [*layers, *thinker.get_submodule(AUDIO_TOWER).layers]
    outer = sum(p.numel() for p in thinker.parameters()) - sum(p.numel() for m in inner for p in m.parameters())
    if processes == 1:
        gathered = compute * trained if half else 0  # autocast keeps half precision copies of a pass
    else:
        # What belongs to no layer stays gathered; of the layers two, and the gradient of one in both precisions.
        trained_outer = outer if not config.lora_rank else 0
        gathered = compute * (outer + 2 * layer) + (compute + 4) * (
            trained_outer + (0 if config.lora_rank else layer)
        )
    width = text.hidden_size
    heads = text.num_key_value_heads * (width // text.num_attention_heads)
    # Of one layer, for each token: states before and behind both norms in float32, the projections of attention and
    # of the feed-forward part, keys and values repeated for all heads.
    kept = 4 * 4 * width + compute * (8 * width + 4 * heads + 4 * text.intermediate_size)
    mask = 3 * tokens if config.packing and config.attention != "flash_attention_2" else 0
    residual = 2 if half and processes > 1 else 4
    layers = text.num_hidden_layers
    activations = tokens * (residual * width * layers + kept + mask)
    if not config.gradient_checkpointing:
        activations = tokens * (layers * kept + mask)
    if config.train_audio:
        audio = thinker.config.audio_config
        frames = 2 * tokens  # at most: a pass of nothing but sound; pooling halves the states
        once = 4 * 4 * audio.d_model + compute * (6 * audio.d_model + 2 * audio.encoder_ffn_dim)
        layers = audio.encoder_layers
        activations += frames * (
            4 * audio.d_model * layers + once if config.gradient_checkpointing else once * layers
        )
    return {
        "weights": (4 * trained + compute * frozen) // processes,
        "gradients": 4 * trained // processes,
        "optimizer": 8 * trained // processes,
        "gathered": gathered,
        "activations": activations,
        "logits": min(LOGITS_AT_ONCE, tokens) * text.vocab_size * (compute + 12),
    }


def _lengths(config: FinetuneConfig, family: Qwen2_5Omni | None) -> tuple[NDArray[np.int64], int]:
    """Tokens of every example that fits, and how many do not or are bad."""
    with tempfile.TemporaryDirectory() as folder:
        rows = read_dataset(config.data, TRAIN, Path(folder) / "sounds")
        if family is not None:
            layout = Layout(family, config.format)
            counts = make_ready(rows, Path(folder) / "train.jsonl", layout, config.max_length, config.threads)
            return ReadySet(Path(folder) / "train.jsonl").lengths, counts.bad + counts.too_long
        found, bad = [], 0
        for length in _rough_lengths(rows, config):
            if 0 < length <= config.max_length:
                found.append(length)
            else:
                bad += 1
        return np.array(found, dtype=np.int64), bad


def _rough_lengths(rows: Iterator[Example | InputError], config: FinetuneConfig) -> Iterator[int]:
    for row in rows:
        if isinstance(row, InputError) or not row.response:
            yield 0
            continue
        try:
            seconds = [duration(row)]
        except InputError:
            yield 0
            continue
        parts = split_at_listens(row.response, seconds[0], format=config.format)
        seconds += [part.duration for part in parts if isinstance(part, Segment)]
        written = f"{system_prompt(config.format)}{user_text(row.question)}{row.response}"
        sound = sum(round(_TOKENS_A_SECOND * each) + 2 for each in seconds)
        yield 12 + round(len(written.encode()) / _BYTES_A_TOKEN) + sound


def _work(config: FinetuneConfig, lengths: NDArray[np.int64], left_out: int, processes: int) -> dict[str, float]:
    of_epoch = steps_of_epoch(len(lengths), config.batch_size)
    steps = config.steps or config.epochs * of_epoch
    passes = [
        len(divide(members.tolist(), lengths, processes, config.pass_tokens, config.packing)[0])
        for members in (
            members_of_step(len(lengths), config.batch_size, config.seed, step)
            for step in range(min(steps, _SAMPLED_STEPS))
        )
    ]
    return {
        "examples": len(lengths),
        "left out": left_out,
        "tokens an epoch": int(lengths.sum()),
        "tokens an example": float(lengths.mean()),
        "longest": int(lengths.max()),
        "steps": steps,
        "tokens a step": float(lengths.mean() * min(config.batch_size, len(lengths))),
        "passes a step": float(np.mean(passes)),
    }
