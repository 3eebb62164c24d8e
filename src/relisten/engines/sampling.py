"""Choosing the next token of many rows at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Drawn(NamedTuple):
    tokens: list[int]
    logprobs: list[float]


def draw(logits: Tensor, banned: Tensor, temperatures: Tensor, top_ps: Tensor, uniforms: Tensor) -> Drawn:
    """One token for each row, and its log-prob.

    A row depends on its own numbers alone, so it draws the same whatever stands beside it. The log-prob is that
    of the model's whole distribution at temperature 1 (what a full forward over the same tokens gives);
    temperature, top-p and the ban decide only what is drawn.

    Args:
        logits: (rows, vocabulary) float32.
        banned: (vocabulary,) bool, tokens that are never drawn.
        temperatures: (rows,); 0 takes the likeliest token.
        top_ps: (rows,); the smallest set of likeliest tokens with at least this mass is drawn from.
        uniforms: (rows,) float64 in [0, 1), the only source of chance.
    """
    allowed = logits.masked_fill(banned, -torch.inf)
    tokens = allowed.argmax(-1)
    sampled = temperatures > 0
    if bool(sampled.any()):
        # The likeliest at 0, so that no temperature makes it infinite.
        below = allowed[sampled] - allowed[sampled].amax(-1, keepdim=True)
        probs = (below / temperatures[sampled, None]).softmax(-1)
        tokens = tokens.masked_scatter(sampled, _inverse_cdf(probs, top_ps[sampled], uniforms[sampled]))
    logprobs = logits.gather(-1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
    return Drawn(tokens.tolist(), logprobs.tolist())


def _inverse_cdf(probs: Tensor, top_ps: Tensor, uniforms: Tensor) -> Tensor:
    """(rows,) token ids at the quantile `uniforms` of what top-p leaves of `probs`, in the vocabulary's order."""
    mass = probs.double()
    cut = top_ps < 1
    if bool(cut.any()):
        ordered, ids = mass[cut].sort(dim=-1, descending=True, stable=True)
        beyond = ordered.cumsum(-1) - ordered >= top_ps[cut, None]
        beyond[:, 0] = False  # the likeliest stays, also where top-p is too small for a float32
        # Back in the vocabulary's order, so that one rule draws for rows with and without top-p.
        kept = ordered.masked_fill(beyond, 0)
        mass[cut] = torch.zeros_like(kept).scatter_(-1, ids, kept)
    cumulative = mass.cumsum(-1)
    target = (uniforms * cumulative[:, -1])[:, None]
    return torch.searchsorted(cumulative, target, right=True).clamp_(max=probs.shape[-1] - 1)[:, 0]
