"""Numbers of a finished policy that its training does not learn: temperature and threshold, from validation."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

_TEMPERATURES: Final = tuple(float(t) for t in np.geomspace(0.5, 8.0, 33))
_GAIN: Final = 0.01
"""Share of the loss that a temperature must save to be worth having."""


def fit_temperature(logprobs: Tensor, rewards: Tensor) -> float:
    """What log-probs are to be divided by so that a decision is as often one of the best as its probability says.

    Least surprise at the set of best routes, over the questions where routes differ; 1 where hardly anything is
    gained.

    Args:
        logprobs, rewards: (questions, routes + 1).
    """
    most = rewards.max(1, keepdim=True).values
    best = rewards > most - 1e-6
    differs = ~best[:, :-1].all(1)
    if not differs.any():
        return 1.0

    def surprise(temperature: float) -> float:
        chances = (logprobs[differs].double() / temperature).softmax(-1)
        return float(-(chances * best[differs]).sum(1).clamp(min=1e-12).log().mean())

    found = min(_TEMPERATURES, key=surprise)
    return found if surprise(found) < (1 - _GAIN) * surprise(1.0) else 1.0


def fit_threshold(probabilities: Tensor, rewards: Tensor, direct: int) -> float:
    """The least probability of a route other than direct that earns the most, if that is more than calling always
    earns by over a standard error; else 0. A set for validation is small, and the best of many cuts looks better
    than it is.

    Args:
        probabilities: (questions, routes).
        rewards: (questions, routes + 1).
        direct: number of the direct route.
    """
    chances, best = probabilities.max(1)
    away = best != direct
    order = chances[away].sort(descending=True)
    gains = (rewards[torch.arange(len(rewards)), best] - rewards[:, direct])[away][order.indices].double()
    # Cutting behind each decision in order of falling confidence: what the ones in front of the cut earn together.
    earned = torch.cat([torch.zeros(1, dtype=torch.float64), gains.cumsum(0)])
    place = int((earned >= earned.max() - 1e-6).nonzero()[0])
    error = float(gains[place:].square().sum().sqrt())
    if float(earned[place] - earned[-1]) <= error:
        return 0.0
    if place == 0:
        return 1.0
    return float(order.values[place - 1] + order.values[place]) / 2
