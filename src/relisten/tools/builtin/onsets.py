"""How many sounds start, and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from relisten.audio import Clip
from relisten.errors import InputError
from relisten.protocol import Segment
from relisten.tools.finding import Finding, counted, seconds
from relisten.tools.sections import INSTALL, LIBROSA, cut, find_onsets
from relisten.tools.tool import tool

THRESHOLD: Final = 1.8
"""dB by which the envelope stands out at an onset; chosen on scenes of the training split."""


@dataclass(frozen=True)
class Onsets(Finding):
    times: tuple[float, ...]

    @property
    def count(self) -> int:
        return len(self.times)

    def text(self) -> str:
        return f"{counted(self.count, 'onset')} at {seconds(self.times)}" if self.times else "no onset"


@tool("onsets", "how many sounds start, and when", max_duration=600, timeout=60, requires=LIBROSA, install=INSTALL)
def onsets(clip: Clip, window: Segment | None = None, *, sensitivity: float = 1.0) -> Onsets:
    """Spectral-flux onsets (librosa). `sensitivity` above 1 finds softer ones, below 1 only clear ones.

    Raises:
        InputError: the sensitivity is not above 0.
    """
    if sensitivity <= 0:
        raise InputError(f"onsets: sensitivity is {sensitivity:g}; it must be above 0 (1 is usual)")
    return Onsets(find_onsets(cut(clip, window, around=0.5), THRESHOLD / sensitivity))
