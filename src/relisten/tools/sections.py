"""What several tools do with sound: cut out a window with its surroundings, levels, onsets, note names.

librosa is imported where it is used: it is optional, and takes its time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from relisten.audio import SAMPLE_RATE, Clip, seconds_to_samples
from relisten.protocol import Segment

Floats = NDArray[np.float64]
LIBROSA: Final = ("librosa.onset", "librosa.beat", "librosa.feature", "librosa.sequence")
INSTALL: Final = 'pip install "relisten[tools]"'
HOP: Final = 160
"""Samples between two values of the onset envelope: 10 ms."""
_LEVEL_FRAME: Final = 320
QUIETEST: Final = -100.0
"""dB of full scale that stand for silence."""
_ABOVE_NOISE: Final = 6.0
_STEADY: Final = 12.0
"""dB from the softest to the loudest frames below which a sound is one thing throughout."""
_ABSOLUTE: Final = -70.0
_NAMES: Final = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


@dataclass(frozen=True)
class Section:
    """The samples of a window, with what comes before and after it."""

    samples: NDArray[np.float32]
    start: float
    """Where the first sample stands in the clip, in seconds; below 0 where silence was put in front."""
    window: Segment

    def inside(self, times: Floats) -> tuple[float, ...]:
        """Times of the section as times of the clip, those in the window, rounded to 0.01 s."""
        placed = times + self.start
        kept = placed[(placed >= self.window.start) & (placed < self.window.end)]
        return tuple(round(float(time), 2) for time in kept)


def cut(clip: Clip, window: Segment | None, around: float = 0.0, least: float = 0.0) -> Section:
    """The window (None: the whole clip) with `around` seconds before and after it, so that its edges are no
    events; silence where the clip has no more, and at the end until there are `least` seconds."""
    window = window or Segment(0.0, clip.duration)
    margin = seconds_to_samples(around)
    first, last = seconds_to_samples(window.start) - margin, seconds_to_samples(window.end) + margin
    samples = clip.samples[max(first, 0) : last]
    before = max(-first, 0)
    behind = max(0, last - clip.num_samples, seconds_to_samples(least) - len(samples) - before)
    return Section(np.pad(samples, (before, behind)), first / SAMPLE_RATE, window)


def levels(samples: NDArray[np.float32], frame: int) -> Floats:
    """RMS of consecutive frames in dB of full scale: (ceil(n / frame),); the last frame counts what it has."""
    count = -(-len(samples) // frame)
    padded = np.zeros(count * frame)
    padded[: len(samples)] = samples
    sizes = np.full(count, float(frame))
    sizes[-1] = len(samples) - (count - 1) * frame
    return decibels((padded.reshape(count, frame) ** 2).sum(1) / sizes)


def audible_level(measured: Floats, below: float = 40.0) -> float:
    """The level in dB from which on something is there: `below` dB under the loudest frame, and 6 dB over a steady
    background where something stands out of one."""
    loud, background = float(measured.max()), float(np.percentile(measured, 10))
    floor = background + _ABOVE_NOISE if loud - background > _STEADY else -np.inf
    return max(_ABSOLUTE, loud - below, floor)


def decibels(power: Floats) -> Floats:
    """10 log10, silence at `QUIETEST`."""
    return 10 * np.log10(np.maximum(power, 10 ** (QUIETEST / 10)))


def onset_envelope(samples: NDArray[np.float32]) -> Floats:
    """How much louder it gets, in dB averaged over mel bands, every `HOP` samples: shape (1 + n // HOP,)."""
    from librosa.onset import onset_strength

    return np.asarray(
        onset_strength(
            y=samples, sr=SAMPLE_RATE, hop_length=HOP, n_fft=512, n_mels=64, lag=2, max_size=3, center=True
        ),
        np.float64,
    )


def find_onsets(section: Section, threshold: float) -> tuple[float, ...]:
    """Onsets in the window: peaks of the envelope that stand `threshold` dB above their surroundings."""
    from librosa.onset import onset_detect

    if not section.samples.any():
        return ()
    times = onset_detect(
        onset_envelope=onset_envelope(section.samples),
        sr=SAMPLE_RATE,
        hop_length=HOP,
        normalize=False,
        delta=threshold,
        wait=7,
        units="time",
    )
    found = np.asarray(times, np.float64)
    # Silence put in front makes any background start at the clip's start; an event there must stand out of it.
    at_start = np.abs(found + section.start) < 0.03
    if at_start.any() and section.start < 0:
        measured = levels(section.samples[seconds_to_samples(-section.start) :], _LEVEL_FRAME)
        if measured[:3].max() < audible_level(measured):
            found = found[~at_start]
    return section.inside(np.maximum(found, -section.start) if section.start < 0 else found)


def peak_between(power: Floats, at: int) -> float:
    """The place of the peak at index `at`, between indices, by a parabola through the logarithms."""
    left, here, right = np.log(power[at - 1 : at + 2] + 1e-30)
    bend = left - 2 * here + right
    return at + (0.5 * float((left - right) / bend) if bend < 0 else 0.0)


def note_name(hertz: float) -> str:
    """The nearest note of equal temperament (A4 = 440 Hz): "F#3"."""
    number = round(69 + 12 * np.log2(hertz / 440))
    return f"{_NAMES[number % 12]}{number // 12 - 1}"


def pitch_class(number: int) -> str:
    """0 is C."""
    return _NAMES[number % 12]


def runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(first, behind the last) of every run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]
