"""Log-mel features against transformers' extractor, on every frame that exists.

Tolerance: 1e-6 on values of order 1. Both sides work in float32 and differ only in the order of sums (measured:
1.2e-7). No frame is excepted: what follows the clip's end is the extractor's zero padding here, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import WhisperFeatureExtractor

from relisten.audio import Clip
from relisten.errors import InputError
from relisten.models import mel as mel_module
from relisten.models.mel import LogMel

TOLERANCE = 1e-6


def stock(clips: list[Clip], hop_length: int, chunk_length: int, n_mels: int = 128) -> list[np.ndarray]:
    """Stock features of each clip, its masked frames left out."""
    extractor = WhisperFeatureExtractor(
        feature_size=n_mels, hop_length=hop_length, n_fft=400, chunk_length=chunk_length, return_attention_mask=True
    )
    out = extractor(
        [clip.samples for clip in clips], sampling_rate=16_000, padding="max_length", return_attention_mask=True
    )
    masks = out["attention_mask"].astype(bool)
    return [features[:, mask] for features, mask in zip(out["input_features"], masks, strict=True)]


def ours(clips: list[Clip], mel: LogMel) -> list[np.ndarray]:
    features, lengths = mel(clips)
    assert features.dtype == torch.float32
    return [part.numpy() for part in features.split(lengths.tolist(), dim=1)]


def noise(num_samples: int, loudness: float = 0.1) -> Clip:
    rng = np.random.default_rng(num_samples)
    return Clip((loudness * rng.standard_normal(num_samples)).astype(np.float32))


def spike(num_samples: int, at: int) -> Clip:
    samples = np.full(num_samples, 1e-4, np.float32)
    samples[at] = 1.0
    return Clip(samples)


@pytest.mark.parametrize("hop_length", [160, 320])
@pytest.mark.parametrize("chunk_length", [5, 300])
def test_equals_the_stock_extractor(hop_length: int, chunk_length: int) -> None:
    lengths = [1, 2, 159, 160, 161, 199, 200, 201, 319, 320, 321, 400, 3_200, 16_000, 47_999, 48_001]
    clips = [noise(n, 10.0 ** -(n % 4)) for n in lengths]
    mel = LogMel(hop_length=hop_length, max_samples=chunk_length * 16_000)
    if chunk_length == 300:  # the stock extractor takes long for each of these
        clips = clips[-2:]
    for clip, expected, got in zip(clips, stock(clips, hop_length, chunk_length), ours(clips, mel), strict=True):
        assert got.shape == expected.shape == (128, mel.num_frames(clip.num_samples))
        np.testing.assert_allclose(got, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("clip", "why"),
    [
        (Clip(np.zeros(5_000, np.float32)), "silence lies wholly on the floor"),
        (spike(1_000, 999), "the loudest frame is centred behind the end, and sets the floor all the same"),
        (spike(1_000, 0), "a spike on the mirror's axis"),
        (spike(5_000, 130), "a spike that the mirror shows twice"),
        (noise(80_000), "as long as the padding: its end is mirrored"),
        (noise(79_999), "one sample of padding"),
        (noise(79_801), "the mirror reaches the last sample"),
        (noise(79_800), "the mirror just reaches the last sample"),
        (noise(79_600), "the mirror shows zeros only"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_edges_equal_the_stock_extractor(clip: Clip, why: str) -> None:
    expected = stock([clip], 160, 5)[0]
    np.testing.assert_allclose(ours([clip], LogMel(max_samples=80_000))[0], expected, atol=TOLERANCE, rtol=0)


@given(st.lists(st.integers(1, 4_000), min_size=1, max_size=5), st.sampled_from([(16, 160), (80, 320), (128, 100)]))
@settings(max_examples=30, deadline=None)
def test_any_batch_equals_the_stock_extractor(lengths: list[int], bands_and_hop: tuple[int, int]) -> None:
    n_mels, hop_length = bands_and_hop
    clips = [noise(n) for n in lengths]
    mel = LogMel(n_mels, hop_length=hop_length, max_samples=16_000)
    for expected, got in zip(stock(clips, hop_length, 1, n_mels), ours(clips, mel), strict=True):
        np.testing.assert_allclose(got, expected, atol=TOLERANCE, rtol=0)


def test_a_loud_neighbour_changes_nothing() -> None:
    quiet, loud = noise(4_000, 1e-3), noise(30_000, 0.9)
    mel = LogMel()
    np.testing.assert_allclose(ours([loud, quiet], mel)[1], ours([quiet], mel)[0], atol=TOLERANCE, rtol=0)


def test_many_frames_are_transformed_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    clips, mel = [noise(20_000), noise(333)], LogMel()
    whole = mel(clips)[0]
    monkeypatch.setattr(mel_module, "FRAME_BLOCK", 7)
    torch.testing.assert_close(mel(clips)[0], whole, atol=TOLERANCE, rtol=0)


def test_a_clip_beyond_the_stock_length_is_not_cut() -> None:
    clip = noise(90_000)
    short, long = LogMel(max_samples=80_000), LogMel(max_samples=160_000)
    assert ours([clip], short)[0].shape[1] == short.num_frames(90_000) == 563
    np.testing.assert_allclose(ours([clip], short)[0], ours([clip], long)[0], atol=TOLERANCE, rtol=0)


def test_a_crop_is_heard_as_a_clip_of_its_own() -> None:
    clip = noise(48_000)
    copy = Clip(clip.samples[16_000:32_000].copy())
    mel = LogMel()
    np.testing.assert_array_equal(ours([clip.crop(1.0, 2.0)], mel)[0], ours([copy], mel)[0])


def test_no_clips_have_no_frames() -> None:
    features, lengths = LogMel()([])
    assert features.shape == (128, 0)
    assert lengths.shape == (0,)


def test_autocast_and_autograd_leave_features_alone() -> None:
    mel, clip = LogMel(), noise(5_000)
    with torch.autocast("cpu", torch.bfloat16):
        features = mel([clip])[0]
    assert features.dtype == torch.float32
    assert not features.requires_grad
    assert torch.equal(features, mel([clip])[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_agrees() -> None:
    clips = [noise(n) for n in (1, 3_000, 50_000)]
    features, lengths = LogMel(device="cuda")(clips)
    assert features.device.type == lengths.device.type == "cuda"
    torch.testing.assert_close(features.cpu(), LogMel()(clips)[0], atol=1e-5, rtol=0)


def test_settings_come_from_the_checkpoint() -> None:
    mel = LogMel.from_config({"feature_size": 64, "hop_length": 320, "n_fft": 512, "chunk_length": 10})
    assert (mel.n_mels, mel.hop_length, mel.n_fft, mel.max_samples) == (64, 320, 512, 160_000)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sampling_rate": 8_000},
        {"padding_side": "left"},
        {"dither": 1e-5},
        {"padding_value": 1.0},
        {"hop_length": 0},
        {"n_fft": 401},
        {"feature_size": "many"},
        {"chunk_length": None},
        {"hop_length": 7_001},
    ],
)
def test_settings_that_would_give_other_features_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"preprocessor_config\.json"):
        LogMel.from_config(wrong)
