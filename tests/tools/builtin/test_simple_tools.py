"""Tools that need nothing beyond a plain installation, on signals whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from support.sounds import noise_clip

from relisten.audio import SAMPLE_RATE, Clip
from relisten.data.scenes import SceneSpec, simulate
from relisten.errors import InputError
from relisten.protocol import Segment
from relisten.tools.builtin.loudness import loudness
from relisten.tools.builtin.silence import silence
from relisten.tools.builtin.spectrum import spectrum


def tone(hertz: float, seconds: float, level: float = 0.5) -> NDArray[np.float64]:
    return level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE)


def silent(seconds: float) -> NDArray[np.float64]:
    return np.zeros(round(seconds * SAMPLE_RATE))


def test_levels_of_a_tone() -> None:
    found = loudness(Clip.from_samples(tone(440, 2.0)))
    assert found.level == pytest.approx(-9.0, abs=0.1)
    assert found.peak == pytest.approx(-6.0, abs=0.1)
    assert found.trend == "even"
    assert len(found.parts) == 8


def test_loudest_moment_and_trend_are_times_of_the_clip() -> None:
    samples = np.concatenate([tone(440, 2.0, 0.01), tone(440, 0.5, 0.8), tone(440, 1.5, 0.1)])
    found = loudness(Clip.from_samples(samples), Segment(1.0, 4.0))
    assert 2.0 <= found.loudest_at <= 2.5
    assert found.softest_at < 2.0
    assert found.trend == "louder"
    assert "getting louder" in found.text()


def test_rises_are_where_sounds_begin_and_as_loud_as_they_are() -> None:
    samples = np.concatenate([silent(0.5), tone(440, 0.5, 0.5), tone(440, 0.5, 0.02), tone(440, 0.5, 0.1)])
    found = loudness(Clip.from_samples(samples))
    assert [rise.at for rise in found.rises] == pytest.approx([0.5, 1.5], abs=0.03)
    assert [rise.level for rise in found.rises] == pytest.approx([-9.0, -23.0], abs=0.3)
    assert "rises at 0.5 s -9 dB, 1.5 s -23 dB" in found.text()
    assert [rise.at for rise in loudness(Clip.from_samples(tone(440, 1.0))).rises] == [0.0]


def test_strongest_frequency_and_bands() -> None:
    found = spectrum(Clip.from_samples(tone(100, 1.0, 0.1) + tone(3000, 1.0, 0.5)))
    assert found.peaks[0] == pytest.approx(3000, abs=3)
    assert found.peaks[1] == pytest.approx(100, abs=3)
    assert found.high == pytest.approx(25 / 26, abs=0.01)
    assert found.flatness < 0.03
    noise = spectrum(noise_clip(2.0))
    assert noise.flatness > 0.5
    assert noise.peaks == ()


def test_a_window_is_all_that_counts() -> None:
    clip = Clip.from_samples(np.concatenate([tone(300, 1.0), tone(2000, 1.0)]))
    assert spectrum(clip, Segment(1.1, 2.0)).peaks == pytest.approx((2000,), abs=2)


def test_silences_between_tones() -> None:
    clip = Clip.from_samples(np.concatenate([silent(0.5), tone(440, 1.0), silent(1.0), tone(440, 0.5)]))
    found = silence(clip)
    assert [(round(s.start, 1), round(s.end, 1)) for s in found.silences] == [(0.0, 0.5), (1.5, 2.5)]
    assert found.share == pytest.approx(0.5, abs=0.02)
    part = silence(clip, Segment(1.0, 3.0))
    assert [(round(s.start, 1), round(s.end, 1)) for s in part.silences] == [(1.5, 2.5)]
    assert "longest 1.5 to 2.5 s; sounds at 1.0 s for 0.5 s, 2.5 s for 0.5 s" in part.text()
    assert [m.text() for m in part.moments()] == ["1.0 s for 0.5 s", "2.5 s for 0.5 s"]


def test_a_short_gap_is_no_silence_unless_asked_for() -> None:
    clip = Clip.from_samples(np.concatenate([tone(440, 1.0), silent(0.1), tone(440, 1.0)]))
    assert silence(clip).silences == ()
    assert len(silence(clip, shortest=0.05).silences) == 1


def test_noise_without_end_is_sound_and_zeros_are_silence() -> None:
    assert silence(noise_clip(2.0)).text() == "sound throughout, no silence"
    assert silence(Clip.from_samples(silent(1.0))).text() == "silence throughout"


@pytest.mark.parametrize("arguments", [{"below": 0.0}, {"shortest": -1.0}])
def test_silence_says_what_it_takes(arguments: dict[str, float]) -> None:
    with pytest.raises(InputError, match="must be above 0"):
        silence(noise_clip(1.0), **arguments)


def test_scenes_are_silent_where_no_event_is() -> None:
    spec = SceneSpec(silent_share=1.0, dry_share=1.0)
    for scene in simulate("test", 1, 0, 5, spec):
        quiet = silence(scene.clip).silences
        for event in scene.events:
            middle = event.onset + 0.05
            assert not any(s.start < middle < s.end for s in quiet if event.gain > -10)
