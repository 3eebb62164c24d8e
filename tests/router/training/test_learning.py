"""Learning on outcomes that are made up: a rule that can be seen in the features is found, guards speak up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from relisten.errors import DivergedError, InputError
from relisten.router.routes import DIRECT, Route
from relisten.router.training.calibration import fit_temperature, fit_threshold
from relisten.router.training.config import RouterConfig
from relisten.router.training.learners import HeadLearner, candidate_layers, check_size
from relisten.router.training.learning import Learning, warnings
from relisten.router.training.objective import relative_rewards

ROUTES = (DIRECT, Route(("pitch",)), Route(("loudness",)))
CONFIG = RouterConfig(steps=120, batch_size=32, lr=0.05)


def made_up(count: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Features, rewards and the best route of questions of three kinds: pitch helps with the second, loudness with
    the third; each harms elsewhere, and nothing is certain."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 3, count)
    features = rng.normal(0, 1, (count, 6)).astype(np.float32)
    features[np.arange(count), kinds] += 3
    features[:, 5] = 40.0  # always the same
    chances = np.full((count, 3), 0.2)
    chances[:, 0] = np.where(kinds == 0, 0.9, 0.4)
    chances[kinds == 1, 1] = 0.95
    chances[kinds == 2, 2] = 0.95
    return features, relative_rewards(rng.random((count, 3)) < chances, ROUTES), kinds


def learned(config: RouterConfig) -> tuple[Learning, HeadLearner, NDArray[np.int64]]:
    features, rewards, kinds = made_up(600)
    learner = HeadLearner(features, 400, ROUTES)
    learning = Learning(learner, rewards, 400, config)
    for step in range(learning.steps):
        learning.step(step)
        if step % 10 == 9:
            learning.validate()
    learning.take_best()
    return learning, learner, kinds


@pytest.mark.parametrize("estimator", ["sampled", "exact"])
@pytest.mark.parametrize("normalise", [False, True])
def test_a_rule_that_can_be_seen_is_found(estimator: str, normalise: bool) -> None:
    learning, learner, kinds = learned(replace(CONFIG, estimator=estimator, normalise=normalise))
    chosen = learner.logprobs(range(400, 600)).argmax(1).numpy()
    assert (chosen == kinds[400:]).mean() > 0.9
    found = learning.validate()
    assert found["val_reward"] > 0.25
    assert found["val_gained"] > 0.25
    assert found["val_malformed"] == 0


def test_costs_keep_it_from_tools_that_help_little() -> None:
    features, _, _ = made_up(600)
    costly = relative_rewards(np.tile([[True, True, True]], (600, 1)), ROUTES, cost=0.1)
    learner = HeadLearner(features, 400, ROUTES)
    learning = Learning(learner, costly, 400, replace(CONFIG, entropy=0.0, estimator="exact"))
    for step in range(learning.steps):
        learning.step(step)
    assert set(learner.logprobs(range(400, 600)).argmax(1).tolist()) == {0}


def test_the_same_steps_go_on_from_a_state() -> None:
    features, rewards, _ = made_up(200)

    def fresh() -> Learning:
        return Learning(HeadLearner(features, 150, ROUTES, hidden=4, seed=3), rewards, 150, CONFIG)

    whole = fresh()
    values = [whole.step(step) | whole.validate() for step in range(12)]
    first = fresh()
    for step in range(5):
        first.step(step)
        first.validate()
    second = fresh()
    second.restore(first.state())
    assert [second.step(step) | second.validate() for step in range(5, 12)] == values[5:]
    assert second.best == whole.best


def test_the_best_validation_is_what_is_kept() -> None:
    features, rewards, _ = made_up(300)
    learner = HeadLearner(features, 200, ROUTES)
    learning = Learning(learner, rewards, 200, CONFIG)
    learning.validate()
    start = {name: p.detach().clone() for name, p in learner.trained.items()}
    with torch.no_grad():
        learner.head.outer.bias += torch.tensor([-50.0, 50.0, 0.0])  # pitch always: worse
    learning.validate()
    learning.take_best()
    assert all(torch.equal(p, start[name]) for name, p in learner.trained.items())


def test_a_loss_that_is_no_number_stops_before_any_weight_changes() -> None:
    features, rewards, _ = made_up(100)
    features[3, 2] = np.inf
    learner = HeadLearner(features, 80, ROUTES)
    learning = Learning(learner, rewards, 80, replace(CONFIG, batch_size=80))
    with pytest.raises(DivergedError, match="lower lr"):
        learning.step(0)
    assert not learner.head.outer.weight.any()


def test_guards_speak_up() -> None:
    fine = {"one_route": 0.6, "entropy": 0.5, "malformed": 0.0, "groups_even": 0.7}
    assert warnings(fine) == []
    [collapsed] = warnings({**fine, "one_route": 1.0, "entropy": 0.01})
    assert "one route for every question" in collapsed
    [malformed] = warnings({**fine, "malformed": 0.9})
    assert "name no route" in malformed
    [even] = warnings({**fine, "groups_even": 0.99})
    assert "teaches nothing" in even


def test_without_entropy_a_policy_collapses_and_it_is_told() -> None:
    features, _, _ = made_up(64)
    always = relative_rewards(np.tile([[False, True, False]], (64, 1)), ROUTES)
    learning = Learning(HeadLearner(features, 48, ROUTES), always, 48, replace(CONFIG, entropy=0.0, lr=0.5))
    told = [note for step in range(40) for note in warnings(learning.step(step))]
    assert any("one route for every question" in note for note in told)


def test_temperature_makes_probabilities_honest() -> None:
    rng = np.random.default_rng(0)
    right = torch.from_numpy(rng.random(4000) < 0.7)
    rewards = torch.stack([right.float(), 1 - right.float(), -torch.ones(4000)], dim=1)
    bold = torch.tensor([[4.0, 0.0, -1e4]]).log_softmax(-1).expand(4000, -1)  # says 0.98, is right 7 times in 10
    temperature = fit_temperature(bold, rewards)
    assert float((bold / temperature).softmax(-1)[0, 0]) == pytest.approx(0.7, abs=0.02)
    honest = torch.tensor([[0.7, 0.3]]).log()
    honest = torch.cat([honest, torch.tensor([[-1e4]])], dim=1).expand(4000, -1)
    assert fit_temperature(honest, rewards) == 1.0
    assert fit_temperature(bold, torch.zeros(4000, 3)) == 1.0  # all routes alike: nothing to learn from


def test_a_threshold_keeps_the_decisions_that_pay() -> None:
    sure = torch.tensor([[0.1, 0.9], [0.2, 0.8], [0.4, 0.6], [0.45, 0.55], [0.7, 0.3]])
    helps = torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0])
    rewards = torch.stack([torch.zeros(5), helps, -torch.ones(5)], dim=1)
    assert fit_threshold(sure, rewards, direct=0) == pytest.approx(0.7)  # between 0.8 and 0.6; saves 2, error 1.4
    rewards[3, 1] = 0.0
    assert fit_threshold(sure, rewards, direct=0) == 0.0  # saves 1, which may be chance
    rewards[:, 1] = 1.0
    assert fit_threshold(sure, rewards, direct=0) == 0.0
    rewards[:, 1] = -1.0
    assert fit_threshold(sure, rewards, direct=0) == 1.0


def test_sizes_and_layers() -> None:
    check_size(9, 1000, 0.01)
    with pytest.raises(InputError, match=r"11 parameters, 1\.10 % of the reasoner's 1,000; max_share allows 1 %"):
        check_size(11, 1000, 0.01)
    assert candidate_layers(4) == [0, 1, 2, 3]
    assert candidate_layers(28) == [4, 9, 13, 18, 23, 27]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"group_size": 1}, "group_size 1"),
        ({"lr": 0.0}, "lr 0.0"),
        ({"cost": -1.0}, "cost"),
        ({"threshold": 2.0}, "thr"),
    ],
)
def test_settings_out_of_range_are_refused(values: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        RouterConfig(**values)  # type: ignore[arg-type]
