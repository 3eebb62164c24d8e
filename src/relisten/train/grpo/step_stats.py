"""Numbers of a step of reinforcement learning, and warnings about them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from relisten.protocol import Finish, Format, same_answer
from relisten.train.grpo.config import GrpoConfig
from relisten.train.grpo.rollouts import Rollout
from relisten.train.rewards import distinct_share

_GAP: Final = 1e-4  # largest difference between the native engine and the trainer in float32
_FOREIGN_GAP: Final = 0.1  # mean difference of another engine; bfloat16 makes some hundredths
_WORD: Final = re.compile(r"\w+")


def mean(values: Iterable[float]) -> float:
    """The mean; 0 if there are no values."""
    listed = list(values)
    return math.fsum(listed) / len(listed) if listed else 0.0


def answers_stats(rollouts: Sequence[Rollout], max_listens: int) -> dict[str, float]:
    """Numbers of some answers; those that failed are counted and left out of everything else.

    `listens_none` and `listens_full` are the shares of answers without a listen and with as many as are allowed;
    `overlap` is the share of listened time that was listened to before, over answers that listen.
    """
    good = [rollout for rollout in rollouts if rollout.score is not None]
    traces = [rollout.trace for rollout in good]
    heard = [[segment.duration for segment in trace.segments] for trace in traces]
    names = dict.fromkeys(name for rollout in good if rollout.score for name in rollout.score.parts)
    return {
        "reward": mean(rollout.score.total for rollout in good if rollout.score),
        **{f"reward_{n}": mean(rollout.score.parts[n] for rollout in good if rollout.score) for n in names},
        "right": mean(same_answer(one.trace.answer, str(one.question.answer)) for one in good),
        "answered": mean(trace.finish is Finish.ANSWER for trace in traces),
        "unfinished": mean(trace.finish in (Finish.LENGTH, Finish.CONTEXT) for trace in traces),
        "listens": mean(map(len, heard)),
        "listens_none": mean(not part for part in heard),
        "listens_full": mean(len(part) >= max_listens > 0 for part in heard),
        "segment_seconds": mean(seconds for part in heard for seconds in part),
        "overlap": mean(1 - distinct_share(trace.segments) for trace in traces if trace.segments),
        "tokens": mean(len(trace.logprobs) for trace in traces),
        "words": mean(len(_WORD.findall(trace.text)) for trace in traces),
        "failed": len(rollouts) - len(good),
    }


def validation_stats(rollouts: Sequence[Rollout], max_listens: int) -> dict[str, float]:
    """`answers_stats` of validation answers, with `val_` before each name, and the share of right answers to each
    kind of question (`metadata["kind"]`)."""
    kinds: dict[str, list[bool]] = {}
    for one in rollouts:
        if one.score is not None and isinstance(kind := one.question.metadata.get("kind"), str):
            kinds.setdefault(kind, []).append(same_answer(one.trace.answer, str(one.question.answer)))
    found = {f"val_{name}": value for name, value in answers_stats(rollouts, max_listens).items()}
    return found | {f"val_right_{kind}": mean(right) for kind, right in sorted(kinds.items())}


def warnings(values: Mapping[str, float], config: GrpoConfig, exact: bool) -> list[str]:
    """What is worrying in a step's numbers, in words.

    Args:
        exact: whether the engine computes as the trainer does, so that their log-probs must agree.
    """
    found = []
    if config.format is Format.INTERLEAVED and config.max_listens:
        if values["listens_none"] > 0.9:
            found.append("hardly any answer listens again; start from a model that does, or reward it more")
        if values["listens_full"] > 0.5 and config.max_listens > 1:
            found.append("most answers listen as often as they may; reward listening less, or lower max_listens")
    if values["unfinished"] > 0.5:
        found.append("most answers are cut off; raise max_tokens, or lower the learning rate")
    if values["groups"] and values["groups_even"] / values["groups"] > 0.8:
        found.append(
            "in most groups all answers earn the same, which teaches nothing; give harder or easier questions"
        )
    if values["failed"]:
        found.append("some answers failed; rollouts/ says why")
    if exact and values["gap_max"] > _GAP:
        found.append(f"engine and trainer differ by more than {_GAP:g} in log-probs; set old to trainer")
    if not exact and values.get("gap_mean", 0.0) > _FOREIGN_GAP:
        found.append(
            f"engine and trainer differ by more than {_FOREIGN_GAP:g} in log-probs on average; make sure that the "
            "engine has the weights in training, in a like precision"
        )
    if values.get("clip_share", 0.0) > 0.3:
        found.append("a large share of tokens is clipped; lower the learning rate, or make fewer updates a step")
    return found
