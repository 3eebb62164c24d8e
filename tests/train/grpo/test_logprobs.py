"""A trainer scores the very tokens that were sampled, from the very context they were sampled in."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.answers import TOLERANCE, sampled
from support.sounds import noise_clip

from relisten.audio import Clip
from relisten.errors import InputError
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.protocol import Finish, Format
from relisten.question import Question
from relisten.trace import GeneratedSpan, PromptSpan, Trace
from relisten.train.grpo.logprobs import Laid, Scorer, lay_out, scored

LISTENS = (0, 1, 2, 0, 3, 1, 0)
GROUPS = (0, 0, 0, 1, 1, 2, 2)


@pytest.fixture
def answers(family: Qwen2_5Omni) -> tuple[list[Trace], list[Laid]]:
    clips = [noise_clip(seconds, seed) for seed, seconds in enumerate((3.0, 2.0, 3.0))]
    asked = [(Question(f"How many {g}?", ("one", "two"), id=str(g)), clips[g]) for g in GROUPS]
    traces = sampled(family, asked, LISTENS)
    return traces, [lay_out(trace, clip, family) for trace, (_, clip) in zip(traces, asked, strict=True)]


def by_member(scorer: Scorer, laid: list[Laid]) -> list[list[float]]:
    found: dict[int, list[float]] = {}
    for part in scorer.split(laid):
        values = scored(scorer, [part])[0]
        sizes = [one.num_sampled for one in part.laid]
        found |= {i: v.tolist() for i, v in zip(part.members, torch.split(values, sizes), strict=True)}
    return [found[i] for i in range(len(laid))]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("budget", [1, 700, 100_000])
@pytest.mark.parametrize("hears_trained", [True, False])
def test_the_trainer_finds_the_engines_log_probs(
    family: Qwen2_5Omni, answers: tuple[list[Trace], list[Laid]], shared: bool, budget: int, hears_trained: bool
) -> None:
    traces, laid = answers
    scorer = Scorer(family, shared=shared, budget=budget, hears_trained=hears_trained)
    assert all((part.batch is not None) == shared for part in scorer.split(laid))
    for trace, values in zip(traces, by_member(scorer, laid), strict=True):
        assert values == pytest.approx(trace.logprobs, abs=TOLERANCE)


@pytest.mark.parametrize("shared", [True, False])
def test_crops_played_slowly_are_scored_as_they_were_heard(family: Qwen2_5Omni, shared: bool) -> None:
    clip = noise_clip(3.0)
    asked = [(Question("How many?", ("one", "two")), clip)] * 3
    usual, slow = (sampled(family, asked, (1, 2, 1), crop_speed=speed) for speed in (1.0, 0.5))
    for once, twice in zip(usual, slow, strict=True):
        counts = [[span.num_audio_tokens for span in trace.listens] for trace in (once, twice)]
        assert all(abs(b - 2 * a) <= 1 for a, b in zip(*counts, strict=True))
    laid = [lay_out(Trace.from_json(trace.to_json()), clip, family) for trace in slow]
    for trace, values in zip(slow, by_member(Scorer(family, shared=shared), laid), strict=True):
        assert values == pytest.approx(trace.logprobs, abs=TOLERANCE)


def test_a_crop_that_slowness_makes_longer_than_a_chunk_is_scored(family: Qwen2_5Omni) -> None:
    family.audio_tower.n_window = 74  # chunks of 2.96 s
    clip = noise_clip(2.0)
    traces = sampled(family, [(Question("How many?"), clip)] * 3, (1, 0, 1), crop_speed=0.25)
    laid = [lay_out(trace, clip, family) for trace in traces]
    assert [crop.duration for one in laid for crop in one.branch.crops] == pytest.approx([1.6, 3.2])
    scorer = Scorer(family)
    assert [(part.members, part.batch is None) for part in scorer.split(laid)] == [((2,), True), ((0, 1), False)]
    for trace, values in zip(traces, by_member(scorer, laid), strict=True):
        assert values == pytest.approx(trace.logprobs, abs=TOLERANCE)


def test_only_sampled_tokens_are_scored_and_the_end_of_turn_is_one(
    family: Qwen2_5Omni, answers: tuple[list[Trace], list[Laid]]
) -> None:
    for trace, laid in zip(*answers, strict=True):
        ids = laid.prefix + laid.branch.ids
        mask = [0.0] * len(laid.prefix) + list(laid.branch.weights)
        assert ids == trace.token_ids
        assert mask == list(trace.loss_mask)
        assert laid.num_sampled == len(trace.logprobs)
    trace, laid = answers[0][2], answers[1][2]
    last = trace.spans[-1]
    assert isinstance(last, GeneratedSpan)
    ended = replace(last, ids=(*last.ids, family.end_of_turn_id), logprobs=(*last.logprobs, -1.0))
    longer = lay_out(replace(trace, spans=(*trace.spans[:-1], ended)), laid.clip, family)
    assert longer.branch.weights[-1] == 1.0
    assert longer.num_sampled == laid.num_sampled + 1


def test_a_clip_is_encoded_once_for_all_answers_about_it(
    family: Qwen2_5Omni, answers: tuple[list[Trace], list[Laid]], monkeypatch: pytest.MonkeyPatch
) -> None:
    laid = answers[1]
    parts = Scorer(family).split(laid)
    assert [part.members for part in parts] == [(3, 4), (0, 1, 2, 5, 6)]
    assert [len(part.batch.clips.lengths) for part in parts if part.batch] == [1, 2]
    counts: list[int] = []
    encode = family.encode_audio
    monkeypatch.setattr(family, "encode_audio", lambda clips: (counts.append(len(clips)), encode(clips))[1])
    scorer = Scorer(family, shared=False)
    for part in scorer.split(laid):
        scorer(part)
        scorer(part)
    assert counts == [len(set(GROUPS)) + sum(LISTENS)]


def test_both_ways_have_the_same_gradients(family: Qwen2_5Omni, answers: tuple[list[Trace], list[Laid]]) -> None:
    def gradients(shared: bool) -> dict[str, torch.Tensor]:
        family.thinker.zero_grad()
        scorer = Scorer(family, shared=shared, hears_trained=True)
        for part in scorer.split(answers[1]):
            scores = scorer(part)
            (scores.logprobs.sum() + 0.1 * scores.entropies.sum()).backward()  # type: ignore[no-untyped-call]
        return {n: p.grad.clone() for n, p in family.thinker.named_parameters() if p.grad is not None}

    fast, stock = gradients(True), gradients(False)
    assert fast.keys() == stock.keys()
    assert any("audio_tower" in name for name in fast)
    for name, value in stock.items():
        assert (fast[name] - value).norm() <= 1e-3 * value.norm() + 1e-5, name


def test_entropies_are_those_of_the_distributions(
    family: Qwen2_5Omni, answers: tuple[list[Trace], list[Laid]]
) -> None:
    laid = answers[1][1]
    scorer = Scorer(family)
    [part] = scorer.split([laid])
    with torch.no_grad():
        found = scorer(part).entropies
        ids = torch.tensor(laid.prefix + laid.branch.ids)
        embeddings = family.embed(ids).clone()
        sounds = family.encode_audio([laid.clip, *laid.branch.crops])
        embeddings[ids == family.audio_id] = torch.cat(sounds)
        positions = torch.arange(len(ids)).expand(3, 1, -1)
        hidden = family.language_model(inputs_embeds=embeddings[None], position_ids=positions).last_hidden_state
        weights = torch.tensor([0.0] * len(laid.prefix) + list(laid.branch.weights))
        logits = family.lm_head(hidden[0, weights.nonzero()[:, 0] - 1])
    expected = torch.distributions.Categorical(logits=logits).entropy()
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-4)


def test_many_logits_are_computed_in_pieces(
    family: Qwen2_5Omni, answers: tuple[list[Trace], list[Laid]], monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Scorer(family)
    part = scorer.split(answers[1])[1]
    whole = scorer(part)
    whole.logprobs.sum().backward()  # type: ignore[no-untyped-call]
    gradient = family.lm_head.weight.grad
    assert gradient is not None
    expected = gradient.clone()
    family.thinker.zero_grad()
    monkeypatch.setattr("relisten.train.grpo.logprobs._LOGITS_AT_ONCE", 7 * family.lm_head.out_features)
    pieces = scorer(part)
    pieces.logprobs.sum().backward()  # type: ignore[no-untyped-call]
    assert pieces.logprobs.tolist() == pytest.approx(whole.logprobs.tolist(), abs=1e-5)
    assert family.lm_head.weight.grad is not None
    assert torch.allclose(family.lm_head.weight.grad, expected, atol=1e-4)


def test_a_trace_of_another_model_or_of_a_failure_is_refused(family: Qwen2_5Omni) -> None:
    clip: Clip = noise_clip(2.0)
    failed = Trace("?", (), (), Finish.FAILED, Format.TEXT, id="q", error="no sound")
    with pytest.raises(InputError, match="no sound"):
        lay_out(failed, clip, family)
    other = replace(failed, spans=(PromptSpan((1, family.audio_id, 2), 1), GeneratedSpan((3,), (-1.0,), "a")))
    with pytest.raises(InputError, match="1 audio tokens"):
        lay_out(other, clip, family)
