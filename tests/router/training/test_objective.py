"""Rewards and gradients against what they are by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from relisten.router.routes import DIRECT, Route
from relisten.router.training.objective import (
    NEVER,
    advantages,
    draw,
    entropy,
    exact_loss,
    relative_rewards,
    sampled_loss,
)

ROUTES = (Route(("pitch",)), DIRECT, Route(("pitch", "silence")))
LOGITS = torch.tensor([[0.3, -0.2, 0.5, -1.0]])


def test_the_reward_is_what_a_route_changes_less_its_tools() -> None:
    correct = np.array([[True, False, False], [True, True, False], [False, True, True], [False, False, False]])
    assert relative_rewards(correct, ROUTES).tolist() == [
        [1, 0, 0, -1],
        [0, 0, -1, -1],
        [-1, 0, 0, -1],
        [0, 0, 0, -1],
    ]
    costly = relative_rewards(correct, ROUTES, cost=0.25)
    assert costly[0].tolist() == [0.75, 0, -0.5, -1]


def test_the_exact_gradient_is_that_of_the_expectation() -> None:
    logits = LOGITS.clone().requires_grad_()
    rewards = torch.tensor([[1.0, 0.0, -1.0, -1.0]])
    exact_loss(logits.log_softmax(-1), rewards).sum().backward()
    chances = LOGITS.softmax(-1)
    expected = (chances * rewards).sum()
    # d E / d logit_r = p_r (reward_r - E), and the loss is -E.
    torch.testing.assert_close(logits.grad, -chances * (rewards - expected))


@pytest.mark.parametrize("count", [2, 3])
def test_the_sampled_gradient_is_on_average_the_exact_one(count: int) -> None:
    """Over all groups there are, each as likely as it is: (G - 1) / G of the exact one, since a decision's own
    reward is part of the mean that it is compared with."""
    rewards = torch.tensor([[1.0, 0.0, -1.0, -1.0]])
    chances = LOGITS.softmax(-1)[0]
    mean = torch.zeros(1, 4)
    for group in itertools.product(range(4), repeat=count):
        choices = torch.tensor([group])
        logits = LOGITS.clone().requires_grad_()
        weights, _ = advantages(rewards.gather(1, choices), normalise=False)
        sampled_loss(logits.log_softmax(-1), choices, weights).sum().backward()
        mean += chances[list(group)].prod() * logits.grad
    exact = LOGITS.clone().requires_grad_()
    exact_loss(exact.log_softmax(-1), rewards).sum().backward()
    torch.testing.assert_close(mean, exact.grad * (count - 1) / count, atol=1e-6, rtol=1e-5)


def test_advantages_are_within_a_group_and_even_groups_are_counted() -> None:
    found, even = advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]), normalise=False)
    assert found.tolist() == [[0.75, -0.25, -0.25, -0.25], [0, 0, 0, 0]]
    assert even == 1
    normal, _ = advantages(torch.tensor([[1.0, -1.0]]), normalise=True)
    assert normal[0].tolist() == pytest.approx([0.5**0.5, -(0.5**0.5)], abs=1e-5)


def test_decisions_are_drawn_as_often_as_they_are_likely() -> None:
    logprobs = torch.tensor([[0.5, 0.2, 0.3]]).log()
    logprobs = torch.cat([logprobs, torch.tensor([[NEVER]])], dim=1)
    drawn = draw(logprobs, 20_000, np.random.default_rng(0))
    shares = torch.bincount(drawn[0], minlength=4) / 20_000
    assert shares.tolist() == pytest.approx([0.5, 0.2, 0.3, 0.0], abs=0.015)
    again = draw(logprobs, 20_000, np.random.default_rng(0))
    assert torch.equal(drawn, again)


def test_what_never_happens_has_no_part_in_loss_or_entropy() -> None:
    known = torch.tensor([[0.5, 0.5]]).log().requires_grad_()
    logprobs = torch.cat([known, torch.tensor([[NEVER]])], dim=1)
    assert float(entropy(logprobs).detach()) == pytest.approx(np.log(2))
    loss = exact_loss(logprobs, torch.tensor([[1.0, 0.0, -1.0]]))
    assert float(loss.detach()) == pytest.approx(-0.5)
    (loss + entropy(logprobs)).sum().backward()
    assert bool(known.grad.isfinite().all())
