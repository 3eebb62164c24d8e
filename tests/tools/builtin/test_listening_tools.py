"""Tools of the extra `tools`, on scenes and signals whose truth is known. Bounds: what `relisten router tools
--measure` prints, with some room."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

pytest.importorskip("librosa", reason='tools are not tested: pip install "relisten[tools]"')
pytest.importorskip("webrtcvad", reason='tools are not tested: pip install "relisten[tools]"')

from support.sounds import noise_clip

from relisten.audio import SAMPLE_RATE, Clip
from relisten.data.scenes import simulate
from relisten.errors import InputError
from relisten.protocol import Segment
from relisten.router.measure import matched, measure
from relisten.tools.builtin.beats import beats
from relisten.tools.builtin.harmony import harmony
from relisten.tools.builtin.onsets import onsets
from relisten.tools.builtin.pitch import pitch
from relisten.tools.builtin.repeats import repeats
from relisten.tools.builtin.voice import voice
from relisten.tools.finding import Finding
from relisten.tools.running import Failure, ToolReport, run_tool
from relisten.tools.tool import all_tools

CLICK = np.random.default_rng(0).normal(0, 0.3, 800) * np.exp(-np.arange(800) / 160)
"""50 ms of noise that decays."""


def at_times(times: list[float], length: float, sound: np.ndarray = CLICK) -> np.ndarray:
    samples = np.random.default_rng(1).normal(0, 1e-4, round(length * SAMPLE_RATE))
    for time in times:
        first = round(time * SAMPLE_RATE)
        samples[first : first + len(sound)] += sound[: len(samples) - first]
    return samples


def tone(hertz: float, seconds: float) -> np.ndarray:
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return 0.2 * sum(np.sin(2 * np.pi * hertz * k * t) / k for k in (1, 2, 3))


def test_clicks_are_counted_where_they_are() -> None:
    times = [0.3, 1.0, 1.25, 2.5, 3.0]
    found = onsets(Clip.from_samples(at_times(times, 4.0)))
    assert found.times == pytest.approx(times, abs=0.02)
    assert found.text().startswith("5 onsets at 0.3")


def test_the_edge_of_a_window_is_no_onset() -> None:
    clip = Clip.from_samples(np.concatenate([tone(300, 3.0), at_times([0.5], 1.0)]))
    assert onsets(clip, Segment(1.0, 2.0)).times == ()
    assert onsets(clip, Segment(2.0, 3.9)).times[-1] == pytest.approx(3.5, abs=0.02)


def test_a_sound_at_the_very_beginning_counts_and_a_background_does_not() -> None:
    assert onsets(Clip.from_samples(at_times([0.0, 1.0], 2.0))).times == pytest.approx([0.0, 1.0], abs=0.02)
    assert onsets(Clip.from_samples(at_times([1.0], 2.0))).times == pytest.approx([1.0], abs=0.02)


def test_onsets_of_held_out_scenes() -> None:
    hits = found = true = 0
    for scene in simulate("test", 3, 0, 10):
        times, truth = onsets(scene.clip).times, [event.onset for event in scene.events]
        hits, found, true = hits + len(matched(times, truth, 0.05)), found + len(times), true + len(truth)
    assert 2 * hits / (found + true) > 0.8


def test_notes_of_a_melody() -> None:
    clip = Clip.from_samples(np.concatenate([tone(hertz, 0.5) for hertz in (261.6, 329.6, 392.0)]))
    found = pitch(clip)
    assert [note.name for note in found.notes if note.end - note.start > 0.3] == ["C4", "E4", "G4"]
    assert found.contour == "rising"
    part = pitch(clip, Segment(0.6, 0.95))
    assert part.median == pytest.approx(329.6, rel=0.01)
    assert part.contour == "steady"
    assert 0.6 <= part.notes[0].start < part.notes[-1].end <= 0.95


@pytest.mark.parametrize("hertz", [80.0, 440.0, 1500.0, 3800.0])
def test_pitch_from_low_to_high(hertz: float) -> None:
    t = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    assert pitch(Clip.from_samples(0.3 * np.sin(2 * np.pi * hertz * t))).median == pytest.approx(hertz, rel=0.012)


def test_noise_has_no_pitch() -> None:
    assert pitch(noise_clip(1.0)).text() == "no pitch"


@pytest.mark.parametrize("tempo", [80, 100, 130])
def test_tempo_of_clicks(tempo: int) -> None:
    times = [float(time) for time in np.arange(0.2, 11.8, 60 / tempo)]
    found = beats(Clip.from_samples(at_times(times, 12.0)))
    assert found.tempo is not None
    assert found.tempo == pytest.approx(tempo, rel=0.04)
    assert len(matched(found.times, times, 0.07)) > 0.8 * len(times)


def test_what_has_no_beat() -> None:
    assert beats(noise_clip(1.0)).tempo is None
    assert beats(Clip.from_samples(np.zeros(80_000, np.float32))).text() == "no regular beat"


def test_key_and_chords() -> None:
    def chord(*hertz: float) -> np.ndarray:
        return sum(tone(one, 1.0) for one in hertz) / 3

    c, f, g = chord(130.8, 164.8, 196.0), chord(174.6, 220.0, 261.6), chord(196.0, 246.9, 293.7)
    found = harmony(Clip.from_samples(np.concatenate([c, f, g, c])))
    assert found.key == "C major"
    assert [one.name for one in found.chords] == ["C", "F", "G", "C"]
    assert [one.start for one in found.chords] == pytest.approx([0, 1, 2, 3], abs=0.15)


def test_sounds_that_come_again() -> None:
    fade = np.linspace(1, 0, 3200)
    low, high = tone(200, 0.2) * fade, tone(2500, 0.2) * fade
    samples = at_times([0.5, 1.5, 2.5], 4.0, low) + at_times([1.0, 2.0], 4.0, high)
    found = repeats(Clip.from_samples(samples))
    assert found.order == "ABABA"
    assert found.kinds[0].times == pytest.approx([0.5, 1.5, 2.5], abs=0.03)
    assert "A 3 times" in found.text()


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_speech_is_where_somebody_speaks() -> None:
    from relisten.data.voices import Voice, require_speech, speak

    said = speak(require_speech(), Voice("en-us", 160, 50), "The bus was late again, and it rained all night.")
    gap = np.random.default_rng(0).normal(0, 1e-4, SAMPLE_RATE)
    length = len(said) / SAMPLE_RATE
    found = voice(Clip.from_samples(np.concatenate([gap, 0.5 * said, gap])))
    inside = sum(max(0.0, min(s.end, 1 + length) - max(s.start, 1.0)) for s in found.spoken)
    outside = sum(s.duration for s in found.spoken) - inside
    assert inside > 0.85 * length
    assert outside < 0.5


ODD = {
    "one sample": np.ones(1),
    "10 ms": np.ones(160) * 0.1,
    "zeros": np.zeros(16_000),
    "a constant": np.full(16_000, 0.5),
    "clipped": np.sign(np.sin(np.arange(16_000) / 20)) * 3.0,
    "very soft": np.random.default_rng(0).normal(0, 1e-6, 16_000),
}


@pytest.mark.parametrize("what", ODD)
def test_odd_sounds_are_findings_too(what: str) -> None:
    clip = Clip.from_samples(ODD[what].astype(np.float32))
    for name in all_tools():
        report = run_tool(name, clip)
        if name == "speech":
            continue
        assert report.failure is None, report.error
        assert isinstance(report.finding, Finding)
        assert ToolReport.from_json(report.to_json()) == report
        assert report.text().count("\n") <= 1
        assert len(report.text()) < 600


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("onsets", {"sensitivity": 0}),
        ("pitch", {"lowest": 500, "highest": 100}),
        ("voice", {"strictness": 4}),
        ("beats", {"expected": 0}),
        ("repeats", {"tolerance": 0}),
    ],
)
def test_bounds_of_arguments(name: str, arguments: dict[str, float]) -> None:
    report = run_tool(name, noise_clip(1.0), arguments=arguments)
    assert report.failure is Failure.FAILED
    assert "must be" in report.error or "it needs" in report.error


def test_repeats_takes_so_many_sounds_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relisten.tools.builtin.repeats._MOST", 2)
    with pytest.raises(InputError, match="compares at most 2"):
        repeats(Clip.from_samples(at_times([0.3, 0.8, 1.3], 2.0)))


def test_figures_are_printed_for_every_tool_with_known_truth() -> None:
    for name in ("onsets", "loudness", "spectrum", "silence", "repeats", "harmony", "beats"):
        figures = measure(name, 2)
        assert figures
        assert all(figure.tool == name and figure.value is not None for figure in figures)
        assert figures == measure(name, 2)
