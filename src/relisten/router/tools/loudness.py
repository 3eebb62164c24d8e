"""Loudness over time, and dynamics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from relisten.audio import Clip, seconds_to_samples
from relisten.protocol import Segment
from relisten.router.finding import Finding
from relisten.router.sections import QUIETEST, cut, decibels, levels
from relisten.router.tool import tool

_FRAME: Final = 0.05
_PARTS: Final = 8
_TREND: Final = 6.0
"""dB from the first to the last quarter that count as getting louder or softer."""


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

    def text(self) -> str:
        if self.peak <= QUIETEST:
            return "digital silence"
        told = f"level {self.level:.0f} dB (peak {self.peak:.0f}), loudest {self.loudest:.0f} dB at "
        told += f"{self.loudest_at:.2f} s, softest {self.softest:.0f} dB at {self.softest_at:.2f} s"
        parts = " ".join(f"{part:.0f}" for part in self.parts)
        course = "even" if self.trend == "even" else f"getting {self.trend}"
        return f"{told}; {course}; equal parts {parts} dB"


@tool("loudness", "how loud it is over time, loudest and softest moments", max_duration=3600)
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
    )


def _level(samples: np.ndarray) -> float:
    return round(float(decibels(np.mean(samples**2, keepdims=True))[0]), 1) if len(samples) else QUIETEST
