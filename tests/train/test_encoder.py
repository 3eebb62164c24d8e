"""The audio tower's own exercise: which label starts when, and in which order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from relisten.audio import SAMPLE_RATE, Clip
from relisten.data.scenes import Event, Scene
from relisten.data.timbres import LABELS
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.train import encoder, forward
from relisten.train.batches import Batcher

RATE = 25.0


@pytest.fixture
def scene() -> Scene:
    events = (Event(0.5, 0.6, LABELS[0]), Event(1.0, 1.2, LABELS[3]), Event(1.5, 1.6, LABELS[0]))
    return Scene(Clip(np.zeros(2 * SAMPLE_RATE, np.float32)), events)


def perfect(wanted: torch.Tensor) -> torch.Tensor:
    """Logits that say exactly what is wanted."""
    place = (wanted.any(-1).cumsum(1) - 1).clamp(min=0)
    places = torch.nn.functional.one_hot(place, encoder.ORDINALS).float()
    return torch.cat([wanted, places], dim=-1) * 40 - 20


def test_targets_mark_the_frames_of_onsets(scene: Scene) -> None:
    wanted = encoder.targets([scene], 50, RATE)
    assert wanted.nonzero()[:, 1:].tolist() == [[12, 0], [25, 3], [37, 0]]


def test_a_perfect_reading_costs_nothing(scene: Scene) -> None:
    wanted = encoder.targets([scene], 50, RATE)
    lengths = torch.tensor([50])
    assert float(encoder.loss(perfect(wanted), lengths, wanted, order=1.0)) < 1e-6
    assert encoder.f1(perfect(wanted), lengths, wanted) == pytest.approx(1.0)
    assert encoder.place_accuracy(perfect(wanted), wanted) == 1.0


def test_order_counts_only_where_it_is_asked_for(scene: Scene) -> None:
    wanted = encoder.targets([scene], 50, RATE)
    logits, lengths = perfect(wanted), torch.tensor([50])
    logits[..., len(LABELS) :] = 0
    plain = encoder.loss(logits, lengths, wanted)
    ordered = encoder.loss(logits, lengths, wanted, order=0.5)
    assert float(plain) < 1e-6
    assert float(ordered) == pytest.approx(0.5 * np.log(encoder.ORDINALS), rel=1e-4)


def test_padding_is_not_judged(scene: Scene) -> None:
    wanted = encoder.targets([scene], 60, RATE)
    logits = perfect(wanted)
    logits[:, 50:] = 20
    assert float(encoder.loss(logits, torch.tensor([50]), wanted)) < 1e-6


def test_frames_of_padded_sounds_equal_those_alone(family: Qwen2_5Omni) -> None:
    rng = np.random.default_rng(0)
    clips = [Clip(rng.normal(0, 0.1, n).astype(np.float32)) for n in (16_000, 24_320, 9_999)]
    batcher = Batcher(family)
    with torch.no_grad():
        together, lengths = forward.encode_frames(family.audio_tower, batcher.sounds(clips))
        tokens, counts = forward.pool(family.audio_tower, together, lengths)
        for place, clip in enumerate(clips):
            alone, length = forward.encode_frames(family.audio_tower, batcher.sounds([clip]))
            assert int(length[0]) == int(lengths[place])
            assert torch.allclose(together[place, : length[0]], alone[0, : length[0]], atol=1e-5)
            heard = family.encode_audio([clip])[0]
            assert len(heard) == int(counts[place])
            assert torch.allclose(tokens[place, : len(heard)], heard, atol=1e-5)
