"""What an update learns from: which answers, which tokens, at which weight."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.answers import sampled
from support.sounds import noise_clip

from relisten import models
from relisten.protocol import Finish
from relisten.question import Question
from relisten.trace import GeneratedSpan
from relisten.train.grpo.config import Averaging, GrpoConfig
from relisten.train.grpo.policy import Policy
from relisten.train.grpo.rollouts import Rollout
from relisten.train.grpo.team import Team
from relisten.train.grpo.updates import Gaps, Updates, with_advantages
from relisten.train.rewards import Score

REWARDS = (0.0, 1.0, None, 2.0)
FINISHES = (Finish.ANSWER, Finish.LENGTH, Finish.FAILED, Finish.NO_ANSWER)


@pytest.fixture
def config(tiny_folder: Path) -> GrpoConfig:
    return GrpoConfig(str(tiny_folder), "questions.jsonl", train_audio=False, device="cpu", max_tokens=50)


def group(policy: Policy) -> list[Rollout]:
    """Answers with 5, 6 + 7, 7 and 8 sampled tokens, the third of which failed."""
    clip = noise_clip(2.0)
    question = Question("How many?", answer="1")
    traces = sampled(policy.family, [(question, clip)] * 4, [0, 1, 0, 0])
    return [
        Rollout(question, clip, replace(trace, finish=finish), None if reward is None else Score(reward, {}))
        for trace, finish, reward in zip(traces, FINISHES, REWARDS, strict=True)
    ]


def test_failed_answers_have_no_part_in_their_group(config: GrpoConfig) -> None:
    found = with_advantages(group(Policy(config)), normalise=True)
    assert [one.advantage for one in found] == [
        pytest.approx(-1.0, abs=1e-5),
        pytest.approx(0.0),
        None,
        pytest.approx(1.0, abs=1e-5),
    ]
    even = [replace(one, score=Score(1.0, {})) for one in found[:2]]
    assert all(one.advantage is None for one in with_advantages([replace(e, advantage=None) for e in even], True))


@pytest.mark.parametrize(
    ("averaging", "unfinished", "expected"),
    [
        (Averaging.TOKEN, "train", [1 / 26] * 3),
        (Averaging.SEQUENCE, "train", [1 / 15, 1 / 39, 1 / 24]),
        (Averaging.CONSTANT, "train", [1 / 150] * 3),
        (Averaging.TOKEN, "mask", [1 / 13, 0, 1 / 13]),
        (Averaging.SEQUENCE, "mask", [1 / 15, 0, 1 / 24]),
        (Averaging.CONSTANT, "mask", [1 / 150, 0, 1 / 150]),
    ],
)
def test_tokens_weigh_as_they_should(
    config: GrpoConfig, averaging: Averaging, unfinished: str, expected: list[float]
) -> None:
    config = replace(config, averaging=averaging, unfinished=unfinished)  # type: ignore[arg-type]
    policy = Policy(config)
    members = with_advantages(group(policy), normalise=False)
    gaps = Gaps()
    [one] = Updates(policy, config, exact=True).prepare([members], gaps)
    learned = [(w, m) for w, m in zip(expected, (members[0], members[1], members[3]), strict=True) if w]
    lengths = [len(member.trace.logprobs) for _, member in learned]
    assert one.tokens.weights.tolist() == pytest.approx(
        [w for (w, _), length in zip(learned, lengths, strict=True) for _ in range(length)]
    )
    assert one.tokens.advantages.tolist() == [
        m.advantage for (_, m), length in zip(learned, lengths, strict=True) for _ in range(length)
    ]
    assert one.tokens.old.tolist() == pytest.approx([value for _, m in learned for value in m.trace.logprobs])
    assert one.tokens.importance is None
    assert one.tokens.reference is not None
    assert one.tokens.reference.tolist() == pytest.approx(one.tokens.old.tolist(), abs=1e-4)


def test_engine_log_probs_that_differ_become_importance_weights(config: GrpoConfig) -> None:
    policy = Policy(config)
    members = with_advantages(group(policy), normalise=False)
    other = []
    for one in members:
        spans = one.trace.spans
        last = spans[-1]
        assert isinstance(last, GeneratedSpan)
        shifted = replace(last, logprobs=tuple(value - 0.1 for value in last.logprobs))
        other.append(replace(one, trace=replace(one.trace, spans=(*spans[:-1], shifted))))
    gaps = Gaps()
    [made] = Updates(policy, replace(config, importance_cap=1.05), exact=False).prepare([other], gaps)
    assert gaps.most == pytest.approx(0.1, abs=1e-4)
    assert 0.0 < gaps.over(Team())["gap_mean"] < 0.1  # the answer that listens differs behind its listen alone
    assert made.tokens.importance is not None
    assert made.tokens.importance.max().item() == pytest.approx(1.05)
    assert made.tokens.importance.min().item() == pytest.approx(1.0, abs=1e-4)


class Two(Team):
    """One of two processes, with all of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 2

    def shard(self, *_: object) -> None:
        pass


def test_what_answers_for_a_divided_policy_is_rounded_in_its_weights_alone(config: GrpoConfig) -> None:
    policy = Policy(replace(config, divided=True, precision="bf16"), Two())
    same = models.load(config.model, "bfloat16").thinker
    found = policy.answering.thinker
    assert all(torch.equal(p, same.get_parameter(name)) for name, p in found.named_parameters())
    # Of positions, among others: half precision turns them by other angles.
    assert all(torch.equal(buffer, same.get_buffer(name)) for name, buffer in found.named_buffers())


def test_adapters_are_trained_beside_weights_as_they_are_stored(config: GrpoConfig, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="adapters need peft")
    models.load(config.model).save(tmp_path / "half", whole=True, dtype=torch.bfloat16)
    config = replace(config, model=str(tmp_path / "half"), lora_rank=2, precision="bf16", lr=1e-2)
    policy = Policy(config)
    kinds = {name: p.dtype for name, p in policy.family.thinker.named_parameters()}
    assert {kind for name, kind in kinds.items() if name in policy.trained} == {torch.float32}
    assert {kind for name, kind in kinds.items() if name not in policy.trained} == {torch.bfloat16}
    gaps, updates = Gaps(), Updates(policy, config, exact=False)
    passes = updates.prepare([with_advantages(group(policy), normalise=True)], gaps)
    assert passes is not None
    assert 0 < gaps.most < 0.3
    told = [updates.make([passes], gaps) for _ in range(2)]
    assert told[0]["kl"] == 0 < told[1]["kl"]  # the reference is what it was without adapters


def test_the_reference_stays_where_the_policy_began(config: GrpoConfig) -> None:
    policy = Policy(replace(config, lr=1e-2))
    updates = Updates(policy, config, exact=True)
    members = with_advantages(group(policy), normalise=True)
    [before] = updates.prepare([members], Gaps())
    made = updates.make([[before]], Gaps())
    assert made["updates"] == 1
    [after] = updates.prepare([members], Gaps())
    assert before.tokens.reference is not None
    assert after.tokens.reference is not None
    assert torch.equal(before.tokens.reference, after.tokens.reference)
    moved = Updates(policy, config, exact=False).prepare([members], gaps := Gaps())
    assert gaps.most > 1e-3
    assert moved[0].tokens.reference is not None
