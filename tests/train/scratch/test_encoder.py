"""The audio tower's own exercise: which label starts when, and what is told of each sound."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from relisten.audio import SAMPLE_RATE, Clip
from relisten.data.scenes import Event, Scene
from relisten.data.timbres import LABELS
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.models.tower import encode_frames, pool
from relisten.train.batches import Batcher
from relisten.train.scratch import encoder

RATE = 25.0


@pytest.fixture
def scene() -> Scene:
    events = (
        Event(0.5, 0.6, LABELS[0], level=-15.0),
        Event(1.0, 1.25, LABELS[3], level=-35.0, pitch=1400.0, sustained=True),
        Event(1.9, 2.0, LABELS[0], level=-25.0, sustained=True),
    )
    return Scene(Clip(np.zeros(2 * SAMPLE_RATE, np.float32)), events)


def perfect(wanted: encoder.Wanted) -> torch.Tensor:
    """Values that say exactly what is wanted."""
    return torch.cat([wanted.onsets * 40 - 20, wanted.traits.nan_to_num()], dim=-1)


def test_targets_mark_the_frames_of_onsets(scene: Scene) -> None:
    wanted = encoder.targets([scene], 50, RATE)
    assert wanted.onsets.nonzero()[:, 1:].tolist() == [[12, 0], [25, 3], [47, 0]]


def test_what_is_told_of_each_sound(scene: Scene) -> None:
    traits = encoder.targets([scene], 50, RATE).traits[0]
    nan = float("nan")
    # since the last onset, level, octaves over 700 Hz, halvings of 0.5 s, share of the longest step (0.9 s)
    expected = torch.tensor([[0.5, 1, nan, nan, 5 / 9], [0.5, -1, 1, -1, 1], [0.9, 0, nan, nan, nan]])
    assert torch.allclose(traits[[12, 25, 47]], expected, atol=1e-6, equal_nan=True)
    assert int((~traits.isnan()).any(-1).sum()) == 3


def test_a_perfect_reading_costs_nothing(scene: Scene) -> None:
    wanted = encoder.targets([scene], 50, RATE)
    lengths = torch.tensor([50])
    assert float(encoder.loss(perfect(wanted), lengths, wanted, traits=1.0)) < 1e-6
    assert encoder.f1(perfect(wanted), lengths, wanted) == pytest.approx(1.0)
    assert encoder.label_accuracy(perfect(wanted), wanted) == 1.0
    assert max(encoder.trait_errors(perfect(wanted), wanted).values()) == 0.0


def test_traits_count_only_where_they_are_asked_for(scene: Scene) -> None:
    wanted = encoder.targets([scene], 50, RATE)
    values, lengths = perfect(wanted), torch.tensor([50])
    values[..., len(LABELS) + encoder.TRAITS.index("level")] += 1.0
    assert float(encoder.loss(values, lengths, wanted)) < 1e-6
    # One of the five traits is off by 1 in the three places where it is told, of ten that are told in all.
    off = 3 * (1.0 - 0.05) / 10
    assert float(encoder.loss(values, lengths, wanted, traits=0.5)) == pytest.approx(0.5 * off, rel=1e-4)
    assert encoder.trait_errors(values, wanted)["level"] == pytest.approx(1.0)


def test_padding_is_not_judged(scene: Scene) -> None:
    wanted = encoder.targets([scene], 60, RATE)
    values = perfect(wanted)
    values[:, 50:] = 20
    assert float(encoder.loss(values, torch.tensor([50]), wanted, traits=1.0)) < 1e-6


def test_frames_of_padded_sounds_equal_those_alone(family: Qwen2_5Omni) -> None:
    rng = np.random.default_rng(0)
    clips = [Clip(rng.normal(0, 0.1, n).astype(np.float32)) for n in (16_000, 24_320, 9_999)]
    batcher = Batcher(family)
    with torch.no_grad():
        together, lengths = encode_frames(family.audio_tower, batcher.sounds(clips))
        tokens, counts = pool(family.audio_tower, together, lengths)
        for place, clip in enumerate(clips):
            alone, length = encode_frames(family.audio_tower, batcher.sounds([clip]))
            assert int(length[0]) == int(lengths[place])
            assert torch.allclose(together[place, : length[0]], alone[0, : length[0]], atol=1e-5)
            heard = family.encode_audio([clip])[0]
            assert len(heard) == int(counts[place])
            assert torch.allclose(tokens[place, : len(heard)], heard, atol=1e-5)
