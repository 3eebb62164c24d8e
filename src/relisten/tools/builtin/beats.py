"""Tempo and beats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from relisten.audio import SAMPLE_RATE, Clip
from relisten.errors import InputError
from relisten.protocol import Segment
from relisten.tools.finding import Finding, counted, seconds
from relisten.tools.sections import HOP, INSTALL, LIBROSA, Floats, cut, onset_envelope
from relisten.tools.tool import tool

_SHORTEST: Final = 2.0
_CLEAR: Final = 0.3
"""Autocorrelation of the onset envelope from which on a tempo is worth telling."""


@dataclass(frozen=True)
class Beats(Finding):
    """`tempo` in beats a minute, None where nothing repeats regularly."""

    tempo: float | None
    regularity: float
    """How alike the onsets are one beat later: 0 not at all, 1 exactly."""
    times: tuple[float, ...]

    def text(self) -> str:
        if self.tempo is None:
            return "no regular beat"
        word = "very regular" if self.regularity > 0.7 else "regular" if self.regularity > 0.45 else "uncertain"
        found = f"{counted(len(self.times), 'beat')} at {seconds(self.times)}"
        return f"tempo {self.tempo:.0f} beats a minute ({word}); {found}"


@tool("beats", "tempo and beats", max_duration=600, timeout=60, requires=LIBROSA, install=INSTALL)
def beats(clip: Clip, window: Segment | None = None, *, expected: float = 120.0) -> Beats:
    """Dynamic-programming beats (librosa). `expected` is the tempo that is likely beforehand; the tempo found may
    be half or double of what somebody would tap.

    Raises:
        InputError: the expected tempo is not 30 to 300.
    """
    from librosa.beat import beat_track

    if not 30 <= expected <= 300:
        raise InputError(f"beats: expected is {expected:g} beats a minute; it must be 30 to 300")
    section = cut(clip, window)
    if section.window.duration < _SHORTEST or not section.samples.any():
        return Beats(None, 0.0, ())
    envelope = onset_envelope(section.samples)
    tempo, frames = beat_track(
        onset_envelope=envelope, sr=SAMPLE_RATE, hop_length=HOP, start_bpm=expected, trim=False
    )
    found = float(np.atleast_1d(tempo)[0])
    if found <= 0 or len(frames) < 2:
        return Beats(None, 0.0, ())
    regularity = _regularity(envelope, 60 / found)
    if regularity < _CLEAR:
        return Beats(None, round(regularity, 2), ())
    # The tempo of the beats themselves is finer than that of the grid they were looked for on.
    spacing = float(np.median(np.diff(frames))) * HOP / SAMPLE_RATE
    exact = 60 / spacing if abs(60 / spacing / found - 1) < 0.08 else found
    return Beats(round(exact, 1), round(regularity, 2), section.inside(np.asarray(frames) * HOP / SAMPLE_RATE))


def _regularity(envelope: Floats, period: float) -> float:
    """Normalised autocorrelation of the envelope about one period later; 0 where the clip is shorter."""
    centred = np.convolve(envelope, np.hanning(7) / np.hanning(7).sum(), "same")
    centred = centred - centred.mean()
    power = float(centred @ centred)
    lag = round(period * SAMPLE_RATE / HOP)
    if power == 0 or lag + 3 >= len(centred):
        return 0.0
    values = []
    for shift in range(max(1, lag - 2), lag + 3):
        early, late = centred[:-shift], centred[shift:]
        norm = float(np.sqrt((early @ early) * (late @ late)))
        values.append(float(early @ late) / norm if norm else 0.0)
    return float(np.clip(max(values), 0, 1))
