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


def test_numbers_too_small_for_a_float32_leave_the_likeliest_token() -> None:
    logits = torch.tensor([[0.15, 0.3, 0.5, 0.05]]).log()
    banned, one, last = torch.zeros(4, dtype=torch.bool), torch.ones(1), uniforms(0.999)
    assert draw(logits, banned, one, torch.tensor([1e-46]), last).tokens == [2]
    assert draw(logits, banned, torch.tensor([1e-40]), one, last).tokens == [2]
    assert draw(logits - 5, banned, torch.tensor([1e-40]), torch.tensor([0.5]), last).tokens == [2]


@pytest.mark.parametrize("company", [0.9, 0.5, 1.0])
def test_a_row_draws_the_same_beside_any_other(company: float) -> None:
    logits = torch.tensor([[0.1, 0.2, 0.7]]).log().repeat(8, 1)
    banned = torch.zeros(3, dtype=torch.bool)
    chances = torch.linspace(0.05, 0.95, 8, dtype=torch.float64)
    top_ps = torch.tensor([1.0, 0.85] * 4)
    together = draw(
        torch.cat([logits, logits]),
        banned,
        torch.ones(16),
        torch.cat([top_ps, torch.full((8,), company)]),
        torch.cat([chances, chances]),
    )
    alone = [
        draw(logits[:1], banned, torch.ones(1), top_p[None], chance[None]).tokens[0]
        for top_p, chance in zip(top_ps, chances, strict=True)
    ]
    assert together.tokens[:8] == alone
    assert alone[0] == 0  # no mass is cut, so the first token has the lowest tenth
    assert 0 not in alone[1::2]


def test_draws_follow_the_distribution() -> None:
    probs = torch.tensor([0.6, 0.3, 0.1])
    values = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    drawn = draw(
        probs.log().repeat(1000, 1), torch.zeros(3, dtype=torch.bool), torch.ones(1000), torch.ones(1000), values
    )
    counts = np.bincount(drawn.tokens)
    assert counts.tolist() == [600, 300, 100]
    assert all(a <= b for a, b in pairwise(drawn.tokens))
