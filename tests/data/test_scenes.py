from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relisten.data.scenes import (
    Event,
    Scene,
    SceneSpec,
    caption,
    make_scene,
    onset_targets,
    place_events,
    simulate,
    simulate_many,
)
from relisten.data.synth import BAND_OWNER, BANDS, SPLITS, Draw, SynthSound
from relisten.data.timbres import DRUMS, LABELS, SYNTHESIS
from relisten.errors import InputError

ALONE = SceneSpec(
    duration=(4.0, 4.0), long_share=0, events=(1, 1), silent_share=1, dry_share=1, codec_share=0, pattern_share=0
)


def same(one: Scene, other: Scene) -> bool:
    return one.clip.hash == other.clip.hash and one.events == other.events


def test_a_scene_depends_on_its_own_numbers_only() -> None:
    stream = list(simulate("train", 3, 0, 5))
    assert same(stream[4], make_scene("train", 3, 4))
    assert same(stream[4], next(simulate("train", 3, 4, 1)))
    assert len({scene.clip.hash for scene in stream}) == 5


def test_processes_change_nothing() -> None:
    alone = list(simulate("validation", 1, 2, 5))
    shared = list(simulate_many("validation", 1, 2, 5, processes=2))
    assert all(same(one, other) for one, other in zip(alone, shared, strict=True))


def test_splits_and_seeds_are_different_streams() -> None:
    assert len({make_scene(split, seed, 0).clip.hash for split in SPLITS for seed in (0, 1)}) == 6


@pytest.mark.parametrize("split", SPLITS)
def test_banded_values_come_from_the_split_s_own_bands(split: str) -> None:
    draw = Draw(split, np.random.default_rng(0))
    bands = {int(draw.banded(0, 1) * BANDS) for _ in range(2000)}
    assert bands == {band for band in range(BANDS) if BAND_OWNER[band % len(BAND_OWNER)] == split}
    bands = {int(BANDS * np.log(draw.banded_log(2, 32) / 2) / np.log(16) + 1e-9) for _ in range(2000)}
    assert {BAND_OWNER[band % len(BAND_OWNER)] for band in bands} == {split}


@pytest.mark.parametrize("split", SPLITS)
def test_no_pitch_is_heard_in_two_splits(split: str) -> None:
    draw = Draw(split, np.random.default_rng(1))
    for label, low, high in (("low beep", 200, 600), ("high beep", 1000, 4000)):
        pitches = [SYNTHESIS[label](draw).pitch for _ in range(40)]
        bands = [int(BANDS * np.log(pitch / low) / np.log(high / low)) for pitch in pitches if pitch]
        assert {BAND_OWNER[band % len(BAND_OWNER)] for band in bands} == {split}


@pytest.mark.parametrize("label", LABELS)
def test_onset_and_offset_are_where_the_sound_is(label: str) -> None:
    for index in range(6):
        scene = make_scene("train", 5, index, replace(ALONE, labels=(label,)))
        (event,) = scene.events
        samples = np.abs(scene.clip.samples)
        peak = samples.max()
        assert event.label == label
        first = int(np.argmax(samples > 0.03 * peak)) / 16_000
        assert abs(first - event.onset) <= 0.010
        frames = (samples[round(event.onset * 16_000) :] ** 2)[: 16_000 * 4]
        frames = frames[: len(frames) // 160 * 160].reshape(-1, 160).mean(1)
        heard = np.flatnonzero(frames > frames.max() * 10 ** (-40 / 10))
        assert abs((heard[-1] + 1) / 100 - event.duration) <= 0.011


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("split", SPLITS)
def test_every_sound_is_sane(label: str, split: str) -> None:
    draw = Draw(split, np.random.default_rng(2))
    for _ in range(25):
        sound = SYNTHESIS[label](draw)
        assert sound.samples.dtype == np.float32
        assert np.isfinite(sound.samples).all()
        assert np.abs(sound.samples).max() == pytest.approx(1, abs=0.05)
        assert 0.02 <= len(sound.samples) / 16_000 <= 3


@settings(max_examples=25, deadline=None)
@given(split=st.sampled_from(SPLITS), seed=st.integers(0, 2**32), index=st.integers(0, 10**6))
def test_every_scene_keeps_the_rules(split: str, seed: int, index: int) -> None:
    spec = SceneSpec()
    scene = make_scene(split, seed, index, spec)
    onsets = [event.onset for event in scene.events]
    assert spec.duration[0] <= scene.clip.duration <= spec.long_duration[1]
    assert spec.events[0] <= len(onsets) <= spec.events[1]
    assert onsets == sorted(onsets)
    assert np.diff(onsets).min() >= spec.gap[0] - 1e-3
    assert all(0 <= e.onset < e.offset <= scene.clip.duration + 1e-9 for e in scene.events)
    assert all(event.label in LABELS for event in scene.events)
    samples = scene.clip.samples
    assert np.isfinite(samples).all()
    assert 0.01 < np.abs(samples).max() < 1


def test_labels_can_be_chosen() -> None:
    spec = SceneSpec(labels=DRUMS)
    assert {event.label for scene in simulate("test", 0, 0, 6, spec) for event in scene.events} <= set(DRUMS)


def test_a_faint_sound_is_lifted_out_of_a_loud_one_s_tail() -> None:
    tone = SynthSound(np.sin(np.arange(32_000) * 0.3).astype(np.float32), sustained=True)
    tick = SynthSound(np.full(800, 0.05, np.float32))
    spec = replace(ALONE, overlap_share=1, mixed_share=0, gain=(0.0, 0.0))
    draw = Draw("train", np.random.default_rng(0))
    _, (loud, faint) = place_events(draw, spec, 4.0, [(0.5, "low beep", [tone]), (1.0, "kick", [tick])])
    assert faint.gain > 0
    assert faint.level > loud.level - 20


def test_onset_targets_mark_the_frame_of_each_onset() -> None:
    scene = make_scene("train", 0, 0)
    targets = onset_targets(scene, 12.5)
    assert targets.shape == (int(np.ceil(scene.clip.duration * 12.5)), len(LABELS))
    assert targets.dtype == np.float32
    for event in scene.events:
        assert targets[int(event.onset * 12.5), LABELS.index(event.label)] == 1
    assert targets.sum() <= len(scene.events)
    with pytest.raises(InputError, match="frame rate"):
        onset_targets(scene, 0)


def test_caption_tells_what_starts_in_a_window() -> None:
    events = [Event(0.5, 0.7, "kick"), Event(1.92, 2.2, "snare"), Event(3.0, 3.2, "bell")]
    assert caption(events, 0.0, 3.0) == "0.5 kick, 1.9 snare"
    assert caption(events, 1.5, 4.0) == "0.4 snare, 1.5 bell"
    assert caption(events, 1.5, 4.0, relative=False) == "1.9 snare, 3.0 bell"
    assert caption(events, 0.0, 4.0, times=False) == "kick, snare, bell"
    assert caption(events, 0.6, 1.9) == "nothing"


def test_bad_requests_say_what_is_wrong() -> None:
    with pytest.raises(InputError, match="split 'dev'"):
        make_scene("dev", 0, 0)
    with pytest.raises(InputError, match="0 or more"):
        make_scene("train", -1, 0)
    with pytest.raises(InputError, match="lowest value first"):
        SceneSpec(snr=(50, 8))
    with pytest.raises(InputError, match="1 to 600"):
        SceneSpec(duration=(0.2, 5))
    with pytest.raises(InputError, match="gong"):
        SceneSpec(labels=("gong",))
