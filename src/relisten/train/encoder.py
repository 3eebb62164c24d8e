"""The audio tower's own exercise: which label starts in which frame, and the how-manieth sound it is.

Alone it comes first and teaches in minutes what the language model's loss takes far longer for; beside that loss it
keeps the tower from losing labels again (without it, the share of labels that a linear probe reads fell from 79 to
66 % while the language model learned).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relisten.audio import SAMPLE_RATE
from relisten.data.scenes import Scene, onset_targets
from relisten.data.timbres import LABELS

POSITIVE_WEIGHT = 6.0
"""Onsets are rare: about one frame in twenty has one."""
ORDINALS = 16
"""Events of a sound whose place in the order is told apart; later ones count as the last."""


class OnsetHead(nn.Module):
    """A linear read-out of the tower's states; used in the warm-up and then thrown away."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, len(LABELS) + ORDINALS)

    def forward(self, tower: Any, states: Tensor) -> Tensor:
        """Logits (N, frames, labels + ordinals) from the tower's states before pooling."""
        logits: Tensor = self.linear(tower.ln_post(states))
        return logits


def frame_rate(hop_length: int) -> float:
    """States before pooling a second: one for two mel frames."""
    return SAMPLE_RATE / hop_length / 2


def targets(scenes: Sequence[Scene], frames: int, rate: float) -> Tensor:
    """(N, frames, labels) of 0 and 1."""
    found = np.zeros((len(scenes), frames, len(LABELS)), np.float32)
    for row, scene in enumerate(scenes):
        here = onset_targets(scene, rate)[:frames]
        found[row, : len(here)] = here
    return torch.from_numpy(found)


def loss(logits: Tensor, lengths: Tensor, wanted: Tensor, order: float = 0.0) -> Tensor:
    """Mean binary cross-entropy over the frames that exist, onsets weighing `POSITIVE_WEIGHT` times.

    To it comes, `order` times, how badly the frames with an onset tell that it is the first, second, ... of the
    sound: who reads the sound event by event then finds the next one by its number.
    """
    labels = logits[..., : len(LABELS)]
    each = F.binary_cross_entropy_with_logits(
        labels.float(), wanted, reduction="none", pos_weight=torch.tensor(POSITIVE_WEIGHT)
    )
    exists = torch.arange(logits.shape[1]) < lengths[:, None]
    mean = each[exists].mean()
    if order:
        starts = wanted.any(-1)
        place = (starts.cumsum(1) - 1).clamp(max=ORDINALS - 1)
        mean = mean + order * F.cross_entropy(logits[..., len(LABELS) :][starts].float(), place[starts])
    return mean


def f1(logits: Tensor, lengths: Tensor, wanted: Tensor) -> float:
    """Harmonic mean of precision and recall of onsets, each counted as found within one frame either side."""
    exists = (torch.arange(logits.shape[1]) < lengths[:, None])[..., None]
    said = ((logits[..., : len(LABELS)] > 1.0) & exists).float().transpose(1, 2)
    true = (wanted * exists).transpose(1, 2)
    near = F.max_pool1d(said, 3, stride=1, padding=1), F.max_pool1d(true, 3, stride=1, padding=1)
    recall = float((near[0] * true).sum() / true.sum().clamp(min=1))
    precision = float((near[1] * said).sum() / said.sum().clamp(min=1))
    return 2 * precision * recall / max(precision + recall, 1e-9)


def place_accuracy(logits: Tensor, wanted: Tensor) -> float:
    """How often a frame with an onset tells which event of the sound it is."""
    starts = wanted.any(-1)
    place = (starts.cumsum(1) - 1).clamp(max=ORDINALS - 1)
    return float((logits[..., len(LABELS) :].argmax(-1)[starts] == place[starts]).float().mean())
