"""From rollouts with advantages to updates of the policy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from relisten.errors import RelistenError
from relisten.protocol import Finish
from relisten.train.grpo.config import GrpoConfig
from relisten.train.grpo.logprobs import Part, lay_out, nothing_learned, scored
from relisten.train.grpo.policy import Policy
from relisten.train.grpo.policy_loss import (
    Objective,
    Sums,
    Tokens,
    group_advantages,
    importance_weights,
    policy_loss,
    token_weights,
)
from relisten.train.grpo.rollouts import Rollout
from relisten.train.grpo.team import Team
from relisten.train.parallel import whole


class NotFiniteError(RelistenError, ArithmeticError):
    """A loss or a gradient is no number; nothing was changed by it.

    Args:
        spoilt: an earlier update has left weights that give no numbers.
    """

    def __init__(self, message: str, spoilt: bool) -> None:
        super().__init__(message)
        self.spoilt = spoilt


@dataclass(frozen=True, eq=False)
class Pass:
    """Answers that go through the model together, and what is known of their tokens."""

    part: Part
    tokens: Tokens
    sampled: Tensor
    """Log-probs that the engine recorded."""


class Gaps:
    """How far engine and trainer differ in log-probs of the same tokens.

    Where the engine's are used as if they were the trainer's, only the first update of a step is compared: after it
    the weights are no longer those that sampled the answers. Otherwise every token is compared.
    """

    def __init__(self) -> None:
        self._total = 0.0
        self._count = 0
        self.most = 0.0

    def over(self, team: Team) -> dict[str, float]:
        """Mean and maximum over all processes."""
        total, count = team.sum([self._total, self._count])
        return {"gap_mean": total / max(1.0, count), "gap_max": team.most(self.most)}

    def add(self, trainer: Tensor, engine: Tensor) -> None:
        if not len(engine):
            return
        gaps = (trainer.detach() - engine).abs()
        self._total += float(gaps.sum())
        self._count += len(gaps)
        self.most = max(self.most, float(gaps.max()))


def with_advantages(group: Sequence[Rollout], normalise: bool) -> list[Rollout]:
    """The group with advantages for answers that did not fail; without any if it teaches nothing."""
    found = group_advantages([one.score.total for one in group if one.score is not None], normalise)
    if found is None:
        return list(group)
    advantages = iter(found)
    return [one if one.score is None else replace(one, advantage=next(advantages)) for one in group]


class Updates:
    """Makes the updates of one step after another.

    Args:
        exact: use the engine's log-probs as the trainer's own; else compute them anew, and weigh tokens by how much
            the engine's differ.
        team: the processes that make the same updates, each with gradients of the answers whose sound it has.
    """

    def __init__(self, policy: Policy, config: GrpoConfig, exact: bool, team: Team | None = None) -> None:
        self._policy = policy
        self._team = team or Team()
        self._config = config
        self._exact = exact
        self._objective = Objective(config.clip_low, config.clip_high, config.kl, config.entropy)

    def prepare(self, groups: Sequence[Sequence[Rollout]], gaps: Gaps) -> list[Pass] | None:
        """One update's answers, laid out and divided into passes, with all that stays fixed while updates are made.

        Answers without loss (`GrpoConfig.unfinished`), and those whose sound another process has, still count where
        tokens are averaged.

        Returns:
            This process's passes, as many as every other's if the policy is divided; None if no process has
            anything to learn.
        """
        config = self._config
        members = [one for group in groups for one in group if one.advantage is not None]
        lengths = [len(one.trace.logprobs) if self._has_loss(one) else 0 for one in members]
        weights = token_weights(lengths, config.averaging, config.max_tokens)
        if not any(lengths):
            return None
        chosen, laid = [], []
        for i, one in enumerate(members):
            if lengths[i] and one.clip is not None:
                chosen.append(i)
                laid.append(lay_out(one.trace, one.clip, self._policy.family))
        parts = self._policy.scorer.split(laid) if laid else []
        if self._policy.divided:  # before any of them is scored, which takes all processes
            [idle] = self._policy.scorer.split([nothing_learned(self._policy.family)])
            idle = replace(idle, members=())
            parts += [idle] * (int(self._team.most(len(parts))) - len(parts))
        passes = []
        for part in parts:
            own = [chosen[i] for i in part.members]
            passes.append(self._pass(part, [members[i] for i in own], [weights[i] for i in own], gaps))
        return passes

    def make(self, updates: Sequence[Sequence[Pass]], gaps: Gaps) -> dict[str, float]:
        """Make each update once an inner epoch; returns means over updates and over tokens.

        Raises:
            NotFiniteError: the weights are those from before the update that came to no number.
        """
        losses: list[float] = []
        norms: list[float] = []
        sums = Sums()
        parameters = list(self._policy.trained.values())
        for _ in range(self._config.inner_epochs):
            for update in updates:
                # Only before the first one are the weights those that sampled the answers.
                loss, found = self._accumulate(update, gaps if self._exact and not losses else None)
                norm = float(whole(nn.utils.clip_grad_norm_(parameters, self._config.clip_norm or math.inf)))
                if not math.isfinite(loss) or not math.isfinite(norm):
                    raise NotFiniteError(f"loss {loss}, length of the gradient {norm}", self._spoilt(update))
                self._policy.optimizer.step()
                losses.append(loss)
                norms.append(norm)
                sums = sums.plus(found)
        count, tokens = max(1, len(losses)), max(1.0, sums.tokens)
        return {
            "updates": len(losses),
            "loss": math.fsum(losses) / count,
            "grad_norm": math.fsum(norms) / count,
            "clip_share": sums.clipped / tokens,
            "kl": sums.kl / tokens,
            "drift": sums.drift / tokens,
            "entropy": sums.entropy / tokens,
        }

    def _spoilt(self, update: Sequence[Pass]) -> bool:
        found = scored(self._policy.scorer, [one.part for one in update])
        return self._team.most(float(any(not logprobs.isfinite().all() for logprobs in found))) > 0

    def _has_loss(self, rollout: Rollout) -> bool:
        cut_off = rollout.trace.finish in (Finish.LENGTH, Finish.CONTEXT)
        return self._config.unfinished == "train" or not cut_off

    def _pass(self, part: Part, own: Sequence[Rollout], weights: Sequence[float], gaps: Gaps) -> Pass:
        """What is known of the tokens of `own`, the answers of `part`; `weights` are those of their tokens."""
        sampled = self._tensor(value for one in own for value in one.trace.logprobs)
        old, importance = sampled, None
        if not self._exact:
            [old] = scored(self._policy.scorer, [part])
            gaps.add(old, sampled)
            importance = importance_weights(old, sampled, self._config.importance_cap)
        each = [
            (one.advantage or 0.0, weight, len(one.trace.logprobs))
            for one, weight in zip(own, weights, strict=True)
        ]
        advantages = self._tensor(advantage for advantage, _, length in each for _ in range(length))
        spread = self._tensor(weight for _, weight, length in each for _ in range(length))
        reference = self._policy.reference_logprobs(part)
        return Pass(part, Tokens(old, advantages, spread, reference, importance), sampled)

    def _accumulate(self, update: Sequence[Pass], gaps: Gaps | None) -> tuple[float, Sums]:
        """Compute the gradients of one update; returns its loss, and sums over its tokens."""
        policy = self._policy
        policy.optimizer.zero_grad(set_to_none=True)
        total, sums = 0.0, Sums()
        # Activations are computed again in training mode only; there is no dropout that it could turn on.
        policy.family.thinker.train(self._config.gradient_checkpointing)
        for one in update:
            scores = policy.scorer(one.part)
            if gaps is not None:
                gaps.add(scores.logprobs, one.sampled)
            loss, found = policy_loss(scores.logprobs, scores.entropies, one.tokens, self._objective)
            # Gradients of a divided policy are averaged over the processes, but must be summed.
            (loss * (self._team.count if policy.divided else 1)).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
            sums = sums.plus(found)
        policy.family.thinker.eval()
        if not policy.divided:
            self._team.sum_gradients(policy.trained.values())
        total, *each = self._team.sum([total, *sums])
        return total, Sums(*each)

    def _tensor(self, values: Iterable[float]) -> Tensor:
        return torch.tensor(list(values), dtype=torch.float32, device=self._policy.family.device)
