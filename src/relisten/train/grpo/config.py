"""Settings of `relisten train grpo`. Plain data; nothing runs here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from relisten.engines.options import named_values
from relisten.errors import InputError
from relisten.protocol import MAX_LISTENS, MAX_TOKENS, Format
from relisten.train.shared_settings import Betas, Decay, TrainsAudio, TrainSettings, check_numbers

MAY_CHANGE: Final = (
    "save_every",
    "export_every",
    "saved_as",
    "record",
    "tensorboard",
    "tracker",
    "divided",
    "max_rows",
    "engine_options",
    "threads",
    "device",
)
"""What may differ when a run goes on: none of it touches a number of the model, but for rounding."""

_POSITIVE: Final = (
    "batch_size", "update_size", "inner_epochs", "epochs", "max_tokens", "pass_tokens", "max_rows", "lr",
    "importance_cap", "crop_speed", "validate_every", "save_every",
)  # fmt: skip
_NOT_NEGATIVE: Final = (
    "max_listens", "clip_low", "clip_high", "kl", "weight_decay", "warmup", "seed", "validation_size", "threads",
)  # fmt: skip


class Averaging(StrEnum):
    """How the tokens of one update are averaged into its loss."""

    TOKEN = "token"
    """Every token counts alike, so that long answers weigh more."""
    SEQUENCE = "sequence"
    """Every answer counts alike: the mean over its tokens, then over answers (GRPO as first stated)."""
    CONSTANT = "constant"
    """The sum over tokens by the number of answers and a constant (Dr. GRPO): no answer is favoured for its
    length."""


@dataclass(frozen=True)
class GrpoConfig(TrainSettings):
    """One run of reinforcement learning on questions with reference answers. Defaults are the paper's."""

    questions: Annotated[str, "JSONL of questions with reference answers."] = ""
    validation: Annotated[str, "Likewise, to be asked now and then; empty: none."] = ""
    format: Annotated[Format, "How to reason; only interleaved listens again."] = Format.INTERLEAVED
    reward: Annotated[str, "A named sum, or a sum such as: format + 2*accuracy + my_module:my_part"] = "paper"

    batch_size: Annotated[int, "Questions of a step."] = 64
    group_size: Annotated[int, "Answers to each."] = 8
    update_size: Annotated[int, "Questions of an update at the most; a step's are divided evenly."] = 32
    inner_epochs: Annotated[int, "Times a step goes through its answers."] = 1
    epochs: Annotated[int, "Times the run goes through the questions."] = 1
    max_tokens: Annotated[int, "Sampled tokens an answer may have."] = MAX_TOKENS
    max_listens: Annotated[int, "Listens an answer may have."] = MAX_LISTENS
    crop_speed: Annotated[float, "What listens are played at; 0.5 gives each twice the audio tokens."] = 1.0
    engine: Annotated[
        Literal["native", "vllm"],
        "What samples answers: native, from the weights in training, or vllm, from its own, renewed every step.",
    ] = "native"
    engine_options: Annotated[str, "For vllm, by comma: gpu_memory_utilization=0.5, max_context=8192"] = ""
    unfinished: Annotated[
        Literal["train", "mask"],
        "Answers cut off by max_tokens or by the context: train on them as they stand, or have no loss on them; "
        "their reward counts in their group either way.",
    ] = "train"

    normalise: Annotated[bool, "Divide advantages by the group's deviation; Dr. GRPO does not."] = True
    averaging: Annotated[Averaging, "Of tokens: each alike, each answer alike, or by a constant."] = Averaging.TOKEN
    clip_low: Annotated[float, "How far below 1 the ratio of probabilities may fall."] = 0.2
    clip_high: Annotated[float, "How far above 1 it may rise."] = 0.2
    kl: Annotated[float, "Weight of the divergence from the model at the start; 0 keeps no copy of it."] = 0.04
    entropy: Annotated[float, "Weight of the entropy, which is then made larger."] = 0.0
    old: Annotated[
        Literal["auto", "rollout", "trainer"],
        "Log-probs the ratio starts from: those the engine recorded, or the trainer's own, computed anew and with "
        "importance weights; auto: the engine's where it computes as the trainer does.",
    ] = "auto"
    importance_cap: Annotated[float, "Largest importance weight."] = 2.0

    train_audio: TrainsAudio = True
    precision: Annotated[Literal["fp32", "bf16"], "Of the trainer's matrix products. Weights are fp32."] = "fp32"
    divided: Annotated[
        bool,
        "With several processes: each holds a part of the weights in training, and the whole model once more to "
        "answer from; else all of everything.",
    ] = False
    gradient_checkpointing: Annotated[bool, "Compute activations twice; not for short clips on CPUs."] = False
    pass_tokens: Annotated[int, "Positions the trainer computes at once."] = 16384

    lr: Annotated[float, "Learning rate."] = 1e-6
    warmup: Annotated[int, "Steps in which it rises."] = 0
    schedule: Annotated[Literal["constant", "linear"], "How it goes on: stays, or falls to 0."] = "constant"
    weight_decay: Decay = 0.01
    betas: Betas = (0.9, 0.999)
    seed: Annotated[int, "Of the order of questions and of every answer."] = 0

    validate_every: Annotated[
        int, "Steps between validations; there is one before the first step and one at the end."
    ] = 20
    validation_size: Annotated[int, "Only the first so many questions; 0: all."] = 0
    save_every: Annotated[int, "Steps between states to go on from."] = 20
    record: Annotated[Literal["brief", "full"], "Of every answer: what it earned and why, or its whole trace."] = (
        "brief"
    )
    max_rows: Annotated[int, "Answers decoded side by side."] = 128
    threads: Annotated[int, "Processor threads; 0: all."] = 0

    def __post_init__(self) -> None:
        check_numbers(self, _POSITIVE, _NOT_NEGATIVE)
        if self.group_size < 2:
            raise InputError(f"group_size {self.group_size}: answers are compared with each other; give 2 or more")
        if self.clip_low >= 1:
            raise InputError(f"clip_low {self.clip_low}: it must be less than 1")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas {self.betas}: each must be at least 0 and less than 1")
        if self.options_of_engine and self.engine == "native":
            raise InputError(f"engine_options {self.engine_options}: they are for engine vllm")

    @property
    def options_of_engine(self) -> dict[str, Any]:
        """What `engine_options` says, by name."""
        return named_values(self.engine_options.split(",")) if self.engine_options else {}

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of step 0 .. steps - 1."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        return self.lr * rise * (1 - step / steps if self.schedule == "linear" else 1.0)
