"""Loudness over time, and dynamics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from relisten.audio import Clip, seconds_to_samples
from relisten.protocol import Segment
from relisten.tools.finding import Finding, Moment, told
from relisten.tools.sections import QUIETEST, audible_level, cut, decibels, levels
from relisten.tools.tool import tool

_FRAME: Final = 0.05
_PARTS: Final = 8
_STEP: Final = 0.02
_RISE: Final = 6.0
"""dB within 60 ms that make a sudden rise."""
_APART: Final = 4
_BEHIND: Final = 12
"""Steps of 20 ms between rises at least, and that count for the level of one."""
_TREND: Final = 6.0
"""dB from the first to the last quarter that count as getting louder or softer."""


@dataclass(frozen=True)
class Rise:
    """A sudden rise: when it begins, and the loudest 50 ms of the quarter second behind it."""

    at: float
    level: float


@dataclass(frozen=True)
class Loudness(Finding):
    """Levels in dB of full scale: RMS over the window, the highest sample, the loudest and the softest 50 ms and
    when these are; RMS of eight equal parts; where it goes from the first to the last quarter."""

    level: float
    peak: float
    loudest: float
    loudest_at: float
    softest: float
    softest_at: float
    parts: tuple[float, ...]
    trend: str
    """"louder", "softer" or "even"."""
    rises: tuple[Rise, ...]
    """Where it suddenly gets louder, as sounds do when they begin."""

    def text(self) -> str:
        if self.peak <= QUIETEST:
            return "digital silence"
        overall = f"level {self.level:.0f} dB (peak {self.peak:.0f}), loudest {self.loudest:.0f} dB at "
        overall += f"{self.loudest_at:.1f} s, softest {self.softest:.0f} dB at {self.softest_at:.1f} s"
        course = "even" if self.trend == "even" else f"getting {self.trend}"
        rises = f"; rises at {told(self.moments())}" if self.rises else ""
        return f"{overall}; {course}{rises}"

    def moments(self) -> tuple[Moment, ...]:
        """The level behind each rise, in dB."""
        return tuple(Moment.of_level(rise.at, rise.level) for rise in self.rises)


@tool("loudness", "how loud it is over time, loudest and softest moments", version=2, max_duration=3600)
def loudness(clip: Clip, window: Segment | None = None) -> Loudness:
    """RMS levels without weighting for the ear."""
    section = cut(clip, window)
    samples = section.samples
    frames = levels(samples, seconds_to_samples(_FRAME))
    whole = frames[:-1] if len(frames) > 1 else frames  # the last frame may hold few samples
    parts = [part for part in np.array_split(samples.astype(np.float64), _PARTS) if len(part)]
    ends = np.array_split(samples.astype(np.float64), 4)
    first, last = _level(ends[0]), _level(ends[-1])
    difference = last - first if len(ends[-1]) else 0.0
    loudest, softest = int(whole.argmax()), int(whole.argmin())
    return Loudness(
        level=_level(samples.astype(np.float64)),
        peak=round(float(decibels(np.square(np.abs(samples).max(keepdims=True).astype(np.float64)))[0]), 1),
        loudest=round(float(whole[loudest]), 1),
        loudest_at=round(section.start + (loudest + 0.5) * _FRAME, 2),
        softest=round(float(whole[softest]), 1),
        softest_at=round(section.start + (softest + 0.5) * _FRAME, 2),
        parts=tuple(_level(part) for part in parts),
        trend="louder" if difference > _TREND else "softer" if difference < -_TREND else "even",
        rises=tuple(_rises(samples, section.start)),
    )


def _rises(samples: NDArray[np.float32], start: float) -> Iterator[Rise]:
    """Rises by `_RISE` dB within 60 ms to what is audible, at least 80 ms apart."""
    fine = levels(samples, seconds_to_samples(_STEP))
    coarse = np.convolve(10 ** (fine / 10), np.full(3, 1 / 3), "same")
    audible = audible_level(fine)
    before = np.full(len(fine) + 3, QUIETEST)
    before[3:] = fine
    lowest = np.minimum(np.minimum(before[:-3], before[1:-2]), before[2:-1])
    last = -_APART
    for at in np.flatnonzero((fine >= audible) & (fine - lowest >= _RISE)):
        if at - last >= _APART:
            last = int(at)
            loudest = float(decibels(coarse[at : at + _BEHIND].max(keepdims=True))[0])
            yield Rise(round(start + int(at) * _STEP, 2), round(loudest, 1))


def _level(samples: np.ndarray) -> float:
    return round(float(decibels(np.mean(samples**2, keepdims=True))[0]), 1) if len(samples) else QUIETEST
