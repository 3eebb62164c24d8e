"""Makes a model trainable: what is frozen, LoRA adapters, precision, checkpointing, and what is sharded."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from relisten.errors import InputError
from relisten.models.qwen2_5_omni import AUDIO_TOWER, LANGUAGE_MODEL, Qwen2_5Omni
from relisten.train.parallel import whole
from relisten.train.shared_settings import LoraSettings

_TEXT_LAYERS: Final = rf"{re.escape(LANGUAGE_MODEL)}\.layers\.\d+\..*"
_AUDIO_LAYERS: Final = rf"{re.escape(AUDIO_TOWER)}\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|fc1|fc2)"
_LINEAR: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_BASE: Final = ".base_layer."


def freeze(thinker: nn.Module, lora: LoraSettings | None, train_audio: bool, seed: int) -> Any:
    """Leave trainable what is to be trained: adapters where `lora` is given, else the language model's weights.

    Args:
        train_audio: also the audio tower, or adapters in it.
        seed: of the adapters' first weights.

    Returns:
        peft's model around `thinker`; None without adapters.

    Raises:
        InputError: there are no such layers, or peft is not installed.
    """
    if lora is not None:
        return add_adapters(thinker, lora, seed, audio=train_audio)
    tower: Any = thinker.get_submodule(AUDIO_TOWER)
    tower.requires_grad_(train_audio)
    tower.audio_bos_eos_token.requires_grad_(False)  # no input reaches it
    return None


def add_adapters(thinker: nn.Module, lora: LoraSettings, seed: int, *, audio: bool = False) -> Any:
    """Put fresh float32 adapters beside linear layers of the language model, everything else frozen; returns peft's
    model.

    Args:
        seed: of their first weights, the same in every process; nothing else that is drawn depends on it.
        audio: also beside those of the audio tower.

    Raises:
        InputError: there are no such layers, or peft is not installed.
    """
    peft = need_peft()
    names = lora.layers or _LINEAR
    found = {name.rpartition(".")[2] for name, _ in thinker.named_modules() if re.fullmatch(_TEXT_LAYERS, name)}
    if unknown := sorted(set(names) - found):
        raise InputError(f"lora_layers: the language model has no {unknown[0]!r}; use some of {', '.join(_LINEAR)}")
    wanted = rf"{_TEXT_LAYERS}\.({'|'.join(map(re.escape, names))})"
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=f"{wanted}|{_AUDIO_LAYERS}" if audio else wanted,
    )
    with quiet_peft(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return peft.get_peft_model(thinker, config)


def need_peft() -> Any:
    """The peft library, which adapters need.

    Raises:
        InputError: it is not installed.
    """
    try:
        import peft
    except ModuleNotFoundError:
        raise InputError('adapters need peft: pip install "relisten[train]"') from None
    return peft


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Without the warning that peft calls transformers by a name that is going away."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*is_gradient_checkpointing")
        yield


def save_adapters(adapted: Any, folder: Path, model: str, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write the adapters alone, as peft loads them.

    Args:
        adapted: peft's model.
        model: the name, as a user gives it, of the model that they belong to.
        weights: of the thinker by name, the adapters' among them; None takes those in memory.
    """
    adapted.peft_config["default"].base_model_name_or_path = model
    state = None if weights is None else {f"base_model.model.{name}": each for name, each in weights.items()}
    # The embedding is not adapted; asked to find out itself, peft looks for the base model on the hub.
    adapted.save_pretrained(folder, state_dict=state, save_embedding_layers=False)


def merge_adapters(weights: Mapping[str, Tensor], lora: LoraSettings | None) -> Iterator[tuple[str, Tensor]]:
    """A thinker's weights, one after the other, under their names without adapters, which are merged into them.

    Weights that are divided among processes are put together; then every process must go through all of them.
    """
    for name, tensor in weights.items():
        if ".lora_A." in name or ".lora_B." in name:
            continue
        base, _, kind = name.rpartition(_BASE)
        tensor = whole(tensor)
        if lora is not None and base and kind == "weight":
            down, up = (whole(weights[f"{base}.lora_{part}.default.weight"]).float() for part in "AB")
            tensor = (tensor.float() + lora.alpha / lora.rank * (up @ down)).to(tensor.dtype)
        yield name.replace(_BASE, "."), tensor


def checkpoint_activations(thinker: Any) -> None:
    """In training mode, compute layers' activations again in the backward pass instead of keeping them."""
    before_5_20 = not hasattr(thinker, "activation_checkpointing_enable")
    enable = thinker.gradient_checkpointing_enable if before_5_20 else thinker.activation_checkpointing_enable
    enable({"use_reentrant": False})


def sharded_units(family: Qwen2_5Omni) -> Iterator[nn.Module]:
    """The parts of a divided model whose weights are gathered one part at a time."""
    return chain(family.audio_tower.get_submodule("layers").children(),
                 family.language_model.get_submodule("layers").children())  # fmt: skip


def half_precision(precision: str, device: torch.device) -> torch.dtype | None:
    """The half precision of matrix products for a setting "auto", "fp32" or "bf16"; None for float32."""
    half = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    return torch.bfloat16 if half else None
