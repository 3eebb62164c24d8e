"""Where somebody speaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from relisten.audio import SAMPLE_RATE, Clip
from relisten.errors import InputError
from relisten.protocol import Segment
from relisten.tools.finding import Finding, counted, listed
from relisten.tools.sections import INSTALL, cut, runs
from relisten.tools.tool import tool

_FRAME: Final = SAMPLE_RATE * 30 // 1000
_SHORTEST: Final = 0.15
_BRIDGED: Final = 0.3
"""Seconds; shorter pauses belong to the speech around them."""
_LEVEL: Final = 0.5
"""Peak that quiet recordings are raised to; the detector expects a close microphone."""


@dataclass(frozen=True)
class Voice(Finding):
    """`spoken` in seconds from the clip's start; `share` is their part of the window."""

    spoken: tuple[Segment, ...]
    share: float

    def text(self) -> str:
        if not self.spoken:
            return "no voice"
        told = listed([f"{part.start:.2f}-{part.end:.2f}" for part in self.spoken], 10)
        return f"voice in {self.share:.0%} of the time, {counted(len(self.spoken), 'part')}: {told} s"


@tool("voice", "where somebody speaks", max_duration=3600, requires=("webrtcvad",), install=INSTALL)
def voice(clip: Clip, window: Segment | None = None, *, strictness: int = 3) -> Voice:
    """WebRTC's voice activity detector in frames of 30 ms; `strictness` 0 (keeps most) to 3. Made for calls: music
    and machines with a voice's spectrum are often taken for one.

    Raises:
        InputError: the strictness is not 0 to 3.
    """
    import webrtcvad

    if strictness not in (0, 1, 2, 3):
        raise InputError(f"voice: strictness is {strictness}; it must be 0, 1, 2 or 3")
    section = cut(clip, window)
    peak = float(np.abs(section.samples).max())
    if peak < 1e-4:
        return Voice((), 0.0)
    gain = max(1.0, min(_LEVEL / peak, 30.0))
    count = -(-len(section.samples) // _FRAME)
    padded = np.zeros(count * _FRAME, np.int16)
    padded[: len(section.samples)] = np.clip(section.samples * (gain * 32767), -32768, 32767).astype(np.int16)
    detector = webrtcvad.Vad(strictness)
    flags = np.array([detector.is_speech(frame.tobytes(), SAMPLE_RATE) for frame in padded.reshape(count, _FRAME)])
    step = _FRAME / SAMPLE_RATE
    for first, last in runs(~flags):
        if first > 0 and last < count and (last - first) * step <= _BRIDGED:
            flags[first:last] = True
    spoken = tuple(
        Segment(
            round(section.start + first * step, 4), round(min(section.start + last * step, section.window.end), 4)
        )
        for first, last in runs(flags)
        if (last - first) * step >= _SHORTEST
    )
    return Voice(spoken, round(sum(part.duration for part in spoken) / section.window.duration, 3))
