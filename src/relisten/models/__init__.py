"""Model families. `load` picks one by what a checkpoint says it is."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from relisten.errors import InputError
from relisten.models.base import Family, Prompt
from relisten.models.checkpoint import ECHO_TINY, find_folder, locate, read_json, weight_bytes

__all__ = ["ECHO_TINY", "Family", "Prompt", "default_dtype", "load", "locate", "resolve_device"]

_FAMILIES = ("qwen2_5_omni", "qwen2_5_omni_thinker")


def load(
    path: str | Path = ECHO_TINY,
    dtype: torch.dtype | str = "auto",
    device: torch.device | str = "cpu",
) -> Family:
    """Load a model: "echo-tiny", a checkpoint folder, or a hub id such as "Qwen/Qwen2.5-Omni-7B".

    A local folder of that name goes before the shipped checkpoint. Only a hub id reaches for the network.

    Raises:
        InputError: there is no such model or device, no family reads it, or the checkpoint is not whole.
    """
    check_device(device)
    folder = find_folder(path)
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in _FAMILIES:
        raise InputError(f"{folder}: model_type {kind!r} has no family here; known are {', '.join(_FAMILIES)}")
    from relisten.models.qwen2_5_omni import Qwen2_5Omni  # slow to import, and needless for bad input

    if torch.device(device).type == "cuda":
        # cuDNN's attention, first choice for half precision, plans anew for every shape, and nearly all are new.
        torch.backends.cuda.enable_cudnn_sdp(False)

    return Qwen2_5Omni.load(path, dtype, device)


def resolve_device(device: str) -> str:
    """The device that "auto" means, a GPU if there is one; any other name as it is."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def default_dtype(device: str, model: str | Path) -> Literal["float32", "bfloat16"]:
    """What weights are held in where nobody says: bfloat16 on a GPU, and for checkpoints of 1 GiB and more on a CPU
    with instructions for it (`benchmarks/dtypes.py` has measured both); else float32.

    Raises:
        InputError: there is no such model.
    """
    if device.partition(":")[0] != "cpu":
        return "bfloat16"
    if not torch.cpu._is_avx512_bf16_supported():
        return "float32"
    # Of weights in several files an index tells the size; a single file has to be there to be weighed.
    folder = find_folder(model, lambda tensor: False)
    return "bfloat16" if weight_bytes(folder) >= 2**30 else "float32"


def check_device(device: torch.device | str) -> None:
    """Raises InputError where PyTorch has no such device here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):  # the latter from a PyTorch without CUDA
        cards = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        has = ", ".join(["cpu", *cards])
        raise InputError(f"device {device}: PyTorch has {has} here; give one of these, or auto") from None
