"""How loud a sound is, and until when it is heard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from relisten.audio import SAMPLE_RATE
from relisten.data.synth import biquad, filtered

LEVEL_SAMPLES: Final = SAMPLE_RATE // 20
"""Levels are of 50 ms."""
_FRAME: Final = SAMPLE_RATE // 100
_LEVEL_FRAMES: Final = LEVEL_SAMPLES // _FRAME
_OFFSET_DB: Final = -40.0
_EAR: Final = (biquad("high", 250, 0.5), biquad("high-shelf", 2500, 0.7, 3.0))


@dataclass(frozen=True)
class Levels:
    """Of one sound: its loudest 50 ms, in dB of full scale."""

    plain: float
    weighted: float
    """The same as the ear has it: bass counts less."""
    audible: int
    """Samples until it has decayed by 40 dB."""


def levels_of(samples: NDArray[np.float32]) -> Levels:
    """How loud a sound (n,) is, measured in steps of 10 ms."""
    frames = -(-len(samples) // _FRAME)
    padded = np.zeros((2, frames * _FRAME))
    padded[0, : len(samples)] = samples
    padded[1] = filtered(padded[0], *_EAR)
    energy = (padded.reshape(2, frames, _FRAME) ** 2).mean(2)
    loud = np.flatnonzero(energy[0] > energy[0].max() * 10 ** (_OFFSET_DB / 10))
    audible = min(len(samples), (int(loud[-1]) + 1) * _FRAME)
    plain, weighted = (10 * np.log10(_smoothed(row).max() + 1e-12) for row in energy)
    return Levels(float(plain), float(weighted), audible)


def rms_db(samples: NDArray[np.float32]) -> float:
    """RMS of samples (n,) in dB of full scale; -120 of none."""
    return float(10 * np.log10(np.mean(samples.astype(np.float64) ** 2) + 1e-12)) if len(samples) else -120.0


def _smoothed(energy: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.convolve(energy, np.full(_LEVEL_FRAMES, 1 / _LEVEL_FRAMES))
