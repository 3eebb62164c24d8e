"""The model of a supervised run with its loss on top: made trainable, placed on devices, saved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from relisten.errors import InputError
from relisten.models.qwen2_5_omni import DTYPES, Qwen2_5Omni
from relisten.train.parallel import Processes
from relisten.train.sft.config import FinetuneConfig
from relisten.train.sft.sequence_loss import SequenceLoss
from relisten.train.trainable import (
    checkpoint_activations,
    freeze,
    half_precision,
    merge_adapters,
    save_adapters,
    sharded_units,
)

_THINKER: Final = "thinker."


class TrainedModel:
    """Takes over `family`: its thinker is changed in place and may then be divided among processes.

    Attributes:
        module: the loss, called on sequences.

    Raises:
        InputError: the configuration names layers that are not there, or peft is not installed.
    """

    def __init__(self, family: Qwen2_5Omni, config: FinetuneConfig) -> None:
        self.family = family
        self.config = config
        self.adapters = freeze(family.thinker, config.lora, config.train_audio, config.seed)
        thinker = family.thinker
        if config.attention != "sdpa":
            try:
                thinker.set_attn_implementation(config.attention)
            except (ImportError, ValueError) as error:
                raise InputError(f"attention {config.attention} cannot be used here ({error}); use sdpa") from None
        if config.gradient_checkpointing:
            checkpoint_activations(thinker)
        self.module = SequenceLoss(family, config.packing, config.train_audio)

    def place(self, processes: Processes) -> None:
        """Move the model to the device; with several processes, a part of it to each."""
        self.half = half_precision(self.config.precision, processes.device)
        processes.shard(self.module, sharded_units(self.family), self.half, self.config.reshard)
        self.family.mel = self.family.mel.to(processes.device)

    def loss(self, sequences: Any) -> Tensor:
        """Summed loss of some sequences in the precision of the run."""
        device = self.family.device.type
        with torch.autocast(device, self.half, enabled=self.half is not None):
            return self.module(sequences)  # type: ignore[no-any-return]

    def gather(self) -> dict[str, Tensor]:
        """All weights of the thinker by name, on the CPU of the first process; the others get nothing. Every
        process must call this."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = get_model_state_dict(self.module, options=options)
        return {name.removeprefix(_THINKER): cast(Tensor, tensor) for name, tensor in state.items()}

    def save(self, weights: Mapping[str, Tensor], folder: Path, whole: bool) -> None:
        """Write gathered weights as a checkpoint that transformers loads, adapters merged into what they adapt."""
        merged = dict(merge_adapters(weights, self.config.lora))
        dtype = DTYPES.get(self.config.saved_as, self.family.stored_dtype)
        self.family.save(folder, whole, weights=merged, dtype=dtype)

    def save_adapters(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        """Write the adapters alone, as peft loads them onto the thinker."""
        save_adapters(self.adapters, folder, self.config.model, weights)
