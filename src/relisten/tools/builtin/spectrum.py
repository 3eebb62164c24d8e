"""What the spectrum looks like: centre, bands, strongest frequencies, tone or noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import signal

from relisten.audio import SAMPLE_RATE, Clip
from relisten.protocol import Segment
from relisten.tools.finding import Finding, listed
from relisten.tools.sections import Floats, cut, decibels, peak_between
from relisten.tools.tool import tool

_SIZE: Final = 2048
_LOW: Final = 250.0
_HIGH: Final = 2000.0
_PEAKS: Final = 4
_PROMINENT: Final = 12.0
"""dB by which a strongest frequency stands out of what lies around it."""


@dataclass(frozen=True)
class Spectrum(Finding):
    """Of the mean power spectrum: `centre` is its mean frequency, `rolloff` has 85 % of the power below it, both in
    Hz; `flatness` is 0 for a tone and near 1 for white noise; `low`, `middle`, `high` are the shares of power
    below 250 Hz, up to 2 kHz and above; `peaks` in Hz, strongest first."""

    centre: float
    rolloff: float
    flatness: float
    low: float
    middle: float
    high: float
    peaks: tuple[float, ...]

    def text(self) -> str:
        if self.low + self.middle + self.high == 0:
            return "digital silence"
        kind = "noisy" if self.flatness > 0.3 else "tonal" if self.flatness < 0.03 else "mixed"
        told = f"spectrum centre {self.centre:.0f} Hz, 85 % below {self.rolloff:.0f} Hz, {kind}; below 250 Hz "
        told += f"{self.low:.0%}, to 2 kHz {self.middle:.0%}, above {self.high:.0%}"
        return f"{told}; strongest {listed([f'{peak:.0f}' for peak in self.peaks])} Hz" if self.peaks else told


@tool("spectrum", "bright or dark, tone or noise, strongest frequencies", max_duration=3600)
def spectrum(clip: Clip, window: Segment | None = None) -> Spectrum:
    """Welch's mean power spectrum, in bins of 7.8 Hz."""
    section = cut(clip, window, least=_SIZE / SAMPLE_RATE)
    frequencies, power = signal.welch(section.samples.astype(np.float64), SAMPLE_RATE, nperseg=_SIZE)
    frequencies, power = frequencies[2:], power[2:]  # a constant offset is no sound
    total = float(power.sum())
    if total <= 1e-20:
        return Spectrum(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, ())
    shares = power / total
    cumulated = np.cumsum(shares)
    low, middle = (float(cumulated[np.searchsorted(frequencies, edge, "right") - 1]) for edge in (_LOW, _HIGH))
    return Spectrum(
        centre=round(float(frequencies @ shares), 1),
        rolloff=round(float(frequencies[min(np.searchsorted(cumulated, 0.85), len(frequencies) - 1)]), 1),
        flatness=round(float(np.exp(np.log(shares + 1e-12).mean()) / shares.mean()), 4),
        low=round(low, 3),
        middle=round(middle - low, 3),
        high=round(1 - middle, 3),
        peaks=_peaks(frequencies, shares),
    )


def _peaks(frequencies: Floats, shares: Floats) -> tuple[float, ...]:
    """The strongest prominent peaks, between bins by a parabola through the logarithms."""
    loud = decibels(shares)
    found, traits = signal.find_peaks(loud, prominence=_PROMINENT, height=float(loud.max()) - 30)
    order = np.argsort(-traits["peak_heights"])[:_PEAKS]
    step = float(frequencies[1] - frequencies[0])
    return tuple(round(float(frequencies[0]) + peak_between(shares, int(at)) * step, 1) for at in found[order])
