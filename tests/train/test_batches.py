"""What is laid out for training is what inference produces."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from relisten.audio import SAMPLE_RATE, Clip
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.protocol import Format, Segment, split_at_listens
from relisten.question import Question
from relisten.train import forward
from relisten.train.batches import Batcher, Target

RESPONSE = (
    "<think>I count in <seg>0.5, 2.0</seg> i hear snare 1, then <seg>3.0, 3.1</seg> and in <seg>2.0, 9.0</seg> "
    "with snare 2, so that makes 2.</think><answer>2 <seg>1.0, 2.0</seg></answer>"
)
QUESTION = Question("How many snares?", ("1", "2"))


@pytest.fixture
def clip() -> Clip:
    samples = np.random.default_rng(0).normal(0, 0.1, 4 * SAMPLE_RATE).astype(np.float32)
    return Clip(samples, "noise")


def test_only_what_the_model_samples_is_learned(family: Qwen2_5Omni, clip: Clip) -> None:
    branch = Batcher(family).branch(clip, Target(QUESTION, RESPONSE), Format.INTERLEAVED)
    learned = [i for i, w in zip(branch.ids, branch.weights, strict=True) if w]
    parts = split_at_listens(RESPONSE, clip.duration)
    sampled = [i for part in parts if isinstance(part, str) for i in family.encode_response(part)]
    assert learned == [*sampled, family.end_of_turn_id]
    assert family.audio_id not in learned


def test_crops_stand_where_inference_listens(family: Qwen2_5Omni, clip: Clip) -> None:
    branch = Batcher(family).branch(clip, Target(QUESTION, RESPONSE), Format.INTERLEAVED)
    segments = [part for part in split_at_listens(RESPONSE, clip.duration) if isinstance(part, Segment)]
    assert [crop.num_samples for crop in branch.crops] == [clip.crop(s.start, s.end).num_samples for s in segments]
    end_tag = family.encode_response("</seg>")[-1]
    for start, crop in zip(branch.crop_starts, branch.crops, strict=True):
        inserted = family.audio_ids(family.num_audio_tokens(crop.num_samples))
        assert list(branch.ids[start - 1 : start - 1 + len(inserted)]) == inserted
        assert branch.ids[start - 2] == end_tag


@pytest.mark.parametrize("format", [Format.GROUNDED, Format.TEXT])
def test_nothing_is_inserted_in_the_other_formats(family: Qwen2_5Omni, clip: Clip, format: Format) -> None:
    branch = Batcher(family).branch(clip, Target(QUESTION, RESPONSE), format)
    assert not branch.crops
    assert family.audio_id not in branch.ids


def test_answers_weigh_more_and_given_tags_nothing(family: Qwen2_5Omni, clip: Clip) -> None:
    target = Target(QUESTION, RESPONSE, chooses=False, ends=False)
    branch = Batcher(family, answer_weight=4.0).branch(clip, target, Format.INTERLEAVED)
    tag = family.encode_response("<seg>")[0]
    weights = [w for i, w in zip(branch.ids, branch.weights, strict=True) if i == tag]
    assert weights == [0.0] * 4
    two = family.encode_text("2")[0]
    assert (two, 4.0) in zip(branch.ids, branch.weights, strict=True)
    assert branch.ids[-1] != family.end_of_turn_id


def test_tags_of_several_tokens_weigh_as_tags_of_one(
    family: Qwen2_5Omni, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Qwen's own tokenizer has no tokens for tags."""
    target = Target(QUESTION, RESPONSE, chooses=False, ends=False)
    learned = []
    for tags in ("one token", "several"):
        branch = Batcher(family, answer_weight=4.0).branch(clip, target, Format.INTERLEAVED)
        decoder = family.decoder()
        pieces = [(decoder.push(i), w) for i, w in zip(branch.ids, branch.weights, strict=True)]
        learned.append({weight: "".join(piece for piece, w in pieces if w == weight) for weight in (1.0, 4.0)})
        if tags == "one token":
            count = len(branch.ids)
            monkeypatch.setattr(
                family.text, "encode_response", lambda text: [i for c in text for i in family.encode_text(c)]
            )
    assert len(branch.ids) > count
    assert learned[0] == learned[1]
    assert learned[0][4.0] == "2 "
    assert "I count in  i hear" in learned[0][1.0]


def test_the_prompt_is_the_engines(family: Qwen2_5Omni, clip: Clip) -> None:
    batch = Batcher(family).batch([clip], [[Target(QUESTION, "<think>x")]], Format.TEXT)
    expected = family.prompt(QUESTION, clip, Format.TEXT).ids(family)
    laid_out = [*batch.prefix_ids.tolist(), *batch.groups[0].ids[0].tolist()]
    assert laid_out[: len(expected)] == expected


@pytest.mark.parametrize("format", list(Format))
def test_states_equal_the_stock_forward(family: Qwen2_5Omni, clip: Clip, format: Format) -> None:
    other = Clip(clip.samples[::-1].copy(), "reversed")
    clips = [clip, other]
    responses = [RESPONSE, "<think>short <seg>0.0, 0.7</seg> has it</think>", RESPONSE.replace("0.5", "0.2")]
    targets = [[Target(QUESTION, r) for r in responses], [Target(Question("Which?"), responses[1])]]
    batcher = Batcher(family, groups=2)
    batch = batcher.batch(clips, targets, format)
    with torch.no_grad():
        states = forward.hidden_states(family.thinker, batch)
        total, weight = forward.loss(family.thinker, batch)
    expected_loss, checked = 0.0, 0
    for sound, asked in zip(clips, targets, strict=True):
        for target in asked:
            branch = batcher.branch(sound, target, format)
            states_here, loss_here = _stock(family, sound, branch, batch.prefix_ids)
            expected_loss += loss_here
            checked += _find(states, batch, branch.ids, states_here)
    assert checked == 4
    assert float(total) == pytest.approx(expected_loss, rel=1e-4)
    assert float(weight) == pytest.approx(float(batch.weights.sum()))


def test_padding_of_another_group_changes_nothing(family: Qwen2_5Omni, clip: Clip) -> None:
    targets = [[Target(QUESTION, RESPONSE), Target(QUESTION, "<think>a")]]
    with torch.no_grad():
        losses = [
            forward.loss(family.thinker, Batcher(family, groups=groups).batch([clip], targets, Format.TEXT))[0]
            for groups in (1, 2)
        ]
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-5)


def _stock(family: Qwen2_5Omni, clip: Clip, branch, prefix_ids) -> tuple[torch.Tensor, float]:  # type: ignore[no-untyped-def]
    """The branch's states and loss by transformers' own modules, one sequence at a time."""
    ids = torch.tensor([*prefix_ids.tolist(), *branch.ids])
    weights = torch.tensor([0.0] * len(prefix_ids) + list(branch.weights))
    with torch.no_grad():
        embeddings = family.embed(ids)
        embeddings[ids == family.audio_id] = torch.cat(family.encode_audio([clip, *branch.crops]))
        positions = torch.arange(len(ids)).expand(3, 1, -1)
        states = family.language_model(inputs_embeds=embeddings[None], position_ids=positions)
        states = states.last_hidden_state[0]
        logits = family.lm_head(states[:-1])
    each = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
    return states[len(prefix_ids) :], float((each * weights[1:]).sum())


def _find(states: torch.Tensor, batch: forward.Batch, ids: tuple[int, ...], expected: torch.Tensor) -> int:
    """How many branches with these ids have the expected states."""
    found, base = 0, 0
    for group in batch.groups:
        for place in range(len(group.row)):
            here = states[base + place * group.ids.shape[1] :][: len(ids)]
            if group.ids[place, : len(ids)].tolist() == list(ids):
                found += bool((here - expected).abs().max() < 1e-4)
        base += group.ids.numel()
    return found


def test_given_parts_have_no_loss_and_the_ids_stay(family: Qwen2_5Omni, clip: Clip) -> None:
    first = RESPONSE.index(" snare 1")
    target = Target(QUESTION, RESPONSE, given=((first, first + len(" snare")),))
    batcher = Batcher(family)
    branch = batcher.branch(clip, target, Format.GROUNDED)
    plain = batcher.branch(clip, Target(QUESTION, RESPONSE), Format.GROUNDED)
    assert branch.ids == plain.ids
    silent = [i for i, a, b in zip(branch.ids, branch.weights, plain.weights, strict=True) if a != b]
    assert silent == family.encode_response(" snare")


def test_what_is_heard_may_weigh_more(family: Qwen2_5Omni, clip: Clip) -> None:
    branch = Batcher(family, heard_weight=3.0).branch(clip, Target(QUESTION, RESPONSE), Format.INTERLEAVED)
    first = branch.crop_starts[0]
    assert 3.0 not in branch.weights[:first]
    assert 3.0 in branch.weights[first:]
