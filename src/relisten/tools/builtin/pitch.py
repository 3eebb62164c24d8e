"""Fundamental frequency over time: notes, range, contour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from relisten.audio import SAMPLE_RATE, Clip
from relisten.errors import InputError
from relisten.protocol import Segment
from relisten.tools.finding import Finding, Moment, told
from relisten.tools.sections import (
    INSTALL,
    LIBROSA,
    Floats,
    audible_level,
    cut,
    levels,
    note_name,
    peak_between,
    runs,
)
from relisten.tools.tool import tool

_HOP: Final = 256
_FRAME: Final = 1024
_SHORTEST: Final = 0.06
"""Seconds that a note must last."""
_STEADY: Final = 0.6
"""Semitones within which a pitch counts as steady, and as one note."""

_HIGH: Final = 600.0
_FFT: Final = 4096
_PRESENT: Final = 0.05
"""Part of the spectrum's largest magnitude that a fundamental above 600 Hz has at least."""
_BACK: Final = 0.3
"""Semitones that a rising pitch may fall back between two eighths of its course."""


@dataclass(frozen=True)
class Note:
    """A stretch of one pitch; times in seconds from the clip's start."""

    start: float
    end: float
    hertz: float
    name: str


@dataclass(frozen=True)
class Pitch(Finding):
    """`median`, `lowest` and `highest` (5 % and 95 % points) in Hz, None where nothing is pitched."""

    median: float | None
    lowest: float | None
    highest: float | None
    contour: str
    """"steady", "rising", "falling", "varied" or "none": over all that is pitched."""
    voiced: float
    """Share of the window that has a pitch."""
    notes: tuple[Note, ...]

    def text(self) -> str:
        if self.median is None or self.lowest is None or self.highest is None:
            return "no pitch"
        course = f"pitch {self.median:.0f} Hz ({note_name(self.median)}), {self.contour}"
        course += f", {self.lowest:.0f} to {self.highest:.0f} Hz, in {self.voiced:.0%} of the time"
        return f"{course}; notes at {told(self.moments())}"

    def moments(self) -> tuple[Moment, ...]:
        """Where each note begins; its value is in Hz."""
        return tuple(Moment.of_pitch(note.start, note.hertz) for note in self.notes)


@tool("pitch", "pitch over time: notes, range, rising or falling", version=2, max_duration=120, timeout=120,
      requires=LIBROSA, install=INSTALL)  # fmt: skip
def pitch(clip: Clip, window: Segment | None = None, *, lowest: float = 65.0, highest: float = 4200.0) -> Pitch:
    """Probabilistic YIN (librosa) between `lowest` and `highest` Hz, in steps of 16 ms. One voice at a time: of a
    chord it tells at most one note, or the period that all share.

    Raises:
        InputError: the bounds are reversed or outside 40 to 7,000 Hz.
    """
    from librosa import pyin

    if not 40 <= lowest < highest <= 7000:
        raise InputError(f"pitch: {lowest:g} to {highest:g} Hz; it needs 40 <= lowest < highest <= 7000")
    section = cut(clip, window, least=2 * _FRAME / SAMPLE_RATE)
    # An inaudible dither keeps the autocorrelation of digital silence defined.
    dither = np.random.default_rng(0).normal(0, 1e-6, len(section.samples)).astype(np.float32)
    track, voiced, _ = pyin(
        section.samples + dither, fmin=lowest, fmax=highest, sr=SAMPLE_RATE, frame_length=_FRAME, hop_length=_HOP,
        resolution=0.5,
    )  # fmt: skip
    # What is softer than anything audible has no pitch that matters: rumble of a background, the end of a tail.
    measured = levels(section.samples, _HOP)
    loud = np.append(measured, measured[-1])[: len(track)] >= audible_level(measured, 35.0)
    voiced = voiced[: len(loud)] & loud[: len(voiced)]
    track = track[: len(voiced)]
    frames = min(len(track), 1 + round(section.window.duration * SAMPLE_RATE) // _HOP)
    track, voiced = np.asarray(track[:frames], np.float64), np.asarray(voiced[:frames], bool) & (track[:frames] > 0)
    track = _refined(section.samples, track, voiced)
    found = tuple(_notes(track, voiced, section.start, section.window.end))
    if not found:
        return Pitch(None, None, None, "none", 0.0, ())
    heard = track[voiced]
    low, middle, high = (round(float(value), 1) for value in np.percentile(heard, (5, 50, 95)))
    return Pitch(middle, low, high, _contour(heard), round(float(voiced.mean()), 3), found)


def _notes(track: Floats, voiced: NDArray[np.bool_], offset: float, end: float) -> list[Note]:
    """Stretches that stay near their own mean: rounding frame by frame would tear a note between two names."""
    notes = []
    for first, last in runs(voiced):
        semitones = 12 * np.log2(track[first:last] / 440)
        begin = 0
        for at in range(1, last - first + 1):
            if at < last - first and abs(semitones[at] - semitones[begin:at].mean()) <= _STEADY:
                continue
            if (at - begin) * _HOP / SAMPLE_RATE >= _SHORTEST:
                hertz = round(float(np.median(track[first + begin : first + at])), 1)
                start, stop = (offset + (first + edge) * _HOP / SAMPLE_RATE for edge in (begin, at))
                notes.append(Note(round(start, 2), round(min(stop, end), 2), hertz, note_name(hertz)))
            begin = at
    return notes


def _refined(samples: NDArray[np.float32], track: Floats, voiced: NDArray[np.bool_]) -> Floats:
    """The track with high pitches moved to the spectral peak within 80 cents: of a period of few samples, YIN tells
    up to half a semitone too much."""
    refined = track.copy()
    padded = np.pad(samples, _FRAME // 2)
    step = SAMPLE_RATE / _FFT
    for frame in np.flatnonzero(voiced & (track > _HIGH)):
        part = padded[frame * _HOP : frame * _HOP + _FRAME]
        power = np.abs(np.fft.rfft(part * np.hanning(len(part)), _FFT))
        for multiple in (1, 2, 3):
            low, high = (int(multiple * track[frame] * 2 ** (cents / 1200) / step) for cents in (-80, 80))
            near = power[low : high + 2]
            # A high tone whose period is no whole number of samples is taken for its half or third.
            if high + 2 < len(power) and near.max() >= _PRESENT * power.max():
                peak = low + int(near.argmax())
                if low < peak < high + 1:
                    refined[frame] = peak_between(power, peak) * step
                break
    return refined


def _contour(heard: Floats) -> str:
    """How the pitch goes: by the spread of its semitones and by its ends."""
    steps = 12 * np.log2(heard / heard[0])
    if np.percentile(steps, 95) - np.percentile(steps, 5) < _STEADY:
        return "steady"
    # Every eighth must go the same way, or stay, else it is a melody.
    parts = np.array([np.median(part) for part in np.array_split(steps, min(8, len(steps)))])
    travelled = parts[-1] - parts[0]
    if abs(travelled) < _STEADY or (np.diff(parts) * np.sign(travelled) < -_BACK).any():
        return "varied"
    return "rising" if travelled > 0 else "falling"
