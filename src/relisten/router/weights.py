"""What a reasoner's weights are, as one number: to know it again, and to prove that nothing changed it."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from relisten.models.base import Family


def weights_hash(family: Family, *, exact: bool = True) -> str:
    """SHA-256 (hex) over names and values of all the thinker's weights as they are in memory.

    Args:
        exact: over every bit; else over the values in bfloat16, which are the same whatever precision a checkpoint
            was loaded in.
    """
    total = hashlib.sha256()
    state: dict[str, Any] = family.thinker.state_dict()
    for name in sorted(state):
        tensor: Tensor = state[name].detach()
        tensor = tensor if exact else tensor.to(torch.bfloat16)
        data: Any = tensor.contiguous().cpu().flatten().view(torch.uint8).numpy()
        total.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        total.update(data)
    return total.hexdigest()


def count_weights(family: Family) -> int:
    """Parameters of the reasoner: its language model, its audio tower, its output layer; each counted once."""
    return sum(parameter.numel() for parameter in family.thinker.parameters())
