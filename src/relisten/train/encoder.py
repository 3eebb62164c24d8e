"""Warm-up of the audio tower alone: which label starts in which frame.

Sound events are learned here in a minute; through the language model's loss alone they take far longer.
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
from relisten.train.forward import Sounds, encode_frames

POSITIVE_WEIGHT = 6.0
"""Onsets are rare: about one frame in twenty has one."""


class OnsetHead(nn.Module):
    """A linear read-out of the tower's states; used in the warm-up and then thrown away."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, len(LABELS))

    def forward(self, tower: Any, sounds: Sounds, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Logits (N, frames, labels), and the number of frames of each sound (N,)."""
        states, lengths = encode_frames(tower, sounds, dtype)
        logits: Tensor = self.linear(tower.ln_post(states))
        return logits, lengths


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


def loss(logits: Tensor, lengths: Tensor, wanted: Tensor) -> Tensor:
    """Mean binary cross-entropy over the frames that exist, onsets weighing `POSITIVE_WEIGHT` times."""
    each = F.binary_cross_entropy_with_logits(
        logits.float(), wanted, reduction="none", pos_weight=torch.tensor(POSITIVE_WEIGHT)
    )
    exists = torch.arange(logits.shape[1]) < lengths[:, None]
    return each[exists].mean()


def f1(logits: Tensor, lengths: Tensor, wanted: Tensor) -> float:
    """Harmonic mean of precision and recall of onsets, each counted as found within one frame either side."""
    exists = (torch.arange(logits.shape[1]) < lengths[:, None])[..., None]
    said = ((logits > 1.0) & exists).float().transpose(1, 2)
    true = (wanted * exists).transpose(1, 2)
    near = F.max_pool1d(said, 3, stride=1, padding=1), F.max_pool1d(true, 3, stride=1, padding=1)
    recall = float((near[0] * true).sum() / true.sum().clamp(min=1))
    precision = float((near[1] * said).sum() / said.sum().clamp(min=1))
    return 2 * precision * recall / max(precision + recall, 1e-9)
