"""The model that reinforcement learning trains: its weights, the frozen model it must stay near, its optimizer."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from relisten.errors import InputError
from relisten.models import load, resolve_device
from relisten.models.qwen2_5_omni import DTYPES, Qwen2_5Omni
from relisten.train.exporting import replace_checkpoint
from relisten.train.grpo.config import GrpoConfig
from relisten.train.grpo.logprobs import Part, Scorer, scored
from relisten.train.grpo.team import Team
from relisten.train.optimizer import adamw
from relisten.train.parallel import Gathered
from relisten.train.trainable import (
    checkpoint_activations,
    freeze,
    half_precision,
    merge_adapters,
    sharded_units,
)


class Policy:
    """
    Args:
        team: the processes that train it. With `GrpoConfig.divided` each holds a part of the weights in training,
            of their moments and of the reference, and all of `answering`; every process must then make the same
            calls.

    Attributes:
        family: the model in training.
        answering: the model to answer from: `family` itself, or if that is divided, a whole copy, which `publish`
            brings up to date.
        trained: the parameters that are trained, by name.
        scorer: scores answers under it.

    Raises:
        InputError: there is no such model, it has no such layers, or its checkpoints could not be written.
    """

    def __init__(self, config: GrpoConfig, team: Team | None = None) -> None:
        self._config = config
        self._team = team or Team()
        self.divided = config.divided and self._team.count > 1
        device = resolve_device(config.device)
        half = half_precision(config.precision, torch.device(device))
        # Trained weights become float32 where a model is divided, and adapters are; what else is trained must be.
        stored = "auto" if half is not None and (self.divided or config.lora) else "float32"
        # A model to be divided is loaded on the CPU: the device need not have room for all of it.
        family = load(config.model, stored, "cpu" if self.divided else device)
        assert isinstance(family, Qwen2_5Omni)
        self.family = family
        self.answering = family
        if self.divided:
            self.answering = _copy(family)
            for parameter in self.answering.thinker.parameters():
                # Not `to` of the module: buffers stay float32, or positions would turn by other angles.
                parameter.data = parameter.data.to(half or torch.float32)
            self.answering.thinker.to(device).requires_grad_(False)
            self.answering.mel = family.mel.to(device)
        self._whole = _is_whole(family, config.layout)
        self._adapters = freeze(family.thinker, config.lora, config.train_audio, config.seed)
        frozen = self._frozen_copy()
        if config.gradient_checkpointing:
            checkpoint_activations(family.thinker)
        self.scorer = self._scorer(family, half)
        self._reference: Scorer | None = None
        if config.kl:
            self._reference = self.scorer if frozen is None else self._scorer(frozen, half)
        self.trained = {name: p for name, p in family.thinker.named_parameters() if p.requires_grad}
        self.optimizer = adamw(self.trained.values(), config.lr, config.weight_decay, config.betas)

    def reference_logprobs(self, part: Part) -> Tensor | None:
        """Log-probs under the model as it was at the start; None where `kl` is 0."""
        if self._reference is None:
            return None
        with self._adapters.disable_adapter() if self._adapters is not None else contextlib.nullcontext():
            [found] = scored(self._reference, [part])
        return found

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The thinker's whole tensors one after the other, under their names without adapters, which are merged."""
        return merge_adapters(self.family.thinker.state_dict(), self._config.lora)

    def publish(self) -> None:
        """Copy the present weights to `answering`; no answer may be under way."""
        if self.divided:
            held = self.answering.thinker.state_dict()
            with torch.no_grad():
                for name, tensor in self.weights():
                    held[name].copy_(tensor)

    def export(self, folder: Path, steps: int) -> None:
        """Write the model to `folder` as a checkpoint that transformers loads. Every process calls this."""
        weights = {}
        for name, tensor in self.weights():
            if self._team.first:
                weights[name] = tensor.cpu()
        if self._team.first:
            self._write(weights, folder, steps)
        self._team.wait()

    def _write(self, weights: Mapping[str, Tensor], folder: Path, steps: int) -> None:
        dtype = DTYPES.get(self._config.saved_as, self.family.stored_dtype)
        made = {
            "trainer": "relisten train grpo",
            "processes": self._team.count,
            "steps": steps,
            "config": asdict(self._config),
        }
        replace_checkpoint(
            folder, lambda new: self.family.save(new, self._whole, weights=weights, dtype=dtype), made
        )

    def _scorer(self, family: Qwen2_5Omni, half: torch.dtype | None) -> Scorer:
        """Scores under `family`, which is divided here if the policy is."""
        gathered = None
        if self.divided:
            gathered = Gathered(family.thinker)
            self._team.shard(gathered, sharded_units(family), half)
            family.mel = family.mel.to(family.device)
        return Scorer(
            family,
            dtype=half or torch.float32,
            budget=self._config.pass_tokens,
            hears_trained=self._config.train_audio,
            shared=self._adapters is None and not self._config.gradient_checkpointing,
            gathered=gathered,
        )

    def _frozen_copy(self) -> Qwen2_5Omni | None:
        """A copy of the model at the start; None where `kl` is 0, and with adapters, which can be switched off."""
        if not self._config.kl or self._adapters is not None:
            return None
        # A frozen tower can be shared, but a divided one belongs to one model alone.
        shared = [] if self._config.train_audio or self.divided else [self.family.audio_tower]
        reference = _copy(self.family, shared)
        reference.thinker.requires_grad_(False)
        return reference


def _copy(family: Qwen2_5Omni, shared: Sequence[nn.Module] = ()) -> Qwen2_5Omni:
    """A copy of the model with weights of its own, except for the modules in `shared`."""
    copied = copy.copy(family)
    copied.thinker = copy.deepcopy(family.thinker, {id(module): module for module in shared})
    return copied


def _is_whole(family: Qwen2_5Omni, layout: str) -> bool:
    if layout != "auto":
        family.check_savable(layout == "whole")
        return layout == "whole"
    try:
        family.check_savable(True)
    except InputError:
        return False
    return True
