"""Which sounds come again, and when."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

from relisten.audio import SAMPLE_RATE, Clip, seconds_to_samples
from relisten.errors import InputError
from relisten.protocol import Segment
from relisten.tools.builtin.onsets import THRESHOLD
from relisten.tools.finding import Finding, counted, listed
from relisten.tools.sections import HOP, INSTALL, LIBROSA, Floats, cut, decibels, find_onsets
from relisten.tools.tool import tool

_LONGEST: Final = 0.3
"""Seconds of a sound that are compared."""
_BANDS: Final = 40
_PARTS: Final = 4
"""Times within a sound at which its spectrum is compared."""
_ALIKE: Final = 7.0
"""dB of mean spectral difference up to which two sounds are one kind; chosen on scenes of the training split."""
_MOST: Final = 400
"""Onsets compared at most: pairs grow with the square."""


@dataclass(frozen=True)
class Kind(Finding):
    """Sounds that are alike; onsets in seconds from the clip's start."""

    times: tuple[float, ...]

    def text(self) -> str:
        return listed([f"{time:.2f}" for time in self.times], 12)


@dataclass(frozen=True)
class Repeats(Finding):
    """Kinds of sound, that with most events first, and the order in which they come ("ABAB"; at most 26 kinds have
    a letter)."""

    kinds: tuple[Kind, ...]
    order: str

    def text(self) -> str:
        total = sum(len(kind.times) for kind in self.kinds)
        if not total:
            return "no sound to compare"
        again = [kind for kind in self.kinds if len(kind.times) > 1]
        told = f"{counted(total, 'sound')} of {counted(len(self.kinds), 'kind')}, in the order {self.order[:40]}"
        if not again:
            return f"{told}; none comes twice"
        parts = [f"{_letter(at)} {len(kind.times)} times ({kind.text()} s)" for at, kind in enumerate(again)]
        return f"{told}; {'; '.join(parts[:4])}"


@tool(
    "repeats", "which sounds come again, and when", max_duration=300, timeout=60, requires=LIBROSA, install=INSTALL
)
def repeats(clip: Clip, window: Segment | None = None, *, tolerance: float = 1.0) -> Repeats:
    """Sounds from each onset on (0.3 s, or until the next one) as mel spectra without their overall level, grouped
    by average linkage. `tolerance` above 1 takes more for alike.

    Raises:
        InputError: the tolerance is not above 0, or there are more than 400 onsets.
    """
    if tolerance <= 0:
        raise InputError(f"repeats: tolerance is {tolerance:g}; it must be above 0 (1 is usual)")
    section = cut(clip, window, around=0.5)
    times = find_onsets(section, THRESHOLD)
    if len(times) > _MOST:
        raise InputError(f"repeats: {len(times)} onsets; it compares at most {_MOST}. Give a shorter window")
    if len(times) < 2:
        return Repeats(tuple(Kind((time,)) for time in times), "A" * len(times))
    ends = [*times[1:], times[-1] + _LONGEST]
    traits = [_trait(clip, time, end) for time, end in zip(times, ends, strict=True)]
    distances = [
        float(np.abs(traits[one] - traits[other]).mean())
        for one in range(len(traits))
        for other in range(one + 1, len(traits))
    ]
    labels = fcluster(linkage(distances, "average"), _ALIKE * tolerance, "distance")
    groups = [[at for at, label in enumerate(labels) if label == number] for number in np.unique(labels)]
    groups.sort(key=lambda group: (-len(group), group[0]))
    order = [""] * len(times)
    for number, group in enumerate(groups):
        for at in group:
            order[at] = _letter(number)
    return Repeats(tuple(Kind(tuple(times[at] for at in group)) for group in groups), "".join(order))


def _trait(clip: Clip, start: float, end: float) -> Floats:
    """Mel spectra of `_PARTS` equal stretches in dB against the sound's loudest band, at most 40 dB down:
    shape (_PARTS, _BANDS)."""
    from librosa.feature import melspectrogram

    first = seconds_to_samples(max(0.0, start - 0.01))
    samples = np.zeros(seconds_to_samples(_LONGEST), np.float32)
    part = clip.samples[first : min(seconds_to_samples(end - 0.03), first + len(samples))]
    samples[: len(part)] = part
    power = melspectrogram(y=samples, sr=SAMPLE_RATE, n_fft=512, hop_length=HOP, n_mels=_BANDS, fmin=50.0)
    frames = max(_PARTS, round(len(part) / HOP))
    # The beginning tells most: stretches grow as 1, 2, 4, 8.
    edges = np.unique(np.round(np.array([0, 1, 3, 7, 15]) / 15 * min(frames, power.shape[1])).astype(int))
    columns = [power[:, a:b].mean(1) for a, b in itertools.pairwise(edges)]
    columns += [columns[-1]] * (_PARTS - len(columns))
    loud = decibels(np.stack(columns).astype(np.float64))
    return np.asarray(np.maximum(loud - loud.max(), -40.0), np.float64)


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else "?"
