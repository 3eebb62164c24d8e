"""Settings of `relisten router train`. Plain data; nothing runs here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from relisten.errors import InputError
from relisten.protocol import MAX_LISTENS, MAX_TOKENS, Format

MAY_CHANGE: Final = ("known", "save_every", "tensorboard", "tracker", "device", "threads", "at_once")
"""What may differ when a run goes on: none of it touches a number of the policy."""

_POSITIVE: Final = (
    "longest", "max_tokens", "steps", "batch_size", "lr", "validate_every", "save_every", "at_once", "lora_rank",
    "lora_alpha", "max_share",
)  # fmt: skip
_NOT_NEGATIVE: Final = (
    "max_listens", "cost", "entropy", "weight_decay", "warmup", "clip_norm", "hidden", "names_steps", "threads",
    "seed",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RouterConfig:
    """One training of a routing policy. The paper leaves the numbers open: all of them are ours."""

    model: Annotated[str, "The reasoner: echo-tiny, a checkpoint folder, or a hub id. It stays as it is."] = (
        "echo-tiny"
    )
    questions: Annotated[str, "JSONL of questions with reference answers."] = ""
    validation: Annotated[
        str, "Likewise; empty: the last fifth of the questions, which then are not trained on."
    ] = ""
    known: Annotated[
        str,
        "Folder of what is known of questions (answers, findings, hidden states), for several runs; empty: own.",
    ] = ""

    tools: Annotated[str, "Tools to choose from, by comma; empty: all that can run here."] = ""
    longest: Annotated[int, "Tools that one route may run."] = 1
    text: Annotated[bool, "Each route also without listening again."] = False
    format: Annotated[Format, "How the reasoner answers."] = Format.INTERLEAVED
    max_tokens: Annotated[int, "Tokens an answer may have."] = MAX_TOKENS
    max_listens: Annotated[int, "Listens an answer may have."] = MAX_LISTENS

    policy: Annotated[
        Literal["head", "lm"], "A small layer on the reasoner's hidden states, or a language model with adapters."
    ] = "head"
    layers: Annotated[
        tuple[int, ...], "Whose states a head reads; empty: the layer that does best in validation."
    ] = ()
    parts: Annotated[str, "Of those: last (token of the prompt), sound (mean over its tokens); by comma."] = "last"
    hidden: Annotated[int, "Width of a layer inside the head; 0: none."] = 0
    max_share: Annotated[float, "A head with a larger share of the reasoner's parameters is refused."] = 0.01
    lm: Annotated[str, "Model of an lm policy; empty: another copy of the reasoner."] = ""
    lora_rank: Annotated[int, "Of its adapters."] = 8
    lora_alpha: Annotated[float, "Their scale is this over the rank."] = 16.0
    names_steps: Annotated[int, "Steps in which an lm first learns to write any of the names."] = 30

    estimator: Annotated[
        Literal["sampled", "exact"], "Of the gradient: from sampled decisions, or the expectation over all routes."
    ] = "sampled"
    group_size: Annotated[int, "Decisions sampled for a question."] = 8
    normalise: Annotated[bool, "Divide advantages by the group's deviation."] = False
    cost: Annotated[float, "Taken from the reward for every tool call; a right answer is worth 1."] = 0.0
    entropy: Annotated[float, "Weight of the policy's entropy, which is made larger."] = 0.05
    batch_size: Annotated[int, "Questions of a step."] = 64
    steps: Annotated[int, "How many."] = 300
    lr: Annotated[float, "Highest learning rate."] = 0.01
    warmup: Annotated[int, "Steps in which it rises; from there it falls to 0."] = 10
    weight_decay: Annotated[float, "Of AdamW, on matrices."] = 0.1
    clip_norm: Annotated[float, "Longest gradient; 0 for no limit."] = 1.0
    seed: Annotated[int, "Of the order of questions, of decisions and of first weights."] = 0

    threshold: Annotated[
        float, "Least probability of a tool's route; else direct. Below 0: chosen in validation."
    ] = -1.0
    validate_every: Annotated[int, "Steps between validations; the best state is what is kept."] = 10
    save_every: Annotated[int, "Steps between states to go on from."] = 50
    at_once: Annotated[int, "Answers in flight."] = 64
    tensorboard: Annotated[bool, "Write event files, if it is installed."] = True
    tracker: Annotated[Literal["none", "trackio", "wandb"], "Also log there; may use the network."] = "none"
    device: Annotated[str, "cpu, cuda, ...; auto takes a GPU if there is one."] = "auto"
    threads: Annotated[int, "Processor threads; 0: all."] = 0

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise InputError(f"{name} {getattr(self, name)}: it must be more than 0")
        for name in _NOT_NEGATIVE:
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} {getattr(self, name)}: it must be 0 or more")
        if self.group_size < 2:
            raise InputError(
                f"group_size {self.group_size}: decisions are compared with each other; give 2 or more"
            )
        if self.threshold > 1:
            raise InputError(f"threshold {self.threshold}: it is a probability, or below 0")

    def lr_at(self, step: int) -> float:
        """Learning rate of step 0 .. steps - 1."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        return self.lr * rise * (1 - step / self.steps)
