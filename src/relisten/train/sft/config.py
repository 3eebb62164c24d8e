"""Settings of `relisten train sft`. Plain data; nothing runs here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from relisten.errors import InputError
from relisten.protocol import Format

MAY_CHANGE: Final = ("log_every", "save_every", "keep_states", "export_every", "tensorboard", "tracker", "threads")
"""What may differ when a run goes on: none of it touches a number of the model."""

_POSITIVE: Final = (
    "max_length", "batch_size", "pass_tokens", "epochs", "save_every", "keep_states", "validate_every", "log_every",
    "threads", "lr", "lora_alpha",
)  # fmt: skip
_NOT_NEGATIVE: Final = (
    "lora_rank", "steps", "export_every", "clip_norm", "weight_decay", "answer_weight", "heard_weight",
)  # fmt: skip


@dataclass(frozen=True)
class FinetuneConfig:
    """One supervised run on questions with responses. Defaults are those of the paper where it tells them."""

    model: Annotated[str, "echo-tiny, a checkpoint folder, or a hub id such as Qwen/Qwen2.5-Omni-7B."]
    data: Annotated[str, "JSONL (ours or ms-swift), or a folder that `relisten data export` wrote."] = ""
    validation: Annotated[str, "Likewise; empty: the validation split of a folder, if it has one."] = ""
    format: Annotated[Format, "Which layout is trained; only interleaved inserts sound."] = Format.GROUNDED
    answer_weight: Annotated[float, "Loss weight of the text of <answer>."] = 1.0
    heard_weight: Annotated[float, "Loss weight of text that follows an inserted crop."] = 1.0

    train_audio: Annotated[bool, "Train the audio tower, too."] = False
    lora_rank: Annotated[int, "Train adapters of this rank; 0 trains the weights themselves."] = 0
    lora_alpha: Annotated[float, "Their scale is this over the rank."] = 32.0
    lora_dropout: Annotated[float, "Share of their input that is dropped."] = 0.0
    lora_layers: Annotated[str, "Language model layers with adapters, by comma; empty: all linear ones."] = ""
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], "Of matrix products; auto: bf16 on a GPU. What is trained is kept in fp32."
    ] = "auto"
    attention: Annotated[Literal["sdpa", "flash_attention_2", "eager"], "Kernel of the language model."] = "sdpa"
    gradient_checkpointing: Annotated[bool, "Compute activations twice instead of keeping them."] = True
    reshard: Annotated[bool, "With several processes: gather weights anew for backward; saves memory."] = True

    max_length: Annotated[int, "Tokens; longer examples are left out and counted."] = 2048
    batch_size: Annotated[int, "Examples of a step, over all processes."] = 64
    pass_tokens: Annotated[
        int, "Positions a process computes at once; a step takes as many passes as it needs."
    ] = 8192
    packing: Annotated[bool, "Several examples in one row instead of padding; pays with flash_attention_2."] = False
    epochs: int = 1
    steps: Annotated[int, "Instead of epochs."] = 0

    lr: Annotated[float, "Highest learning rate."] = 5e-6
    warmup: Annotated[float, "Share of the steps in which it rises."] = 0.05
    schedule: Annotated[Literal["cosine", "linear", "constant"], "How it falls from there."] = "cosine"
    weight_decay: Annotated[float, "Of matrices; vectors have none."] = 0.1
    betas: Annotated[tuple[float, float], "Of AdamW."] = (0.9, 0.95)
    clip_norm: Annotated[float, "Longest gradient; 0 for no limit."] = 1.0
    seed: Annotated[int, "Of the order of examples, of adapters and of dropout."] = 0

    save_every: Annotated[int, "Steps between states to go on from."] = 200
    keep_states: Annotated[int, "How many of them are kept."] = 1
    export_every: Annotated[int, "Steps between checkpoints; 0: only at the end."] = 0
    validate_every: Annotated[int, "Steps between losses on the validation set."] = 200
    log_every: Annotated[int, "Steps between rows of metrics."] = 1
    layout: Annotated[
        Literal["auto", "whole", "thinker"],
        "Of checkpoints; auto: with talker and token2wav if they are there.",
    ] = "auto"
    saved_as: Annotated[Literal["auto", "bfloat16", "float32"], "Weights on disk; auto: as they were."] = "auto"
    tensorboard: Annotated[bool, "Write event files, if it is installed."] = True
    tracker: Annotated[Literal["none", "trackio", "wandb"], "Also log there; may use the network."] = "none"
    threads: Annotated[int, "That read sounds ahead, in every process."] = 4
    device: Annotated[str, "cpu, cuda, ...; auto takes a GPU if there is one."] = "auto"

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise InputError(f"{name} {getattr(self, name)}: it must be more than 0")
        for name in _NOT_NEGATIVE:
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} {getattr(self, name)}: it must be 0 or more")
        for name in ("warmup", "lora_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}: it must be at least 0 and less than 1")
        if self.pass_tokens < self.max_length:
            raise InputError(
                f"pass_tokens {self.pass_tokens} is less than max_length {self.max_length}: one example must fit "
                "into a pass; raise the one or lower the other"
            )

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of step 0 .. steps - 1."""
        rising = math.ceil(self.warmup * steps)
        if step < rising:
            return self.lr * (step + 1) / rising
        share = (step - rising) / max(1, steps - rising)
        fall = {"cosine": (1 + math.cos(math.pi * share)) / 2, "linear": 1 - share, "constant": 1.0}
        return self.lr * fall[self.schedule]
