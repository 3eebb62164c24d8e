"""The audio tower's own exercise: which sound starts in which frame, and traits of that sound.

Alone it comes first and teaches in minutes what the language model's loss takes far longer for; beside that loss it
keeps the tower from losing labels again (without it, the share of labels that a linear probe reads fell from 79 to
66 % while the language model learned).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relisten.audio import SAMPLE_RATE
from relisten.data.scenes import Event, Scene, onset_targets
from relisten.data.timbres import LABELS

POSITIVE_WEIGHT: Final = 6.0
"""Onsets are rare: about one frame in twenty has one."""
TRAITS: Final = ("since", "level", "pitch", "length", "gap")
"""What is predicted of a sound in the frame where it starts, each scaled to be about 1 in size: seconds since the
sound before it (which helps to read sound by sound), level, pitch, length if it holds and stops within the clip,
and the time until the next sound over the longest such time."""


@dataclass(frozen=True)
class Wanted:
    """Targets for N clips of F frames."""

    onsets: Tensor
    """(N, F, labels) of 0 and 1."""
    traits: Tensor
    """(N, F, traits); NaN where there is no such trait."""


class OnsetHead(nn.Module):
    """A linear read-out of the tower's states; used in training and then thrown away."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, len(LABELS) + len(TRAITS))

    def forward(self, tower: Any, states: Tensor) -> Tensor:
        """(N, frames, labels + traits) from the tower's states before pooling: label logits, then traits."""
        values: Tensor = self.linear(tower.ln_post(states))
        return values


def frame_rate(hop_length: int) -> float:
    """States before pooling per second: one for every two mel frames."""
    return SAMPLE_RATE / hop_length / 2


def targets(scenes: Sequence[Scene], frames: int, rate: float) -> Wanted:
    """What `OnsetHead` should predict for the scenes' sound."""
    onsets = np.zeros((len(scenes), frames, len(LABELS)), np.float32)
    traits = np.full((len(scenes), frames, len(TRAITS)), np.nan, np.float32)
    for row, scene in enumerate(scenes):
        here = onset_targets(scene, rate)[:frames]
        onsets[row, : len(here)] = here
        for event, values in zip(scene.events, _traits(scene.events, scene.clip.duration), strict=True):
            traits[row, min(frames - 1, int(event.onset * rate))] = values
    return Wanted(torch.from_numpy(onsets), torch.from_numpy(traits))


def _traits(events: Sequence[Event], duration: float) -> list[tuple[float, ...]]:
    steps = [late.onset - early.onset for early, late in pairwise(events)]
    longest = max(steps, default=math.nan)
    told: list[tuple[float, ...]] = []
    for number, event in enumerate(events):
        whole = event.sustained and event.offset < duration - 0.02
        told.append(
            (
                event.onset - (events[number - 1].onset if number else 0.0),
                (event.level + 25) / 10,
                math.log2(event.pitch / 700) if event.pitch else math.nan,
                math.log2(max(event.duration, 0.05) / 0.5) if whole else math.nan,
                steps[number] / longest if number < len(steps) and len(steps) > 1 else math.nan,
            )
        )
    return told


def loss(values: Tensor, lengths: Tensor, wanted: Wanted, traits: float = 0.0) -> Tensor:
    """Mean binary cross-entropy over the frames that exist, onsets weighing `POSITIVE_WEIGHT` times, plus `traits`
    times the mean absolute error (smooth below 0.1) of the traits where a sound starts.
    """
    each = F.binary_cross_entropy_with_logits(
        values[..., : len(LABELS)].float(),
        wanted.onsets,
        reduction="none",
        pos_weight=torch.tensor(POSITIVE_WEIGHT),
    )
    exists = torch.arange(values.shape[1]) < lengths[:, None]
    mean = each[exists].mean()
    known = ~wanted.traits.isnan()
    if traits and known.any():
        said = values[..., len(LABELS) :][known].float()
        mean = mean + traits * F.smooth_l1_loss(said, wanted.traits[known], beta=0.1)
    return mean


def f1(values: Tensor, lengths: Tensor, wanted: Wanted) -> float:
    """Harmonic mean of precision and recall of onsets, each counted as found within one frame either side."""
    exists = (torch.arange(values.shape[1]) < lengths[:, None])[..., None]
    said = ((values[..., : len(LABELS)] > 1.0) & exists).float().transpose(1, 2)
    true = (wanted.onsets * exists).transpose(1, 2)
    near = F.max_pool1d(said, 3, stride=1, padding=1), F.max_pool1d(true, 3, stride=1, padding=1)
    recall = float((near[0] * true).sum() / true.sum().clamp(min=1))
    precision = float((near[1] * said).sum() / said.sum().clamp(min=1))
    return 2 * precision * recall / max(precision + recall, 1e-9)


def label_accuracy(values: Tensor, wanted: Wanted) -> float:
    """How often the likeliest label of a frame in which one sound starts is the right one."""
    starts = wanted.onsets.sum(-1) == 1
    said = values[..., : len(LABELS)].argmax(-1)
    return float((said == wanted.onsets.argmax(-1))[starts].float().mean())


def trait_errors(values: Tensor, wanted: Wanted) -> dict[str, float]:
    """Mean absolute error of each trait, in its scaled unit."""
    errors = (values[..., len(LABELS) :] - wanted.traits).abs()
    return {name: float(errors[..., i].nanmean()) for i, name in enumerate(TRAITS)}
