"""The random source and the building blocks of event synthesis: envelopes, filters, rooms.

Parameters drawn with `Draw.banded` (pitch, decay, length, reverberation time, noise colour) never share a value
between splits:

    a banded range is cut into 18 equal bands (equal in log for log ranges)
    band index % 6      0      1      2           3      4      5
    used by             train  train  validation  train  train  test

so that the held-out bands lie between the training ones and a test sound is new without being outlandish.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from relisten.audio import SAMPLE_RATE
from relisten.errors import InputError

Array = NDArray[np.float64]
T = TypeVar("T")

SPLITS: Final = ("train", "validation", "test")
OTHER_NAMES: Final = {
    "valid": "validation", "val": "validation", "dev": "validation", "eval": "test", "evaluation": "test",
}  # fmt: skip
"""What other sets call these splits."""
BANDS: Final = 18
BAND_OWNER: Final = ("train", "train", "validation", "train", "train", "test")

NYQUIST: Final = SAMPLE_RATE / 2
_TRIM_DB: Final = -60.0
_ONSET_LEVEL: Final = 0.03


@dataclass(frozen=True)
class SynthSound:
    """A dry event: samples (n,) float32 with peak 1, onset at sample 0."""

    samples: NDArray[np.float32]
    pitch: float | None = None
    """Fundamental in Hz, for labels whose pitch is steady."""
    sustained: bool = False
    """True where the sound holds its level and then stops, so that it has a clear length."""


class Draw:
    """Random numbers for one split: plain ranges, and banded ones that differ between the splits."""

    def __init__(self, split: str, rng: np.random.Generator) -> None:
        if split not in SPLITS:
            raise InputError(f"split {split!r} is unknown; use one of {', '.join(SPLITS)}")
        self.rng = rng
        self._bands = [band for band in range(BANDS) if BAND_OWNER[band % len(BAND_OWNER)] == split]

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self.rng.random()

    def log(self, low: float, high: float) -> float:
        return low * math.pow(high / low, self.rng.random())

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def choice(self, items: Sequence[T]) -> T:
        return items[int(self.rng.integers(len(items)))]

    def integer(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def banded(self, low: float, high: float) -> float:
        """Like `uniform`, from this split's own bands of the range."""
        return low + (high - low) * self._position()

    def banded_log(self, low: float, high: float) -> float:
        """Like `log`, from this split's own bands of the range."""
        return low * math.pow(high / low, self._position())

    def noise(self, count: int) -> Array:
        return self.rng.standard_normal(count)

    def _position(self) -> float:
        return (self.choice(self._bands) + self.rng.random()) / BANDS


# Building blocks


def biquad(kind: str, frequency: float, q: float = 0.707, gain_db: float = 0.0) -> Array:
    """One second-order section (6,): low, high, band (peak gain 1), peak, low-shelf or high-shelf."""
    w = 2 * math.pi * min(max(frequency, 10.0), 0.97 * NYQUIST) / SAMPLE_RATE
    cos, alpha = math.cos(w), math.sin(w) / (2 * q)
    a = math.pow(10, gain_db / 40)
    if kind == "low":
        b0, b1, b2 = (1 - cos) / 2, 1 - cos, (1 - cos) / 2
        a0, a1, a2 = 1 + alpha, -2 * cos, 1 - alpha
    elif kind == "high":
        b0, b1, b2 = (1 + cos) / 2, -(1 + cos), (1 + cos) / 2
        a0, a1, a2 = 1 + alpha, -2 * cos, 1 - alpha
    elif kind == "band":
        b0, b1, b2 = alpha, 0.0, -alpha
        a0, a1, a2 = 1 + alpha, -2 * cos, 1 - alpha
    elif kind == "peak":
        b0, b1, b2 = 1 + alpha * a, -2 * cos, 1 - alpha * a
        a0, a1, a2 = 1 + alpha / a, -2 * cos, 1 - alpha / a
    else:
        sign = 1.0 if kind == "low-shelf" else -1.0
        root = 2 * math.sqrt(a) * alpha
        b0 = a * ((a + 1) - sign * (a - 1) * cos + root)
        b1 = sign * 2 * a * ((a - 1) - sign * (a + 1) * cos)
        b2 = a * ((a + 1) - sign * (a - 1) * cos - root)
        a0 = (a + 1) + sign * (a - 1) * cos + root
        a1 = -sign * 2 * ((a - 1) + sign * (a + 1) * cos)
        a2 = (a + 1) + sign * (a - 1) * cos - root
    return np.array([b0, b1, b2, a0, a1, a2]) / a0


def filtered(samples: Array, *sections: Array) -> Array:
    """The samples through second-order sections in series."""
    from scipy import signal  # slow to import, and needless for --help

    result: Array = signal.sosfilt(np.stack(sections), samples)
    return result


def samples_of(seconds: float) -> int:
    """Length of a synthesised buffer, at least 16 samples."""
    return max(16, int(seconds * SAMPLE_RATE))


def clock(count: int) -> Array:
    return np.arange(count) / SAMPLE_RATE


def decay(count: int, tau: float) -> Array:
    """Exponential decay with time constant tau in seconds."""
    return np.exp(clock(count) / -tau)


def edges(count: int, attack: float, release: float) -> Array:
    """A flat envelope with raised-cosine edges, in seconds."""
    envelope = np.ones(count)
    rise, fall = (min(count // 2, max(2, int(t * SAMPLE_RATE))) for t in (attack, release))
    envelope[:rise] = 0.5 - 0.5 * np.cos(np.pi * np.arange(rise) / rise)
    envelope[count - fall :] *= 0.5 + 0.5 * np.cos(np.pi * np.arange(fall) / fall)
    return envelope


def unit(samples: Array) -> Array:
    """Scaled to a peak of 1."""
    return samples / (float(np.abs(samples).max()) + 1e-9)


def finish(samples: Array, pitch: float | None = None, sustained: bool = False) -> SynthSound:
    """Cuts what lies before the audible onset and after -60 dB, and sets the peak to 1."""
    samples = unit(samples)
    loud = np.abs(samples)
    begin = int(np.argmax(loud > _ONSET_LEVEL))
    end = len(loud) - int(np.argmax(loud[::-1] > 10 ** (_TRIM_DB / 20)))
    kept = samples[begin:end].copy()
    fade = min(len(kept) // 4, 80)
    if fade:
        kept[-fade:] *= np.linspace(1, 0, fade)
    return SynthSound(kept.astype(np.float32), pitch, sustained)


def coloured(draw: Draw, samples: Array, amount: float = 1.0) -> Array:
    """Random tone control: shelves, up to two resonances and saturation, as other rooms and recorders would."""
    sections = []
    if draw.chance(0.7):
        sections.append(biquad("low-shelf", draw.log(100, 600), 0.7, amount * draw.uniform(-8, 6)))
    if draw.chance(0.7):
        sections.append(biquad("high-shelf", draw.log(1500, 6000), 0.7, amount * draw.uniform(-10, 8)))
    for _ in range(draw.integer(0, 2)):
        sections.append(biquad("peak", draw.log(120, 6500), draw.log(0.7, 6), amount * draw.uniform(-9, 9)))
    if sections:
        samples = filtered(samples, *sections)
    if draw.chance(0.3):
        samples = np.tanh(unit(samples) * draw.log(1, 6))
    return samples


def in_box(draw: Draw, samples: Array) -> Array:
    """Close room of one drum recording: a short, diffuse tail glued to the hit."""
    from scipy import signal

    tail = samples_of(draw.banded_log(0.03, 0.35))
    response = draw.noise(tail) * decay(tail, tail / SAMPLE_RATE / 5)
    response = filtered(response, biquad("low", draw.log(1500, 7500)))
    response *= draw.log(0.05, 0.5) / (np.linalg.norm(response) + 1e-9)
    response[0] += 1.0
    wet: Array = signal.fftconvolve(samples, response)
    return wet
