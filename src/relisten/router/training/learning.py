"""One policy in training: its steps, what is measured of them, its validation, its state."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from relisten.errors import DivergedError
from relisten.router.training.config import RouterConfig
from relisten.router.training.objective import advantages, draw, entropy, exact_loss, sampled_loss
from relisten.train.optimizer import adamw
from relisten.train.planning import members_of_step

_COLLAPSED: Final = 0.02
_OFTEN: Final = 0.5
_EVEN: Final = 0.97


class Learner(Protocol):
    """A policy as training sees it: log-probs of decisions, by the number of the question."""

    at_once: int
    """Questions that go through it together."""

    def logprobs(self, members: Sequence[int]) -> Tensor:
        """(members, routes + 1) float32, with gradient; the last is that of a decision which names no route."""

    @property
    def trained(self) -> Mapping[str, nn.Parameter]: ...


class Learning:
    """
    Args:
        rewards: (questions, routes + 1), those of the training set first, then those of validation.
        count: questions of the training set.

    Attributes:
        best: expected reward in the best validation so far, None before the first.
    """

    def __init__(self, learner: Learner, rewards: NDArray[np.float32], count: int, config: RouterConfig) -> None:
        self.learner = learner
        self.config = config
        self._rewards = torch.from_numpy(rewards)
        self._count = count
        self.best: float | None = None
        self._best_weights: dict[str, Tensor] = {}
        self._optimizer = adamw(learner.trained.values(), config.lr, config.weight_decay)

    @property
    def steps(self) -> int:
        """All of a run; an lm learns names first."""
        return self.config.steps + self._names

    @property
    def _names(self) -> int:
        return self.config.names_steps if self.config.policy == "lm" else 0

    def step(self, step: int) -> dict[str, float]:
        """Make step 0 .. `steps` - 1 and tell its numbers.

        Raises:
            DivergedError: the loss or the gradient is no number; no weight was changed by it.
        """
        config = self.config
        names = step < self._names
        lr = config.lr * min(1.0, (step + 1) / max(1, config.warmup)) if names else config.lr_at(step - self._names)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        members = [int(i) for i in members_of_step(self._count, config.batch_size, config.seed, step)]
        rng = np.random.default_rng([config.seed, step])
        self._optimizer.zero_grad(set_to_none=True)
        seen: list[Tensor] = []
        loss = even = earned = 0.0
        for first in range(0, len(members), self.learner.at_once):
            some = members[first : first + self.learner.at_once]
            logprobs = self.learner.logprobs(some)
            rewards = self._rewards[some]
            if names:
                each = -logprobs[:, :-1].mean(1)
            elif config.estimator == "exact":
                each = exact_loss(logprobs, rewards)
            else:
                choices = draw(logprobs, config.group_size, rng)
                found = rewards.gather(1, choices)
                weights, lost = advantages(found, config.normalise)
                each = sampled_loss(logprobs, choices, weights)
                even += lost
                earned += float(found.mean(1).sum())
            if config.entropy and not names:
                each = each - config.entropy * entropy(logprobs)
            part = each.sum() / len(members)
            part.backward()  # type: ignore[no-untyped-call]
            loss += float(part.detach())
            seen.append(logprobs.detach())
        norm = float(nn.utils.clip_grad_norm_(self.learner.trained.values(), config.clip_norm or math.inf))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise DivergedError(f"step {step + 1}: the loss is {loss:g}, the gradient {norm:g}; lower lr")
        self._optimizer.step()
        values = {"loss": loss, "gradient": norm, "lr": lr, **self._told(torch.cat(seen), self._rewards[members])}
        if config.estimator == "sampled" and not names:
            values |= {"earned": earned / len(members), "groups_even": even / len(members)}
        return values

    def validate(self) -> dict[str, float]:
        """Numbers over the validation set; keeps the weights where no others did better."""
        members = range(self._count, len(self._rewards))
        logprobs, rewards = self.logprobs(members), self._rewards[self._count :]
        found = {f"val_{name}": value for name, value in self._told(logprobs, rewards).items()}
        found["val_gained"] = float(rewards[torch.arange(len(rewards)), logprobs.argmax(1)].mean())
        if self.best is None or found["val_reward"] > self.best:
            self.best = found["val_reward"]
            self._best_weights = {name: p.detach().clone() for name, p in self.learner.trained.items()}
        return found

    def logprobs(self, members: Sequence[int]) -> Tensor:
        """Without gradient, (members, routes + 1)."""
        at_once = self.learner.at_once
        with torch.no_grad():
            parts = [
                self.learner.logprobs(members[first : first + at_once]) for first in range(0, len(members), at_once)
            ]
        return torch.cat(parts)

    def take_best(self) -> None:
        """Put the weights of the best validation into the learner."""
        with torch.no_grad():
            for name, parameter in self.learner.trained.items():
                parameter.copy_(self._best_weights[name])

    def state(self) -> dict[str, Any]:
        """What training goes on from."""
        weights = {name: parameter.detach().clone() for name, parameter in self.learner.trained.items()}
        optimizer = copy.deepcopy(self._optimizer.state_dict())
        return {"weights": weights, "optimizer": optimizer, "best": self.best, "best_weights": self._best_weights}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        with torch.no_grad():
            for name, parameter in self.learner.trained.items():
                parameter.copy_(state["weights"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        self.best, self._best_weights = state["best"], dict(state["best_weights"])

    def _told(self, logprobs: Tensor, rewards: Tensor) -> dict[str, float]:
        """`reward` is what is expected of a sampled decision; `entropy` is 1 where all routes are equally likely;
        `one_route` is the share of questions whose likeliest decision is the commonest of these."""
        chances = logprobs.exp()
        commonest = torch.bincount(logprobs.argmax(1), minlength=logprobs.shape[1]).max()
        return {
            "reward": float((chances * rewards).sum(1).mean()),
            "entropy": float(entropy(logprobs).mean()) / math.log(max(2, logprobs.shape[1] - 1)),
            "one_route": float(commonest) / len(logprobs),
            "malformed": float(chances[:, -1].mean()),
        }


def warnings(values: Mapping[str, float]) -> list[str]:
    """What in a step's numbers should worry, in words."""
    found = []
    if values["one_route"] == 1 and values["entropy"] < _COLLAPSED:
        found.append(
            "the policy has settled on one route for every question; if that is not the best there is, raise "
            "entropy or lower lr"
        )
    if values["malformed"] > _OFTEN:
        found.append("most decisions name no route; raise names_steps")
    if values.get("groups_even", 0.0) > _EVEN:
        found.append("in nearly all groups every decision earns the same, which teaches nothing; raise entropy")
    return found
