"""How many processors one operation of an engine's threads takes."""

from __future__ import annotations

import threading

import torch

from relisten.models.base import Family

_SMALL = 1 << 25
"""Bytes of weights below which sharing out an operation costs more than it gains."""
_changing = threading.Lock()


def fitting_threads(family: Family) -> int:
    """Processors for an operation of this model: what PyTorch would take, but one for a small model on a CPU, which
    leaves the others to sound that is encoded beside (`rates` of `benchmarks/evaluate.py` compare both)."""
    size = sum(weight.nbytes for weight in family.language_model.parameters())
    return 1 if family.device.type == "cpu" and size < _SMALL else torch.get_num_threads()


def take_threads(count: int) -> None:
    """Have operations of this thread take that many processors; other threads take what they took."""
    with _changing:
        others = torch.get_num_threads()
        if count == others:
            return
        torch.set_num_threads(count)
        # This also told PyTorch what threads to come shall take, which another thread can take back.
        restoring = threading.Thread(target=torch.set_num_threads, args=(others,))
        restoring.start()
        restoring.join()
