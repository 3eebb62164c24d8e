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
"""Settings that may differ when a run goes on: they change no number of the model beyond rounding."""

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
    """Every answer counts alike: the mean over its tokens, then over answers (GRPO as first published)."""
    CONSTANT = "constant"
    """The sum over tokens, divided by the number of answers and by `max_tokens` (Dr. GRPO): a token's weight does
    not depend on the length of its answer."""


@dataclass(frozen=True)
class GrpoConfig(TrainSettings):
    """One run of reinforcement learning on questions with reference answers. Defaults are the paper's."""

    questions: Annotated[str, "JSONL of questions with reference answers."] = ""
    validation: Annotated[str, "JSONL of questions to validate on; empty: none."] = ""
    format: Annotated[Format, "How to reason; only interleaved listens again."] = Format.INTERLEAVED
    reward: Annotated[
        str, "What answers earn: a named sum, or one such as: format + 2*accuracy + my_module:my_part"
    ] = "paper"

    batch_size: Annotated[int, "Questions a step."] = 64
    group_size: Annotated[int, "Answers to each question of a step."] = 8
    update_size: Annotated[
        int, "Most questions that one update learns from; those of a step are divided evenly."
    ] = 32
    inner_epochs: Annotated[int, "Times that a step learns from its answers."] = 1
    epochs: Annotated[int, "Times the run goes through the questions."] = 1
    max_tokens: Annotated[int, "Sampled tokens an answer may have."] = MAX_TOKENS
    max_listens: Annotated[int, "Listens an answer may have."] = MAX_LISTENS
    crop_speed: Annotated[
        float, "Speed at which segments are played again; 0.5 gives each twice the audio tokens."
    ] = 1.0
    engine: Annotated[
        Literal["native", "vllm"],
        "What samples answers: native, with the weights in training, or vllm, with a copy renewed every step.",
    ] = "native"
    engine_options: Annotated[str, "Options of vllm, by comma: gpu_memory_utilization=0.5, max_context=8192"] = ""
    unfinished: Annotated[
        Literal["train", "mask"],
        "Answers cut off by max_tokens or by the context: train on them as they stand, or have no loss on them; "
        "their reward counts in their group either way.",
    ] = "train"

    normalise: Annotated[bool, "Divide advantages by the group's standard deviation; Dr. GRPO does not."] = True
    averaging: Annotated[
        Averaging,
        "How the loss is averaged: over tokens, over answers (sequence), or by a constant (Dr. GRPO).",
    ] = Averaging.TOKEN
    clip_low: Annotated[float, "How far below 1 the ratio of new to old probability may fall."] = 0.2
    clip_high: Annotated[float, "How far above 1 that ratio may rise."] = 0.2
    kl: Annotated[
        float, "Weight of the divergence from the model at the start; 0: none, and no copy of it is kept."
    ] = 0.04
    entropy: Annotated[float, "Weight of an entropy bonus, which keeps answers varied."] = 0.0
    old: Annotated[
        Literal["auto", "rollout", "trainer"],
        "Log-probs under the old weights: rollout takes those that the engine recorded; trainer computes them anew "
        "and adds importance weights; auto: rollout where the engine computes as the trainer does.",
    ] = "auto"
    importance_cap: Annotated[float, "Importance weights are cut off at this."] = 2.0

    train_audio: TrainsAudio = True
    precision: Annotated[
        Literal["fp32", "bf16"], "Precision of the trainer's matrix products. Trained weights are fp32."
    ] = "fp32"
    divided: Annotated[
        bool,
        "With several processes: each holds a part of the weights in training, and a whole copy to answer from; "
        "otherwise each holds everything.",
    ] = False
    gradient_checkpointing: Annotated[
        bool, "Compute activations again for the backward pass; saves memory, but is slow for short clips on CPUs."
    ] = False
    pass_tokens: Annotated[int, "Tokens that the trainer computes at once."] = 16384

    lr: Annotated[float, "Highest learning rate."] = 1e-6
    warmup: Annotated[int, "Steps in which the learning rate rises; a number of them here, in sft a share."] = 0
    schedule: Annotated[
        Literal["constant", "linear"], "How the learning rate goes on: it stays, or falls to 0."
    ] = "constant"
    weight_decay: Decay = 0.01
    betas: Betas = (0.9, 0.999)
    seed: Annotated[int, "Seed of the order of questions and of every answer."] = 0

    validate_every: Annotated[
        int, "Steps between validations; there is also one before the first step and one at the end."
    ] = 20
    validation_size: Annotated[int, "Ask only the first so many validation questions; 0: all."] = 0
    save_every: Annotated[int, "Steps between states that an interrupted run goes on from."] = 20
    record: Annotated[
        Literal["brief", "full"],
        "What rollouts/ keeps of every answer: text and what it earned, or its whole trace.",
    ] = "brief"
    max_rows: Annotated[int, "Answers decoded side by side."] = 128
    threads: Annotated[int, "Processor threads for arithmetic (in sft: those that read sounds); 0: all."] = 0

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
        """The values in `engine_options`, by name."""
        return named_values(self.engine_options.split(",")) if self.engine_options else {}

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of step 0 .. steps - 1."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        return self.lr * rise * (1 - step / steps if self.schedule == "linear" else 1.0)
