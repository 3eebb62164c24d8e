"""Tokens are drawn from the distribution, by hand and by the thousand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relisten.engines.sampling import draw

NONE_BANNED = torch.empty(0, dtype=torch.long)


def by_the_rule(logits: np.ndarray, banned: set[int], temperature: float, top_p: float, uniform: float) -> int:
    """One row, token by token as `draw` says it."""
    allowed = [i for i in range(len(logits)) if i not in banned]
    weights = np.exp((logits[allowed] - logits[allowed].max()) / temperature)
    weights /= weights.sum()
    kept, mass = [], 0.0
    for place in np.argsort(-weights, kind="stable"):
        if kept and mass >= top_p < 1:
            break
        kept.append(int(place))
        mass += weights[place]
    sums = np.cumsum([weights[place] for place in sorted(kept)])
    return allowed[sorted(kept)[int(np.searchsorted(sums, uniform * sums[-1], side="right"))]]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([2, 3, 127, 128, 129, 700]),
    spread=st.sampled_from([0.01, 1.0, 5.0]),
)
def test_draws_are_those_of_the_rule(seed: int, size: int, spread: float) -> None:
    random = np.random.default_rng(seed)
    logits = (spread * random.standard_normal((8, size))).astype(np.float32)
    banned = random.permutation(size)[: size // 3]
    temperatures = random.uniform(0.3, 1.5, 8).tolist()
    top_ps = [1.0, *random.uniform(0.05, 0.999, 6).tolist(), 1.0]
    chances = random.random(8).tolist()
    drawn = draw(torch.from_numpy(logits), torch.from_numpy(banned), temperatures, top_ps, chances)
    options = zip(temperatures, top_ps, chances, strict=True)
    assert drawn.tokens == [
        by_the_rule(row.astype(float), set(banned.tolist()), *option)
        for row, option in zip(logits, options, strict=True)
    ]
    expected = torch.from_numpy(logits).double().log_softmax(-1)[range(8), drawn.tokens]
    assert drawn.logprobs == pytest.approx(expected.tolist(), abs=1e-5)


def test_draw_by_hand() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().repeat(6, 1)
    drawn = draw(logits, NONE_BANNED, [1.0] * 6, [1.0] * 6, [0, 0.49, 0.51, 0.79, 0.81, 0.99])
    assert drawn.tokens == [0, 0, 1, 1, 2, 3]
    assert drawn.logprobs == pytest.approx(np.log([0.5, 0.5, 0.3, 0.3, 0.15, 0.05]), abs=1e-6)
    # The smallest set with mass 0.7 is {0, 1}, renormalised to 0.625 and 0.375.
    drawn = draw(logits, NONE_BANNED, [1.0] * 6, [0.7] * 6, [0, 0.6, 0.62, 0.63, 0.9, 0.999])
    assert drawn.tokens == [0, 0, 0, 1, 1, 1]
    # A temperature of 0.5 squares the odds: 25 : 9 : 2.25 : 0.25.
    edges = np.cumsum([25, 9, 2.25, 0.25]) / 36.5
    drawn = draw(logits[:4], NONE_BANNED, [0.5] * 4, [1.0] * 4, (edges - 1e-4).tolist())
    assert drawn.tokens == [0, 1, 2, 3]
    # A banned token is not drawn, yet the log-probs stay those of the whole distribution.
    drawn = draw(logits[:2], torch.tensor([0]), [0.0, 1.0], [1.0] * 2, [0, 0])
    assert drawn.tokens == [1, 1]
    assert drawn.logprobs == pytest.approx([np.log(0.3)] * 2, abs=1e-6)


def test_numbers_too_small_for_a_float32_leave_the_likeliest_token() -> None:
    logits = torch.tensor([[0.15, 0.3, 0.5, 0.05]]).log()
    assert draw(logits, NONE_BANNED, [1.0], [1e-46], [0.999]).tokens == [2]
    assert draw(logits, NONE_BANNED, [1e-40], [1.0], [0.999]).tokens == [2]
    assert draw(logits - 5, NONE_BANNED, [1e-40], [0.5], [0.999]).tokens == [2]


@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_what_is_not_a_number_ends_nothing(top_p: float) -> None:
    """The engine fails such a row by its log-prob; the token must be one of the vocabulary all the same."""
    logits = torch.stack([torch.full((200,), torch.nan), torch.zeros(200)])
    drawn = draw(logits, NONE_BANNED, [1.0, 1.0], [top_p, top_p], [0.5, 0.999])
    assert 0 <= drawn.tokens[0] < 200
    assert np.isnan(drawn.logprobs[0])
    assert drawn.tokens[1] in ((199,) if top_p == 1 else (99, 100))


@pytest.mark.parametrize("company", [0.9, 0.5, 1.0])
def test_a_row_draws_the_same_beside_any_other(company: float) -> None:
    logits = torch.tensor([[0.1, 0.2, 0.7]]).log().repeat(8, 1)
    chances = np.linspace(0.05, 0.95, 8).tolist()
    top_ps = [1.0, 0.85] * 4
    together = draw(torch.cat([logits, logits]), NONE_BANNED, [1.0] * 16, top_ps + [company] * 8, chances + chances)
    alone = [
        draw(logits[:1], NONE_BANNED, [1.0], [top_p], [chance]).tokens[0]
        for top_p, chance in zip(top_ps, chances, strict=True)
    ]
    assert together.tokens[:8] == alone
    assert alone[0] == 0  # no mass is cut, so the first token has the lowest tenth
    assert 0 not in alone[1::2]


def test_draws_follow_the_distribution() -> None:
    probs = torch.tensor([0.6, 0.3, 0.1])
    values = ((np.arange(1000) + 0.5) / 1000).tolist()
    drawn = draw(probs.log().repeat(1000, 1), NONE_BANNED, [1.0] * 1000, [1.0] * 1000, values)
    counts = np.bincount(drawn.tokens)
    assert counts.tolist() == [600, 300, 100]
    assert all(a <= b for a, b in pairwise(drawn.tokens))
