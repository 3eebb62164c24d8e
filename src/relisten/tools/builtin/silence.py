"""Where it is silent, and where there is sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from relisten.audio import SAMPLE_RATE, Clip, seconds_to_samples
from relisten.errors import InputError
from relisten.protocol import Segment
from relisten.tools.finding import Finding, Moment, counted, told
from relisten.tools.sections import audible_level, cut, levels, runs
from relisten.tools.tool import tool

_FRAME: Final = 0.02
_CLEAR: Final = 4.0
"""dB over the threshold that a sound must reach somewhere."""


@dataclass(frozen=True)
class Silence(Finding):
    """`silences` are the stretches without sound (seconds from the clip's start), `share` their part of the window,
    `threshold` the level in dB of full scale that told them."""

    silences: tuple[Segment, ...]
    sounds: tuple[Segment, ...]
    share: float
    threshold: float

    def text(self) -> str:
        if not self.sounds:
            return "silence throughout"
        if not self.silences:
            return "sound throughout, no silence"
        longest = max(self.silences, key=lambda part: part.duration)
        quiet = f"{counted(len(self.silences), 'silence')} ({self.share:.0%} of the time)"
        quiet += f", longest {longest.start:.1f} to {longest.end:.1f} s"
        return f"{quiet}; sounds at {told(self.moments())}"

    def moments(self) -> tuple[Moment, ...]:
        """How long each stretch of sound lasts, in seconds."""
        return tuple(Moment.of_length(part.start, part.duration) for part in self.sounds)


@tool("silence", "where it is silent and where there is sound", version=2, max_duration=3600)
def silence(clip: Clip, window: Segment | None = None, *, below: float = 40.0, shortest: float = 0.2) -> Silence:
    """Silent is what lies `below` dB under the loudest 20 ms, or not 6 dB over a steady background, for `shortest`
    seconds or longer.

    Raises:
        InputError: `below` or `shortest` is not above 0.
    """
    if below <= 0 or shortest <= 0:
        raise InputError(f"silence: below {below:g} dB, shortest {shortest:g} s; both must be above 0")
    section = cut(clip, window)
    measured = levels(section.samples, seconds_to_samples(_FRAME))
    threshold = audible_level(measured, below)
    soft = measured < threshold
    for first, last in runs(~soft):
        soft[first:last] = measured[first:last].max() < threshold + _CLEAR
    quiet = np.zeros(len(measured), bool)
    for first, last in runs(soft):
        if (last - first) * _FRAME >= shortest or last - first == len(measured):
            quiet[first:last] = True
    length = len(section.samples) / SAMPLE_RATE

    def segments(flags: np.ndarray) -> tuple[Segment, ...]:
        return tuple(
            Segment(round(section.start + first * _FRAME, 4), round(section.start + min(last * _FRAME, length), 4))
            for first, last in runs(flags)
        )

    return Silence(segments(quiet), segments(~quiet), round(float(quiet.mean()), 3), round(threshold, 1))
