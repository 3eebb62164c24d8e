"""A model as it is trained: what is frozen, adapters, sharding, the loss on top; and its weights when saved."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from relisten.errors import InputError
from relisten.models.qwen2_5_omni import AUDIO_TOWER, LANGUAGE_MODEL, Qwen2_5Omni
from relisten.train.parallel import Processes, whole
from relisten.train.sft.config import FinetuneConfig
from relisten.train.sft.sequence_loss import SequenceLoss

_TEXT_LAYERS: Final = rf"{re.escape(LANGUAGE_MODEL)}\.layers\.\d+\..*"
_AUDIO_LAYERS: Final = rf"{re.escape(AUDIO_TOWER)}\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|fc1|fc2)"
_LINEAR: Final = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"
_THINKER: Final = "thinker."
_BASE: Final = ".base_layer."


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
        self.adapters = freeze(family.thinker, config)
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
        """Move the model to its device, with several processes a part of it to each."""
        self.half = half_precision(self.config, processes.device)
        processes.shard(self.module, sharded_units(self.family), self.half, self.config.reshard)
        self.family.mel = self.family.mel.to(processes.device)

    def loss(self, sequences: Any) -> Tensor:
        """Summed loss of some sequences in the precision of the run."""
        device = self.family.device.type
        with torch.autocast(device, self.half, enabled=self.half is not None):
            return self.module(sequences)  # type: ignore[no-any-return]

    def gather(self) -> dict[str, Tensor]:
        """All weights of the thinker by name, on the CPU, on the first process; nothing on the others. Every
        process must call this."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = get_model_state_dict(self.module, options=options)
        return {name.removeprefix(_THINKER): cast(Tensor, tensor) for name, tensor in state.items()}

    def save(self, weights: Mapping[str, Tensor], folder: Path, whole: bool) -> None:
        """Write gathered weights as a checkpoint that transformers loads, adapters merged into what they adapt."""
        merged = dict(merge_adapters(weights, self.config.lora_alpha / max(1, self.config.lora_rank)))
        dtypes = {"bfloat16": torch.bfloat16, "float32": torch.float32}
        self.family.save(
            folder, whole, weights=merged, dtype=dtypes.get(self.config.saved_as, self.family.stored_dtype)
        )

    def save_adapters(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        """Write the adapters alone, as peft loads them onto the thinker."""
        self.adapters.peft_config["default"].base_model_name_or_path = self.config.model
        state = {f"base_model.model.{name}": tensor for name, tensor in weights.items()}
        # The embedding is not adapted; asked to find out itself, peft looks for the base model on the hub.
        self.adapters.save_pretrained(folder, state_dict=state, save_embedding_layers=False)


def freeze(thinker: nn.Module, config: FinetuneConfig) -> Any:
    """Leave trainable what `config` trains, and nothing else; returns peft's model where there are adapters."""
    tower: Any = thinker.get_submodule(AUDIO_TOWER)
    if not config.lora_rank:
        tower.requires_grad_(config.train_audio)
        tower.audio_bos_eos_token.requires_grad_(False)  # no input reaches it
        return None
    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError:
        raise InputError('adapters need peft: pip install "relisten[train]"') from None
    names = [name.strip() for name in (config.lora_layers or _LINEAR).split(",")]
    found = {name.rpartition(".")[2] for name, _ in thinker.named_modules() if re.fullmatch(_TEXT_LAYERS, name)}
    if unknown := sorted(set(names) - found):
        raise InputError(f"lora_layers: the language model has no {unknown[0]!r}; use some of {_LINEAR}")
    wanted = rf"{_TEXT_LAYERS}\.({'|'.join(map(re.escape, names))})"
    adapters = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=f"{wanted}|{_AUDIO_LAYERS}" if config.train_audio else wanted,
    )
    # Every process must begin with the same adapters; what else is drawn must not depend on there being any.
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        # peft asks transformers by a name that is going away.
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*is_gradient_checkpointing")
        return get_peft_model(thinker, adapters)


def checkpoint_activations(thinker: Any) -> None:
    """Have layers' activations computed twice instead of kept, in training mode."""
    before_5_20 = not hasattr(thinker, "activation_checkpointing_enable")
    enable = thinker.gradient_checkpointing_enable if before_5_20 else thinker.activation_checkpointing_enable
    enable({"use_reentrant": False})


def sharded_units(family: Qwen2_5Omni) -> Iterator[nn.Module]:
    """The parts that are gathered one at a time."""
    return chain(family.audio_tower.get_submodule("layers").children(),
                 family.language_model.get_submodule("layers").children())  # fmt: skip


def half_precision(config: FinetuneConfig, device: torch.device) -> torch.dtype | None:
    """What matrix products run in, None for float32."""
    half = config.precision == "bf16" or (config.precision == "auto" and device.type == "cuda")
    return torch.bfloat16 if half else None


def merge_adapters(weights: Mapping[str, Tensor], scale: float) -> Iterator[tuple[str, Tensor]]:
    """Weights by the names that they have without adapters, one after the other. Those that are divided among
    processes are put together; then every process must go through all of them."""
    for name, tensor in weights.items():
        if ".lora_A." in name or ".lora_B." in name:
            continue
        base, _, kind = name.rpartition(_BASE)
        tensor = whole(tensor)
        if base and kind == "weight":
            down, up = (whole(weights[f"{base}.lora_{part}.default.weight"]).float() for part in "AB")
            tensor = (tensor.float() + scale * (up @ down)).to(tensor.dtype)
        yield name.replace(_BASE, "."), tensor
