"""The two kinds of policy as training sees them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from relisten.errors import InputError
from relisten.question import Question
from relisten.router.head import Head
from relisten.router.lm import LmPolicy, with_malformed
from relisten.router.routes import Route
from relisten.router.training.objective import never_malformed


class HeadLearner:
    """A head over features that are known of every question; see `Learner`.

    Args:
        features: (questions, features), the training set's first.
        count: questions of the training set; the head is standardised by them.
    """

    at_once = 1 << 20

    def __init__(
        self, features: NDArray[np.float32], count: int, routes: Sequence[Route], hidden: int = 0, seed: int = 0
    ) -> None:
        self._features = torch.from_numpy(features)
        self.head = Head(features.shape[1], len(routes), hidden, seed)
        self.head.standardise(self._features[:count])

    def logprobs(self, members: Sequence[int]) -> Tensor:
        return never_malformed(self.head(self._features[list(members)]).log_softmax(-1))

    @property
    def trained(self) -> Mapping[str, nn.Parameter]:
        return dict(self.head.named_parameters())


class LmLearner:
    """A language model that writes names of routes; see `Learner`."""

    at_once = 1  # each question's graph is held on its own

    def __init__(self, policy: LmPolicy, questions: Sequence[Question]) -> None:
        self.policy = policy
        self._questions = questions

    def logprobs(self, members: Sequence[int]) -> Tensor:
        asked = [self._questions[i] for i in members]
        return with_malformed(torch.stack([self.policy.logprobs(one, one.clip()) for one in asked]))

    @property
    def trained(self) -> Mapping[str, nn.Parameter]:
        return self.policy.trained


def check_size(learned: int, reasoner: int, most: float) -> None:
    """Raises InputError for a policy with more than the share `most` of the reasoner's parameters."""
    if learned > most * reasoner:
        raise InputError(
            f"the head has {learned:,} parameters, {100 * learned / reasoner:.2f} % of the reasoner's {reasoner:,}"
            f"; max_share allows {100 * most:g} %. Read fewer layers or parts, lower hidden, or raise max_share"
        )


def candidate_layers(layers: int, most: int = 6) -> list[int]:
    """Layers to try: all, or as many as `most` evenly spread, the last among them."""
    return sorted({math.ceil((number + 1) * layers / min(most, layers)) - 1 for number in range(min(most, layers))})
