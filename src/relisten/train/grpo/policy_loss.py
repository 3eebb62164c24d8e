"""The GRPO objective: advantages within a group of answers to one question, and the loss of their tokens.

Pure functions of numbers and tensors. For token t of answer i in a group of G with rewards R, the loss is

    - min(r A_i, clip(r, 1 - low, 1 + high) A_i) w  +  beta (exp(d) - d - 1)  -  eta H

with r = pi / pi_old, d = log pi_ref - log pi (k3, the low-variance estimator of the divergence from a frozen
reference), w the truncated importance weight of an engine whose probabilities differ from the trainer's, and H the
entropy. Tokens are averaged as `Averaging` says. Paper: G 8, low = high = 0.2, beta 0.04, eta 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor

from relisten.train.grpo.config import Averaging

EPSILON: Final = 1e-6
"""Added to the deviation that normalises advantages."""
_MOST = 20.0  # largest log-ratio: e^20 is as good as infinite, but finite


def group_advantages(rewards: Sequence[float], normalise: bool = True) -> tuple[float, ...] | None:
    """Reward less the group's mean, for every answer of a group.

    Args:
        normalise: divide by the group's standard deviation (unbiased), as GRPO and the paper do; Dr. GRPO does
            not.

    Returns:
        None for a group that teaches nothing: fewer than two answers, or all rewards equal.
    """
    if len(rewards) < 2 or max(rewards) - min(rewards) < 1e-9:
        return None
    mean = math.fsum(rewards) / len(rewards)
    centred = [reward - mean for reward in rewards]
    if not normalise:
        return tuple(centred)
    deviation = math.sqrt(math.fsum(value**2 for value in centred) / (len(rewards) - 1))
    return tuple(value / (deviation + EPSILON) for value in centred)


def token_weights(lengths: Sequence[int], averaging: Averaging, constant: int) -> list[float]:
    """For each answer of an update, the weight of each of its tokens, so that losses of parts of the update add up.

    Args:
        lengths: sampled tokens of every answer; 0 for one without loss, which still counts as an answer.
        constant: the divisor of `Averaging.CONSTANT`.
    """
    if averaging is Averaging.TOKEN:
        return [1 / max(1, sum(lengths))] * len(lengths)
    if averaging is Averaging.SEQUENCE:
        return [1 / (len(lengths) * max(1, length)) for length in lengths]
    return [1 / (len(lengths) * constant)] * len(lengths)


@dataclass(frozen=True)
class Objective:
    """The coefficients of the loss; see the module's formula."""

    clip_low: float = 0.2
    clip_high: float = 0.2
    kl: float = 0.04
    entropy: float = 0.0


class Tokens(NamedTuple):
    """What is known of T sampled tokens before an update; all (T,) float32."""

    old: Tensor
    """Log-probs under the policy that the update starts from."""
    advantages: Tensor
    weights: Tensor
    reference: Tensor | None = None
    """Log-probs under the frozen reference."""
    importance: Tensor | None = None
    """Truncated importance weights; None where the engine's log-probs are the trainer's own."""


class Sums(NamedTuple):
    """Sums over tokens, to be divided by their number once all parts of an update are there."""

    tokens: float = 0.0
    clipped: float = 0.0
    """Tokens without a policy gradient, since their ratio was clipped."""
    kl: float = 0.0
    """Divergence from the reference (k3)."""
    drift: float = 0.0
    """Divergence from the old policy (k3)."""
    entropy: float = 0.0

    def plus(self, other: Sums) -> Sums:
        return Sums(*(a + b for a, b in zip(self, other, strict=True)))


def policy_loss(logprobs: Tensor, entropies: Tensor, tokens: Tokens, objective: Objective) -> tuple[Tensor, Sums]:
    """The weighted sum of the tokens' losses (a scalar with gradient), and sums for the metrics.

    Args:
        logprobs: (T,) under the policy that is trained, with gradient.
        entropies: (T,) of the distributions they were drawn from.
    """
    log_ratio = (logprobs - tokens.old).clamp(-_MOST, _MOST)
    ratio = log_ratio.exp()
    plain = ratio * tokens.advantages
    clipped = ratio.clamp(1 - objective.clip_low, 1 + objective.clip_high) * tokens.advantages
    gain = torch.minimum(plain, clipped)
    if tokens.importance is not None:
        gain = gain * tokens.importance
    each = -gain
    kl = torch.zeros_like(each)
    if tokens.reference is not None:
        kl = k3(logprobs, tokens.reference)
        each = each + objective.kl * kl
    if objective.entropy:
        each = each - objective.entropy * entropies
    with torch.no_grad():
        sums = torch.stack(
            [(clipped < plain).sum(), kl.sum(), k3(tokens.old, logprobs).sum(), entropies.sum()]
        ).tolist()
    return (each * tokens.weights).sum(), Sums(float(len(logprobs)), *sums)


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """exp(d) - d - 1 with d = reference - logprobs: unbiased for KL(pi | pi_ref) on tokens drawn from pi, never
    negative."""
    difference = (reference - logprobs).clamp(-_MOST, _MOST)
    return difference.exp() - difference - 1


def importance_weights(old: Tensor, sampled: Tensor, cap: float) -> Tensor:
    """min(pi_old / pi_engine, cap): weighs tokens of an engine whose probabilities differ from the trainer's."""
    return (old - sampled).clamp(-_MOST, _MOST).exp().clamp(max=cap)
