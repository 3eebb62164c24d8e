"""The lean audio tower against transformers' own, and when a chunk of a crop is a chunk of its clip.

Tolerance: float32, sums in another order.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omni_checkpoint import noise

from relisten.audio import Clip
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.models.tower import ChunkCache, encode_chunks, encode_features

TOLERANCE = 1e-5
HOP, HALF_WINDOW, CHUNK = 160, 200, 100 * 160  # samples; the checkpoint's n_window is 50


@pytest.fixture(autouse=True)
def answering() -> Iterator[None]:
    with torch.inference_mode():
        yield


def test_it_equals_the_stock_tower(family: Qwen2_5Omni) -> None:
    clips = [noise(seconds, seed) for seed, seconds in enumerate((0.37, 3.0, 1.0, 0.03, 2.491))]
    features, lengths = family.mel(clips)
    stock = family.audio_tower(features, feature_lens=lengths).last_hidden_state
    encoded = encode_features(family.audio_tower, features, lengths.tolist())
    assert [len(one) for one in encoded] == [family.num_audio_tokens(clip.num_samples) for clip in clips]
    torch.testing.assert_close(torch.cat(encoded), stock, atol=TOLERANCE, rtol=0)


def test_chunks_in_one_batch_equal_those_alone(family: Qwen2_5Omni) -> None:
    chunks = [features(family, noise(seconds))[0] for seconds in (0.37, 1.0, 0.03, 0.491)]
    alone = [encode_chunks(family.audio_tower, [chunk])[0] for chunk in chunks]
    for together, one in zip(encode_chunks(family.audio_tower, chunks), alone, strict=True):
        torch.testing.assert_close(together, one, atol=TOLERANCE, rtol=0)


def test_bfloat16_hears_the_same(omni_folder: str, family: Qwen2_5Omni) -> None:
    half = Qwen2_5Omni.load(omni_folder, "bfloat16")
    exact, got = family.encode_audio([noise(2.3)])[0], half.encode_audio([noise(2.3)])[0]
    assert got.dtype == torch.bfloat16
    assert torch.corrcoef(torch.stack([exact.flatten(), got.float().flatten()]))[0, 1] > 0.999


def test_company_and_cache_change_no_bit(family: Qwen2_5Omni) -> None:
    clips, cache = [noise(seconds, seed) for seed, seconds in enumerate((0.5, 3.2, 1.7))], ChunkCache()
    alone = [family.encode_audio([clip])[0] for clip in clips]
    for clips_at_once in (clips, clips[::-1], clips):
        for clip, heard in zip(clips_at_once, family.encode_audio(clips_at_once, cache), strict=True):
            assert torch.equal(heard, alone[clips.index(clip)])
    assert (cache.made, cache.found) == (7, 14)


def test_clips_too_short_to_be_heard_stay_in_their_place(family: Qwen2_5Omni) -> None:
    shapes = [len(one) for one in family.encode_audio([noise(0.0), noise(1.0), noise(0.02)], ChunkCache())]
    assert shapes == [0, 25, 0]


def features(family: Qwen2_5Omni, clip: Clip) -> list[torch.Tensor]:
    return list(torch.split(family.mel([clip])[0], CHUNK // HOP, dim=1))


def same_by_rule(clip: Clip, start: int, end: int, chunk: int) -> bool:
    """Whether chunk `chunk` of samples `start` to `end` sees what the clip's own chunk there sees, floor apart."""
    if start % CHUNK:
        return False
    first, length = start + chunk * CHUNK, min(CHUNK, end - start - chunk * CHUNK)
    # The last frame's window ends inside the crop, and the clip's chunk is no longer than the crop's.
    inside = length == CHUNK and first + CHUNK - HOP + HALF_WINDOW <= end
    return (inside or end == clip.num_samples) and (chunk > 0 or start == 0)


@given(
    clip_samples=st.integers(3 * CHUNK // 2, 6 * CHUNK),
    start_chunks=st.integers(0, 4),
    off_grid=st.sampled_from([0, 0, 1, HOP, CHUNK // 2]),
    length=st.one_of(
        st.integers(CHUNK // 5, 6 * CHUNK),
        st.sampled_from(
            [CHUNK, 2 * CHUNK, 2 * CHUNK + HALF_WINDOW - HOP, 2 * CHUNK + HALF_WINDOW - HOP - 1, 10**9]
        ),
    ),
    burst=st.none() | st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_a_chunk_is_reused_exactly_where_the_rule_says(
    family: Qwen2_5Omni, clip_samples: int, start_chunks: int, off_grid: int, length: int, burst: int | None
) -> None:
    """Without a burst all values lie above every floor. A burst lifts the floor of what holds it over the rest."""
    samples = np.random.default_rng(clip_samples).normal(0, 0.01, clip_samples)
    at = None if burst is None else burst * CHUNK + CHUNK // 2
    if at is not None:
        samples *= 1e-4
        samples[at : at + 400] = 0.9
    clip = Clip(samples.astype(np.float32))
    start = start_chunks * CHUNK + off_grid
    end = min(start + length, clip_samples)
    if end - start < CHUNK // 5:
        return
    cache = ChunkCache()
    family.encode_audio([clip], cache)
    kept = {cache.key(chunk) for chunk in features(family, clip)}
    crop = Clip(clip.samples[start:end])
    for chunk, mel in enumerate(features(family, crop)):
        expected = same_by_rule(clip, start, end, chunk)
        if at is not None and at < clip_samples:
            expected &= start + HALF_WINDOW < at and at + 400 + HALF_WINDOW < end
        # Below a floor edges are not heard, so a burst may leave equal what the rule does not promise.
        assert (cache.key(mel) in kept) >= expected if at is not None else (cache.key(mel) in kept) == expected
    known = cache.found
    again = family.encode_audio([crop], cache)[0]
    assert torch.equal(again, family.encode_audio([crop])[0])
    assert cache.found - known == sum(cache.key(mel) in kept for mel in features(family, crop))


def test_the_cache_forgets_what_was_not_used_for_longest(family: Qwen2_5Omni) -> None:
    clips = [noise(1.0, seed) for seed in range(3)]
    one_chunk = 50 * 32 * 4  # states, width, bytes
    cache = ChunkCache(limit=2 * one_chunk)
    for clip in (clips[0], clips[1], clips[0], clips[2]):  # the second goes when the third comes
        family.encode_audio([clip], cache)
    assert (cache.made, cache.found) == (3, 1)
    family.encode_audio([clips[0], clips[2]], cache)
    assert (cache.made, cache.found) == (3, 3)
    family.encode_audio([clips[1]], cache)
    assert (cache.made, cache.found) == (4, 3)
    cache.clear()
    family.encode_audio([clips[1]], cache)
    assert (cache.made, cache.found) == (5, 3)
