"""Tokens are drawn from the distribution, by hand and by the thousand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from relisten.engines.sampling import draw


def uniforms(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_draw_by_hand() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().repeat(6, 1)
    banned = torch.tensor([False, False, False, False])
    ones = torch.ones(6)
    drawn = draw(logits, banned, ones, ones, uniforms(0, 0.49, 0.51, 0.79, 0.81, 0.99))
    assert drawn.tokens == [0, 0, 1, 1, 2, 3]
    assert drawn.logprobs == pytest.approx(np.log([0.5, 0.5, 0.3, 0.3, 0.15, 0.05]), abs=1e-6)
    # The smallest set with mass 0.7 is {0, 1}, renormalised to 0.625 and 0.375.
    drawn = draw(logits, banned, ones, ones * 0.7, uniforms(0, 0.6, 0.62, 0.63, 0.9, 0.999))
    assert drawn.tokens == [0, 0, 0, 1, 1, 1]
    # A temperature of 0.5 squares the odds: 25 : 9 : 2.25 : 0.25.
    edges = np.cumsum([25, 9, 2.25, 0.25]) / 36.5
    drawn = draw(logits[:4], banned, ones[:4] / 2, ones[:4], uniforms(*(edges - 1e-4)))
    assert drawn.tokens == [0, 1, 2, 3]
    # A banned token is not drawn, yet the log-probs stay those of the whole distribution.
    drawn = draw(
        logits[:2], torch.tensor([True, False, False, False]), uniforms(0, 1).float(), ones[:2], uniforms(0, 0)
    )
    assert drawn.tokens == [1, 1]
    assert drawn.logprobs == pytest.approx([np.log(0.3)] * 2, abs=1e-6)


def test_draws_follow_the_distribution() -> None:
    probs = torch.tensor([0.6, 0.3, 0.1])
    values = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    drawn = draw(
        probs.log().repeat(1000, 1), torch.zeros(3, dtype=torch.bool), torch.ones(1000), torch.ones(1000), values
    )
    counts = np.bincount(drawn.tokens)
    assert counts.tolist() == [600, 300, 100]
    assert all(a <= b for a, b in pairwise(drawn.tokens))
