"""What a routing decision earns, and the loss that follows. Pure functions of arrays and tensors.

The reward of a route is relative (AudioRouter): what it changes against answering directly,

    correct(route) - correct(direct) - cost x tools called        in -1, 0, +1, less the cost

The cost is ours and 0 by default; so is the -1 of a decision that names no route. A policy gives every question a
distribution over its R routes and, last, over writing none of them (a head never does). Two estimators of the same
gradient: `sampled` draws G decisions and weighs their log-probs by their advantage in the group, as the paper does;
`exact` takes the expectation over all routes, which needs every route's outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from relisten.router.routes import DIRECT, Route
from relisten.train.grpo.policy_loss import group_advantages

MALFORMED: Final = -1.0
NEVER: Final = -1e4
"""Log-prob of what cannot happen: finite, and 0 as a probability."""


def relative_rewards(correct: NDArray[np.bool_], routes: Sequence[Route], cost: float = 0.0) -> NDArray[np.float32]:
    """What each outcome earns.

    Args:
        correct: (questions, routes).
        cost: of each tool that a route calls.

    Returns:
        (questions, routes + 1); the last column is that of malformed decisions.
    """
    right = correct.astype(np.float32)
    calls = np.array([len(route.tools) for route in routes], np.float32)
    earned = right - right[:, [routes.index(DIRECT)]] - np.float32(cost) * calls
    return np.concatenate([earned, np.full((len(earned), 1), MALFORMED, np.float32)], axis=1)


def never_malformed(logprobs: Tensor) -> Tensor:
    """(questions, routes) with a column for decisions that name no route, which a head cannot make."""
    return torch.cat([logprobs, torch.full((len(logprobs), 1), NEVER)], dim=1)


def draw(logprobs: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """`count` decisions for each question from (questions, routes + 1), as (questions, count) int64."""
    cumulated = logprobs.detach().double().exp().cumsum(-1)
    spots = torch.from_numpy(rng.random((len(logprobs), count))) * cumulated[:, -1:]
    return torch.searchsorted(cumulated, spots).clamp(max=logprobs.shape[1] - 1)


def advantages(rewards: Tensor, normalise: bool) -> tuple[Tensor, int]:
    """Reward less the mean of its group, (questions, count); 0 in groups that teach nothing, which are counted.

    Args:
        normalise: divide by the group's deviation.
    """
    rows, even = [], 0
    for group in rewards.tolist():
        found = group_advantages(group, normalise)
        even += found is None
        rows.append(found or (0.0,) * len(group))
    return torch.tensor(rows), even


def sampled_loss(logprobs: Tensor, choices: Tensor, weights: Tensor) -> Tensor:
    """Each question's loss (questions,): the mean of -advantage x log-prob over its decisions.

    Args:
        logprobs: (questions, routes + 1), with gradient.
        choices, weights: (questions, count), decisions and their advantages.
    """
    return -(logprobs.gather(1, choices) * weights).mean(1)


def exact_loss(logprobs: Tensor, rewards: Tensor) -> Tensor:
    """Each question's loss (questions,): less the reward expected of a decision. Both are (questions, routes +
    1)."""
    return -(logprobs.exp() * rewards).sum(1)


def entropy(logprobs: Tensor) -> Tensor:
    """In nats, (questions,)."""
    return -(logprobs.exp() * logprobs).sum(1)
