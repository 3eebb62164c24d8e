"""Choosing the next token of many rows at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

_BLOCK = 128


class Drawn(NamedTuple):
    tokens: list[int]
    logprobs: list[float]


def draw(
    logits: Tensor,
    banned: Tensor,
    temperatures: Sequence[float],
    top_ps: Sequence[float],
    uniforms: Sequence[float],
) -> Drawn:
    """One token for each row, and its log-prob.

    A row depends on its own numbers alone, so it draws the same whatever stands beside it. The log-prob is that
    of the model's whole distribution at temperature 1 (what a full forward over the same tokens gives);
    temperature, top-p and the ban decide only what is drawn.

    Args:
        logits: (rows, vocabulary) float32.
        banned: ids of the tokens that are never drawn.
        temperatures: of each row; 0 takes the likeliest token.
        top_ps: of each row; the smallest set of likeliest tokens with at least this mass is drawn from.
        uniforms: of each row, in [0, 1), the only source of chance.
    """
    allowed = logits.index_fill(-1, banned, -torch.inf)
    sampled = [row for row, temperature in enumerate(temperatures) if temperature > 0]
    if len(sampled) < len(temperatures):
        tokens = allowed.argmax(-1)
    else:
        tokens = torch.empty(len(sampled), dtype=torch.long, device=logits.device)
    for rows in ([r for r in sampled if top_ps[r] >= 1], [r for r in sampled if top_ps[r] < 1]):
        if not rows:
            continue
        places = torch.tensor(rows, device=logits.device)
        # The likeliest at 0, so that no temperature makes it infinite.
        below = allowed[places]
        below -= below.amax(-1, keepdim=True)
        below /= _column(temperatures, rows, below)
        probs = below.softmax(-1)
        chances = _column(uniforms, rows, below, torch.float64)
        if top_ps[rows[0]] < 1:
            mass, ids = _nucleus(probs, _column(top_ps, rows, below, torch.float64))
            tokens[places] = ids.gather(-1, _quantile(mass, chances))[:, 0]
        else:
            tokens[places] = _quantile(probs, chances)[:, 0]
    logprobs = logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    return Drawn(tokens.tolist(), logprobs.tolist())


def _column(values: Sequence[float], rows: list[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.tensor([values[row] for row in rows], dtype=dtype or like.dtype, device=like.device)[:, None]


def _nucleus(probs: Tensor, top_ps: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest tokens of each row that hold its top-p, in the vocabulary's order.

    Returns:
        Their mass (float64) and ids, (rows, most tokens of a row) each; places without a token have mass 0.
    """
    # Tokens below a share of (1 - p) / vocabulary hold less than 1 - p together, so none of them is needed. That
    # leaves a few to be sorted, where sorting a vocabulary would take longer than a small model's step.
    needed = probs > (1 - top_ps) / (2 * probs.shape[-1])
    rows, found = needed.nonzero(as_tuple=True)
    counts = needed.sum(-1)
    places = torch.arange(len(rows), device=probs.device) - (counts.cumsum(0) - counts)[rows]
    most = max(1, int(counts.max()))
    mass = probs.new_zeros(len(probs), most, dtype=torch.float64)
    mass[rows, places] = probs[rows, found].double()
    ids = torch.zeros_like(mass, dtype=torch.long)
    ids[rows, places] = found
    ordered, order = mass.sort(dim=-1, descending=True, stable=True)
    beyond = ordered.cumsum(-1) - ordered >= top_ps
    beyond[:, 0] = False  # the likeliest stays, also where top-p is too small for a float32
    return mass.masked_fill(torch.zeros_like(beyond).scatter_(-1, order, beyond), 0), ids


def _quantile(mass: Tensor, chances: Tensor) -> Tensor:
    """(rows, 1) the places at which the running sum of (rows, places) `mass` passes the share `chances` of all.

    Sums are float64, first of blocks and then within one, so that a vocabulary is read once and not copied.
    """
    blocks = pad(mass, (0, -mass.shape[-1] % _BLOCK)).view(len(mass), -1, _BLOCK)
    sums = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    wanted = chances * sums[:, -1:]
    block = _passes(sums, wanted)
    before = torch.where(block > 0, sums.gather(-1, (block - 1).clamp_(min=0)), 0)
    inside = blocks.gather(1, block[..., None].expand(-1, 1, _BLOCK))[:, 0].double().cumsum(-1)
    place = block * _BLOCK + _passes(inside, wanted - before)
    return place.clamp_(max=mass.shape[-1] - 1)


def _passes(sums: Tensor, wanted: Tensor) -> Tensor:
    """Where running sums exceed what is wanted: the last place that adds something, if rounding asks for more."""
    wanted = torch.minimum(wanted, sums[:, -1:].nextafter(sums.new_tensor(-math.inf)))
    return torch.searchsorted(sums, wanted, right=True).clamp_(max=sums.shape[-1] - 1)
