"""Settings of `relisten train sft`. Plain data; nothing runs here."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal

from relisten.errors import InputError
from relisten.protocol import Format
from relisten.train.shared_settings import Betas, Decay, LoraSettings, TrainsAudio, TrainSettings, check_numbers

MAY_CHANGE: Final = ("log_every", "save_every", "keep_states", "export_every", "tensorboard", "tracker", "threads")
"""Settings that may differ when a run goes on: they change no number of the model."""

_POSITIVE: Final = (
    "max_length", "batch_size", "pass_tokens", "epochs", "save_every", "keep_states", "validate_every", "log_every",
    "threads", "lr",
)  # fmt: skip
_NOT_NEGATIVE: Final = ("weight_decay", "answer_weight", "heard_weight")


@dataclass(frozen=True)
class FinetuneConfig(TrainSettings):
    """One supervised run on questions with responses. Defaults are those of the paper where it tells them."""

    data: Annotated[
        str, "Examples to train on: JSONL (ours or ms-swift's), or a folder that `relisten data export` wrote."
    ] = ""
    validation: Annotated[
        str, "Examples to validate on, likewise; empty: the validation split of the folder, if it has one."
    ] = ""
    format: Annotated[
        Format,
        "Layout of responses: grounded cites segments, interleaved inserts their sound as well, text does neither.",
    ] = Format.GROUNDED
    answer_weight: Annotated[float, "Loss weight of the text of <answer>."] = 1.0
    heard_weight: Annotated[
        float, "Loss weight of text that follows an inserted crop and so tells what is heard."
    ] = 1.0

    tag_tokens: Annotated[
        bool,
        "Make one token of each tag (<think>, <seg>, ...) that the tokenizer writes in several, as Qwen's does: "
        "answers have fewer tokens. Not with adapters, which leave embeddings as they are.",
    ] = False
    train_audio: TrainsAudio = False
    lora_dropout: Annotated[float, "Dropout of the adapters' input."] = 0.0
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        "Precision of matrix products; auto: bf16 on a GPU. Trained weights are kept in fp32.",
    ] = "auto"
    attention: Annotated[
        Literal["sdpa", "flash_attention_2", "eager"], "Attention kernel of the language model."
    ] = "sdpa"
    gradient_checkpointing: Annotated[
        bool, "Compute activations again for the backward pass instead of keeping them; saves memory."
    ] = True
    reshard: Annotated[
        bool, "With several processes: gather weights again for the backward pass; saves memory."
    ] = True

    max_length: Annotated[int, "Most tokens of an example; longer examples are left out and counted."] = 2048
    batch_size: Annotated[int, "Examples a step, over all processes."] = 64
    pass_tokens: Annotated[
        int, "Tokens that a process computes at once; a step takes as many passes as it needs."
    ] = 8192
    packing: Annotated[
        bool, "Put several examples into one row instead of padding; pays with flash_attention_2."
    ] = False
    epochs: Annotated[int, "Times the run goes through the data."] = 1

    lr: Annotated[float, "Highest learning rate; adapters need a higher one, such as 1e-4."] = 5e-6
    warmup: Annotated[float, "Share of the steps in which the learning rate rises."] = 0.05
    schedule: Annotated[Literal["cosine", "linear", "constant"], "How the learning rate falls after that."] = (
        "cosine"
    )
    weight_decay: Decay = 0.1
    betas: Betas = (0.9, 0.95)
    seed: Annotated[int, "Seed of the order of examples, of new adapters and of dropout."] = 0

    save_every: Annotated[int, "Steps between states that an interrupted run goes on from."] = 200
    keep_states: Annotated[
        int, "How many of these states are kept; two, since only the next step tells whether weights are any good."
    ] = 2
    validate_every: Annotated[int, "Steps between losses on the validation set."] = 200
    log_every: Annotated[int, "Steps between rows of metrics."] = 1
    threads: Annotated[int, "Threads with which each process reads sounds ahead."] = 4

    def __post_init__(self) -> None:
        check_numbers(self, _POSITIVE, _NOT_NEGATIVE, shares=("warmup", "lora_dropout"))
        if self.tag_tokens and self.lora_rank:
            raise InputError(
                "tag_tokens: adapters leave the embedding of new tokens as it is; train the weights themselves "
                "(lora_rank 0), or without tag_tokens"
            )
        if self.pass_tokens < self.max_length:
            raise InputError(
                f"pass_tokens {self.pass_tokens} is less than max_length {self.max_length}: one example must fit "
                "into a pass; raise the one or lower the other"
            )

    @property
    def lora(self) -> LoraSettings | None:
        found = super().lora
        return found and replace(found, dropout=self.lora_dropout)

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of step 0 .. steps - 1."""
        rising = math.ceil(self.warmup * steps)
        if step < rising:
            return self.lr * (step + 1) / rising
        share = (step - rising) / max(1, steps - rising)
        fall = {"cosine": (1 + math.cos(math.pi * share)) / 2, "linear": 1 - share, "constant": 1.0}
        return self.lr * fall[self.schedule]
