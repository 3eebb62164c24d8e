"""Advantages, clipping, divergence and averaging by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from relisten.train.grpo.config import Averaging
from relisten.train.grpo.policy_loss import (
    Objective,
    Sums,
    Tokens,
    group_advantages,
    importance_weights,
    k3,
    policy_loss,
    token_weights,
)


def test_advantages_by_hand() -> None:
    # mean 1, deviations -1, 0, 1: unbiased standard deviation 1
    assert group_advantages([0, 1, 2]) == pytest.approx((-1, 0, 1), abs=1e-5)
    # mean 0.5, unbiased variance (4 x 0.25) / 3
    assert group_advantages([0, 0, 1, 1]) == pytest.approx([x * math.sqrt(3) / 2 for x in (-1, -1, 1, 1)], abs=1e-5)
    assert group_advantages([0, 0, 1, 1], normalise=False) == (-0.5, -0.5, 0.5, 0.5)
    assert group_advantages([1.5, 0.5], normalise=False) == (0.5, -0.5)


@pytest.mark.parametrize("rewards", [[], [1.0], [0.5, 0.5], [0.1 + 0.2, 0.3], [0.0] * 8])
def test_a_group_without_variance_teaches_nothing(rewards: Sequence[float]) -> None:
    assert group_advantages(rewards) is None
    assert group_advantages(rewards, normalise=False) is None


@pytest.mark.parametrize(
    ("averaging", "expected"),
    [
        (Averaging.TOKEN, [1 / 6, 1 / 6, 1 / 6]),
        (Averaging.SEQUENCE, [1 / 3, 1 / 6, 1 / 9]),
        (Averaging.CONSTANT, [1 / 30, 1 / 30, 1 / 30]),
    ],
)
def test_token_weights_by_hand(averaging: Averaging, expected: list[float]) -> None:
    assert token_weights([1, 2, 3], averaging, constant=10) == pytest.approx(expected)


def test_an_answer_without_loss_counts_as_an_answer() -> None:
    assert token_weights([2, 0], Averaging.SEQUENCE, 10)[0] == pytest.approx(1 / 4)
    assert token_weights([2, 0], Averaging.TOKEN, 10)[0] == pytest.approx(1 / 2)


def tokens(old: float, advantage: float, reference: float | None = None, importance: float | None = None) -> Tokens:
    def one(value: float | None) -> torch.Tensor | None:
        return None if value is None else torch.tensor([value])

    return Tokens(torch.tensor([old]), torch.tensor([advantage]), torch.ones(1), one(reference), one(importance))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope", "clipped"),
    [
        (1.0, 2.0, -2.0, -2.0, 0),  # on policy: the plain policy gradient
        (1.1, 2.0, -2.2, -2.2, 0),
        (1.5, 2.0, -2.4, 0.0, 1),  # good, and already far likelier: no more
        (0.5, 2.0, -1.0, -1.0, 0),  # good and got unlikelier: pulled back in full
        (0.5, -2.0, 1.6, 0.0, 1),  # bad, and already far unlikelier: no more
        (1.5, -2.0, 3.0, 3.0, 0),  # bad and got likelier: pushed back in full
    ],
)
def test_clipping_by_hand(ratio: float, advantage: float, loss: float, slope: float, clipped: int) -> None:
    new = torch.tensor([math.log(0.2 * ratio)], requires_grad=True)
    value, sums = policy_loss(new, torch.ones(1), tokens(math.log(0.2), advantage), Objective(kl=0.0))
    value.backward()
    assert value.item() == pytest.approx(loss, rel=1e-5)
    assert new.grad is not None
    assert new.grad.item() == pytest.approx(slope, rel=1e-5)
    assert sums.clipped == clipped


def test_the_upper_clip_may_be_wider() -> None:
    new = torch.tensor([math.log(0.5 * 1.25)])
    value, sums = policy_loss(new, torch.ones(1), tokens(math.log(0.5), 1.0), Objective(0.2, 0.3, 0.0))
    assert value.item() == pytest.approx(-1.25)
    assert sums.clipped == 0


def test_divergence_by_hand() -> None:
    # pi 0.5, pi_ref 0.25: d = log 1/2, so 1/2 + log 2 - 1
    new, reference = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)])
    assert k3(new, reference).item() == pytest.approx(0.5 + math.log(2) - 1, rel=1e-5)
    assert k3(new, new).item() == 0.0
    assert torch.isfinite(k3(torch.tensor([0.0]), torch.tensor([-1e9]))).all()
    assert torch.isfinite(k3(torch.tensor([-1e9]), torch.tensor([0.0]))).all()


def test_divergence_is_unbiased_and_its_gradient_pulls_to_the_reference() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([0.3, -0.2, 0.9], requires_grad=True)
    reference = torch.tensor([0.1, 0.4, -0.5]).log_softmax(-1)
    policy = logits.log_softmax(-1)
    expected = (policy.exp() * k3(policy, reference)).sum()
    exact = (policy.exp() * (policy - reference)).sum()
    assert expected.item() == pytest.approx(exact.item(), rel=1e-4)
    new = torch.tensor([math.log(0.5)], requires_grad=True)
    k3(new, torch.tensor([math.log(0.25)])).sum().backward()
    assert new.grad is not None
    assert new.grad.item() == pytest.approx(1 - 0.5)


def test_all_terms_together_by_hand() -> None:
    given = Tokens(
        old=torch.tensor([-1.0, -2.0]),
        advantages=torch.tensor([1.0, -1.0]),
        weights=torch.tensor([0.5, 0.25]),
        reference=torch.tensor([-1.0, -2.0]),
        importance=torch.tensor([2.0, 0.5]),
    )
    new = torch.tensor([-1.0, -2.0])
    value, sums = policy_loss(new, torch.tensor([3.0, 1.0]), given, Objective(kl=0.1, entropy=0.01))
    assert value.item() == pytest.approx(0.5 * (-2.0 - 0.03) + 0.25 * (0.5 - 0.01))
    assert sums == pytest.approx(Sums(2.0, 0.0, 0.0, 0.0, 4.0))


def test_parts_of_an_update_add_up() -> None:
    torch.manual_seed(1)
    new, old, reference = -torch.rand(3, 9)
    columns = (old, torch.randn(9), torch.rand(9), reference)
    whole, sums = policy_loss(new, torch.ones(9), Tokens(*columns), Objective())
    parts = [
        policy_loss(new[p], torch.ones(9)[p], Tokens(*(column[p] for column in columns)), Objective())
        for p in (slice(0, 4), slice(4, 9))
    ]
    assert sum(value for value, _ in parts).item() == pytest.approx(whole.item(), rel=1e-5)  # type: ignore[union-attr]
    assert parts[0][1].plus(parts[1][1]) == pytest.approx(sums, rel=1e-5)


def test_importance_weights_are_truncated_from_above_only() -> None:
    old, sampled = torch.log(torch.tensor([0.5, 0.1, 0.9])), torch.log(torch.tensor([0.25, 0.4, 0.1]))
    assert importance_weights(old, sampled, cap=3.0).tolist() == pytest.approx([2.0, 0.25, 3.0])
