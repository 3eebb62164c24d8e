"""The model that reinforcement learning trains: its weights, the frozen model it must stay near, its optimizer."""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from relisten.errors import InputError
from relisten.models import load
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.train.grpo.config import GrpoConfig
from relisten.train.grpo.logprobs import Part, Scorer, scored
from relisten.train.sft.config import FinetuneConfig
from relisten.train.trained_model import freeze, merge_adapters


class Policy:
    """
    Attributes:
        family: the model; whoever answers from it sees every update.
        trained: the parameters that are trained, by name.
        scorer: scores answers under it.

    Raises:
        InputError: there is no such model, it has no such layers, or its checkpoints could not be written.
    """

    def __init__(self, config: GrpoConfig) -> None:
        self._config = config
        device = config.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        family = load(config.model, "float32", device)
        assert isinstance(family, Qwen2_5Omni)
        self.family = family
        self._whole = _is_whole(family, config.layout)
        self._adapters = freeze(family.thinker, as_stage_one(config))
        if config.gradient_checkpointing:
            family.thinker.activation_checkpointing_enable({"use_reentrant": False})
        self.trained = {name: p for name, p in family.thinker.named_parameters() if p.requires_grad}
        self.scorer = self._scorer(family)
        self._reference = self._make_reference() if config.kl else None
        self.optimizer = self._make_optimizer()

    def reference_logprobs(self, part: Part) -> Tensor | None:
        """Those of the model at the start; None where nothing holds the policy near it."""
        if self._reference is None:
            return None
        with self._adapters.disable_adapter() if self._adapters is not None else contextlib.nullcontext():
            [found] = scored(self._reference, [part])
        return found

    def weights(self) -> dict[str, Tensor]:
        """The thinker's tensors by the names that they have without adapters, those merged in."""
        rank = max(1, self._config.lora_rank)
        return merge_adapters(self.family.thinker.state_dict(), self._config.lora_alpha / rank)

    def save_state(self, path: Path, step: int) -> None:
        """Write what a run goes on from; `path` is there whole, or as it was before."""
        state = {
            "step": step,
            "weights": {name: parameter.detach() for name, parameter in self.trained.items()},
            "optimizer": self.optimizer.state_dict(),
        }
        part = path.with_name(f".{path.name}.part")
        torch.save(state, part)
        part.replace(path)

    def restore_state(self, path: Path) -> int:
        """Take over what `save_state` wrote; returns its step."""
        state = torch.load(path, weights_only=True, map_location=self.family.device)
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(state["weights"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])

    def export(self, folder: Path, steps: int) -> None:
        """Write the model as a checkpoint that transformers loads; replaces `folder`."""
        dtypes = {"bfloat16": torch.bfloat16, "float32": torch.float32}
        dtype = dtypes.get(self._config.saved_as, self.family.stored_dtype)
        if folder.exists():
            shutil.rmtree(folder)
        self.family.save(folder, self._whole, weights=self.weights(), dtype=dtype)
        made: dict[str, Any] = {
            "trainer": "relisten train grpo",
            "steps": steps,
            "versions": {name: version(name) for name in ("relisten", "torch", "transformers")},
            "config": vars(self._config),
        }
        (folder / "training.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")

    def _scorer(self, family: Qwen2_5Omni) -> Scorer:
        return Scorer(
            family,
            dtype=torch.bfloat16 if self._config.precision == "bf16" else torch.float32,
            budget=self._config.pass_tokens,
            hears_trained=self._config.train_audio,
            shared=self._adapters is None and not self._config.gradient_checkpointing,
        )

    def _make_reference(self) -> Scorer:
        """Scores under a frozen copy; with adapters, the base under them is the model at the start."""
        if self._adapters is not None:
            return self.scorer
        tower = self.family.audio_tower
        shared = {} if self._config.train_audio else {id(tower): tower}
        reference = copy.copy(self.family)
        reference.thinker = copy.deepcopy(self.family.thinker, shared).requires_grad_(False)
        return self._scorer(reference)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        config = self._config
        matrices = [p for p in self.trained.values() if p.ndim > 1]
        vectors = [p for p in self.trained.values() if p.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.lr, betas=config.betas)


def _is_whole(family: Qwen2_5Omni, layout: str) -> bool:
    if layout != "auto":
        family.check_savable(layout == "whole")
        return layout == "whole"
    try:
        family.check_savable(True)
    except InputError:
        return False
    return True


def as_stage_one(config: GrpoConfig) -> FinetuneConfig:
    """What is trained, and how much at once, said as in stage 1, which chooses and counts it."""
    return FinetuneConfig(
        model=config.model,
        train_audio=config.train_audio,
        lora_rank=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_layers=config.lora_layers,
        precision=config.precision,
        gradient_checkpointing=config.gradient_checkpointing,
        pass_tokens=config.pass_tokens,
        max_length=1,
        packing=True,
    )
