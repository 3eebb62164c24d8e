"""The loss of many sequences at once is that of each alone by the stock forward."""

from __future__ import annotations

import pytest
import torch
from support.sounds import noise_clip

from relisten.data.examples import Example
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.protocol import Format
from relisten.question import Question
from relisten.train.sft import sequence_loss
from relisten.train.sft.sequence_loss import SequenceLoss
from relisten.train.sft.sequences import Layout, TrainingSequence

RESPONSES = (
    "<think>I count in <seg>0.5, 1.5</seg> that makes 2 and <seg>0.0, 0.7</seg> too.</think><answer>2</answer>",
    "<think>short <seg>0.0, 0.7</seg> has it</think><answer>1</answer>",
    "<think>none</think><answer>1</answer>",
)


@pytest.fixture
def sequences(family: Qwen2_5Omni) -> list[TrainingSequence]:
    layout = Layout(family, Format.INTERLEAVED, answer_weight=2.0)
    clips = [noise_clip(seconds, seed) for seed, seconds in enumerate((4.0, 2.0, 33.0))]  # the last has two chunks
    return [
        layout.sequence(Example(Question("How many?", ("1", "2")), response, ""), clip)
        for response, clip in zip(RESPONSES, clips, strict=True)
    ]


def stock(family: Qwen2_5Omni, laid: TrainingSequence) -> torch.Tensor:
    ids = torch.tensor(laid.ids)
    embeddings = family.embed(ids)
    embeddings = embeddings.masked_scatter(
        (ids == family.audio_id)[:, None], torch.cat(family.encode_audio(laid.clips))
    )
    states = family.language_model(
        inputs_embeds=embeddings[None], position_ids=torch.arange(len(ids)).expand(3, 1, -1)
    ).last_hidden_state[0]
    each = torch.nn.functional.cross_entropy(family.lm_head(states[:-1]), ids[1:], reduction="none")
    return (each * torch.tensor(laid.weights)[1:]).sum()


@pytest.mark.parametrize("packed", [True, False])
def test_loss_and_gradients_equal_the_stock_forward(
    family: Qwen2_5Omni, sequences: list[TrainingSequence], packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequence_loss, "LOGITS_AT_ONCE", 10)
    names = ("model.audio_tower.conv1.weight", "model.language_model.embed_tokens.weight", "lm_head.weight")
    weights = [family.thinker.get_parameter(name) for name in names]
    expected = torch.stack([stock(family, laid) for laid in sequences]).sum()
    wanted = torch.autograd.grad(expected, weights)
    loss = SequenceLoss(family, packed)(sequences)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for name, gradient, want in zip(names, torch.autograd.grad(loss, weights), wanted, strict=True):
        torch.testing.assert_close(gradient, want, rtol=1e-3, atol=1e-4 * float(want.abs().max()), msg=name)


def test_a_frozen_tower_gets_no_gradient(family: Qwen2_5Omni, sequences: list[TrainingSequence]) -> None:
    SequenceLoss(family, hears_trained=False)(sequences).backward()
    assert family.lm_head.weight.grad is not None
    assert all(p.grad is None for p in family.audio_tower.parameters())


def test_checkpointed_layers_give_the_same_gradient(family: Qwen2_5Omni, sequences: list[TrainingSequence]) -> None:
    weight = family.thinker.get_parameter("model.audio_tower.conv1.weight")
    plain = torch.autograd.grad(SequenceLoss(family)(sequences), weight)[0]
    family.thinker.train()
    family.thinker.activation_checkpointing_enable({"use_reentrant": False})
    assert family.thinker.model.audio_tower.layers[0].gradient_checkpointing
    again = torch.autograd.grad(SequenceLoss(family)(sequences), weight)[0]
    torch.testing.assert_close(again, plain, rtol=1e-4, atol=1e-5)
