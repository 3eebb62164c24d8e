"""Settings that stage 1 and stage 2 share, by one name and with one meaning. Plain data; nothing runs here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from relisten.errors import InputError

TrainsAudio = Annotated[bool, "Train the audio tower, too."]
Decay = Annotated[float, "Weight decay of matrices; biases and norms have none."]
Betas = Annotated[tuple[float, float], "AdamW's two betas."]


@dataclass(frozen=True)
class LoraSettings:
    """Adapters beside linear layers.

    Raises:
        InputError: a rank or scale that is not positive.
    """

    rank: int
    alpha: float
    """An adapter's output is scaled by this over the rank."""
    layers: tuple[str, ...] = ()
    """Names of layers in the language model; empty: all its linear layers."""
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0:
            raise InputError(f"adapters of rank {self.rank} and alpha {self.alpha:g}: both must be more than 0")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """What is trained and how it is kept. Settings with another default in each stage are in its own class."""

    model: Annotated[str, "echo-tiny, a checkpoint folder, or a hub id such as Qwen/Qwen2.5-Omni-7B."] = field(
        kw_only=False
    )
    lora_rank: Annotated[int, "Rank of the LoRA adapters to train; 0 trains the weights themselves."] = 0
    lora_alpha: Annotated[float, "LoRA adapters are scaled by this over the rank."] = 32.0
    lora_layers: Annotated[
        str, "Layers of the language model that get adapters, by comma; empty: all linear ones."
    ] = ""
    steps: Annotated[int, "Steps of the run; 0: as many as the epochs take."] = 0
    clip_norm: Annotated[float, "Longer gradients are scaled down to this norm; 0: no limit."] = 1.0
    export_every: Annotated[int, "Steps between checkpoints; 0: only at the end."] = 0
    layout: Annotated[
        Literal["auto", "whole", "thinker"],
        "whole: checkpoints have talker and token2wav; thinker: they do not; auto: whole if the model has them.",
    ] = "auto"
    saved_as: Annotated[
        Literal["auto", "bfloat16", "float32"],
        "Precision of weights in checkpoints; auto: that of the model's own.",
    ] = "auto"
    tensorboard: Annotated[bool, "Write TensorBoard files, if TensorBoard is installed."] = True
    tracker: Annotated[
        Literal["none", "trackio", "wandb"], "Also log to this tracker, which may use the network."
    ] = "none"
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
