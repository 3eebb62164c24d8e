"""Key and chords."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np

from relisten.audio import SAMPLE_RATE, Clip
from relisten.protocol import Segment
from relisten.tools.finding import Finding, listed
from relisten.tools.sections import INSTALL, LIBROSA, Floats, cut, pitch_class, runs
from relisten.tools.tool import tool

_HOP: Final = 1024
_STAY: Final = 0.97
"""Chance that a chord goes on for another 64 ms."""
_SHARP: Final = 8.0
"""How decided a frame's match with a chord is taken to be."""
_SHORTEST: Final = 0.2
_FLAT: Final = 0.12
"""Spread of the chroma below which nothing sounds as notes do."""
# Krumhansl and Kessler (1982): how well each degree fits into a key.
_MAJOR: Final = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_MINOR: Final = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)


@dataclass(frozen=True)
class Chord:
    """A chord and where it sounds, in seconds from the clip's start."""

    start: float
    end: float
    name: str


@dataclass(frozen=True)
class Harmony(Finding):
    """`key` such as "A minor", None where nothing has notes."""

    key: str | None
    confidence: float
    """Correlation of the key's profile with what sounds, -1 to 1."""
    chords: tuple[Chord, ...]

    def text(self) -> str:
        if self.key is None:
            return "no notes"
        chords = listed([f"{chord.name} {chord.start:.1f} s" for chord in self.chords]) or "none"
        return f"key {self.key} (fit {self.confidence:.2f}); chords {chords}"


@tool("harmony", "key and chords", max_duration=300, timeout=90, requires=LIBROSA, install=INSTALL)
def harmony(clip: Clip, window: Segment | None = None) -> Harmony:
    """Constant-Q chroma (librosa): the key whose profile fits best, and major and minor triads, smoothed over time.
    Relative keys (C major, A minor) share their notes and are easily taken for one another."""
    from librosa.feature import chroma_cqt

    section = cut(clip, window, least=1.0)
    level = float(np.abs(section.samples).max())
    if level < 1e-5:
        return Harmony(None, 0.0, ())
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # short clips: filters longer than the sound are padded, and librosa says so
        chroma = np.asarray(
            chroma_cqt(
                y=section.samples / level, sr=SAMPLE_RATE, hop_length=_HOP, norm=None, n_octaves=6, tuning=0.0
            ),
            np.float64,
        )
    frames = min(chroma.shape[1], 1 + round(section.window.duration * SAMPLE_RATE) // _HOP)
    chroma = chroma[:, :frames]
    total = chroma.sum(1)
    if total.sum() == 0 or (total / total.sum()).std() * 12 < _FLAT * 2:
        return Harmony(None, 0.0, ())
    fits = np.array([
        np.corrcoef(total, np.roll(profile, root))[0, 1] for profile in (_MAJOR, _MINOR) for root in range(12)
    ])  # fmt: skip
    best = int(fits.argmax())
    key = f"{pitch_class(best)} {'major' if best < 12 else 'minor'}"
    return Harmony(key, round(float(fits[best]), 2), tuple(_chords(chroma, section.start, section.window.end)))


def _chords(chroma: Floats, offset: float, end: float) -> list[Chord]:
    from librosa.sequence import transition_loop, viterbi_discriminative

    templates = np.zeros((25, 12))
    for root in range(12):
        templates[root, [root, (root + 4) % 12, (root + 7) % 12]] = 1
        templates[12 + root, [root, (root + 3) % 12, (root + 7) % 12]] = 1
    templates[24] = 1  # no chord: everything alike
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    norms = np.linalg.norm(chroma, axis=0)
    loud = norms > 0.05 * norms.max()
    fit = templates @ np.where(loud, chroma / np.maximum(norms, 1e-12), templates[24][:, None])
    likely = np.exp(_SHARP * fit)
    path = viterbi_discriminative(likely / likely.sum(0), transition_loop(25, _STAY))
    found = []
    for number in range(24):
        name = pitch_class(number) + ("" if number < 12 else "m")
        for first, last in runs(path == number):
            if (last - first) * _HOP / SAMPLE_RATE >= _SHORTEST:
                begin, stop = (offset + frame * _HOP / SAMPLE_RATE for frame in (first, last))
                found.append(Chord(round(begin, 2), round(min(stop, end), 2), name))
    return sorted(found, key=lambda chord: chord.start)
