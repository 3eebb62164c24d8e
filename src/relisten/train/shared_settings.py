"""Settings that stage 1 and stage 2 share, by one name and with one meaning. Plain data; nothing runs here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from relisten.errors import InputError

TrainsAudio = Annotated[bool, "Train the audio tower, too."]
Decay = Annotated[float, "Of matrices; vectors have none."]
Betas = Annotated[tuple[float, float], "Of AdamW."]


@dataclass(frozen=True)
class LoraSettings:
    """Adapters beside linear layers.

    Raises:
        InputError: a rank or scale that is not positive.
    """

    rank: int
    alpha: float
    """What an adapter computes is added times this over the rank."""
    layers: tuple[str, ...] = ()
    """Names of layers in the language model; empty: all its linear layers."""
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0:
            raise InputError(f"adapters of rank {self.rank} and alpha {self.alpha:g}: both must be more than 0")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """What is trained and how it is kept. Fields whose default differs stand in each stage's own settings."""

    model: Annotated[str, "echo-tiny, a checkpoint folder, or a hub id such as Qwen/Qwen2.5-Omni-7B."] = field(
        kw_only=False
    )
    lora_rank: Annotated[int, "Train adapters of this rank; 0 trains the weights themselves."] = 0
    lora_alpha: Annotated[float, "Their scale is this over the rank."] = 32.0
    lora_layers: Annotated[str, "Language model layers with adapters, by comma; empty: all linear ones."] = ""
    steps: Annotated[int, "How many; 0: as many as the epochs take."] = 0
    clip_norm: Annotated[float, "Longest gradient; 0 for no limit."] = 1.0
    export_every: Annotated[int, "Steps between checkpoints; 0: only at the end."] = 0
    layout: Annotated[
        Literal["auto", "whole", "thinker"],
        "Of checkpoints; auto: with talker and token2wav if the model has them.",
    ] = "auto"
    saved_as: Annotated[Literal["auto", "bfloat16", "float32"], "Weights on disk; auto: as they were."] = "auto"
    tensorboard: Annotated[bool, "Write event files, if it is installed."] = True
    tracker: Annotated[Literal["none", "trackio", "wandb"], "Also log there; may use the network."] = "none"
    device: Annotated[str, "cpu, cuda, ...; auto takes a GPU if there is one."] = "auto"

    @property
    def lora(self) -> LoraSettings | None:
        """The adapters that are trained; None where the weights themselves are."""
        if not self.lora_rank:
            return None
        layers = tuple(name.strip() for name in self.lora_layers.split(",")) if self.lora_layers else ()
        return LoraSettings(self.lora_rank, self.lora_alpha, layers)


def check_numbers(
    settings: Any, positive: Iterable[str], not_negative: Iterable[str], shares: Iterable[str] = ()
) -> None:
    """Raises InputError for the first setting out of its range, of those named and of the shared ones; `shares` are
    at least 0 and less than 1."""
    for each in fields(settings):
        value = getattr(settings, each.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{each.name} {value}: it must be a finite number")
    for name in (*positive, "lora_alpha"):
        if not getattr(settings, name) > 0:
            raise InputError(f"{name} {getattr(settings, name)}: it must be more than 0")
    for name in (*not_negative, "lora_rank", "steps", "clip_norm", "export_every"):
        if not getattr(settings, name) >= 0:
            raise InputError(f"{name} {getattr(settings, name)}: it must be 0 or more")
    for name in shares:
        if not 0 <= getattr(settings, name) < 1:
            raise InputError(f"{name} {getattr(settings, name)}: it must be at least 0 and less than 1")
