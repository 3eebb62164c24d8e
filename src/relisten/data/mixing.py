"""Scenes mixed from recordings: a folder of sounds, one sub-folder a label, over backgrounds that loop.

What is random about a clip follows from (seed, split, index) alone. Every foreground is cut down to what can be
heard (-34 dB of its loudest 10 ms), changed in pitch and length within bounds, set to a gain, and placed; its onset
and offset are those of the cut sound, exact to 10 ms.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import soxr
from numpy.typing import NDArray

from relisten.audio import SAMPLE_RATE, SOUND_ENDINGS, Clip, seconds_to_samples
from relisten.data.manifest import LabelledEvent
from relisten.errors import InputError

RESOLUTION: Final = 0.01
_FRAME: Final = SAMPLE_RATE // 100
_AUDIBLE_DB: Final = -34.0
_HELD_DB: Final = -15.0
_FADE: Final = 80
_TRIES: Final = 40
_FEWEST: Final = 5
_CACHED: Final = 64

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class MixSpec:
    """What mixed scenes are like; ranges are (lowest, highest).

    Raises:
        InputError: for a range that is reversed or out of bounds.
    """

    duration: tuple[float, float] = (6.0, 12.0)
    events: tuple[int, int] = (1, 7)
    gain: tuple[float, float] = (-12.0, 0.0)
    """dB of single events against one another."""
    snr: tuple[float, float] = (6.0, 30.0)
    """dB of the softest event over the background."""
    pitch: tuple[float, float] = (-2.0, 2.0)
    """Semitones."""
    stretch: tuple[float, float] = (0.9, 1.1)
    """Factor of length, the pitch staying as it is."""
    longest: float = 0.6
    """Longest an event may be, as a part of its clip; longer recordings are cut."""
    gap: float = 0.15
    """Smallest distance between two onsets, and between two events of one label, in seconds."""

    def __post_init__(self) -> None:
        bounds = {
            "duration": (1, 600), "events": (1, 100), "gain": (-60, 20), "snr": (-10, 80), "pitch": (-12, 12),
            "stretch": (0.5, 2),
        }  # fmt: skip
        for name, (least, most) in bounds.items():
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise InputError(
                    f"mix {name} {low:g} to {high:g}: give two numbers in order within {least} to {most}"
                )


@dataclass(frozen=True)
class Sources:
    """The recordings to mix from: sound files by label, and backgrounds; relative to their folders, sorted."""

    folder: Path
    labels: Mapping[str, tuple[str, ...]]
    background_folder: Path | None = None
    backgrounds: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Changes when files come, go, or change in size."""
        files = [f"{label}/{name}" for label, names in sorted(self.labels.items()) for name in names]
        sizes = [(self.folder / name).stat().st_size for name in files]
        if self.background_folder is not None:
            files += self.backgrounds
            sizes += [(self.background_folder / name).stat().st_size for name in self.backgrounds]
        return hashlib.sha256(repr(list(zip(files, sizes, strict=True))).encode()).hexdigest()[:16]

    def of_split(self, split: str) -> Sources:
        """The part that belongs to a split: files of a label with at least 5 are dealt out 8 : 1 : 1,
        at least one to each.

        A label with fewer files would leave splits without it, so all of its files serve all of them.
        """
        labels = {label: _dealt(names, split) for label, names in self.labels.items()}
        return Sources(self.folder, labels, self.background_folder, _dealt(self.backgrounds, split))


def find_sources(folder: Path | None, backgrounds: Path | None) -> Sources:
    """The recordings under a folder whose sub-folders are named after labels, and those to loop behind them.

    Raises:
        InputError: a folder is missing or holds no sound.
    """
    labels = {} if folder is None else _labels(folder)
    found = () if backgrounds is None else _sounds(backgrounds)
    if backgrounds is not None and not found:
        raise InputError(f"{backgrounds}: holds no sound; name a folder of background recordings")
    return Sources(folder or Path(), labels, backgrounds, found)


def _labels(folder: Path) -> dict[str, tuple[str, ...]]:
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; name one whose sub-folders hold the sounds of one label each")
    labels = {
        child.name: found
        for child in sorted(folder.iterdir())
        if child.is_dir() and not child.name.startswith(".") and (found := _sounds(child))
    }
    if not labels:
        raise InputError(f"{folder}: no sub-folder holds a sound; lay sounds out as LABEL/file.wav")
    return labels


def _sounds(folder: Path) -> tuple[str, ...]:
    return tuple(
        sorted(
            Path(parent, name).relative_to(folder).as_posix()
            for parent, _, names in os.walk(folder)
            for name in names
            if Path(name).suffix.lower() in SOUND_ENDINGS and not name.startswith(".")
        )
    )


def _dealt(names: tuple[str, ...], split: str) -> tuple[str, ...]:
    if len(names) < _FEWEST:
        return names
    order = tuple(sorted(names, key=lambda name: hashlib.sha256(os.fsencode(name)).digest()))
    # A few files leave one each for the others, and train the rest.
    validation = min(round(0.8 * len(order)), len(order) - 2)
    test = min(round(0.9 * len(order)), len(order) - 1)
    return {"train": order[:validation], "validation": order[validation:test], "test": order[test:]}[split]


@dataclass(frozen=True)
class Mixed:
    """A finished mix and its exact labels."""

    samples: Samples
    events: tuple[LabelledEvent, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    """Recordings that could not be used, and why; the clip does without them."""


@dataclass(frozen=True)
class PlacedSound:
    """Samples to add to a clip, and the second at which they start."""

    samples: Samples
    onset: float


def mix_scene(
    sources: Sources, spec: MixSpec, rng: np.random.Generator, speech: Sequence[PlacedSound] = ()
) -> Mixed:
    """One clip: foregrounds at random over a background, and over speech that is already placed."""
    least = max((placed.onset + len(placed.samples) / SAMPLE_RATE + 0.3 for placed in speech), default=0.0)
    duration = round(max(float(rng.uniform(*spec.duration)), least), 1)
    total = seconds_to_samples(duration)
    dry = np.zeros(total, np.float32)
    for placed in speech:
        add(dry, placed.samples, seconds_to_samples(placed.onset))
    levels = [loudness(placed.samples) for placed in speech]
    events: list[LabelledEvent] = []
    used: set[str] = set()
    problems: list[str] = []
    for label, name in _cast(sources, spec, rng):
        try:
            sound = _varied(load_trimmed(sources.folder / name), spec, duration, rng)
        except InputError as error:
            problems.append(str(error))
            continue
        onset = _free_place(events, label, len(sound) / SAMPLE_RATE, duration, spec, rng)
        if onset is None:
            continue
        gain = float(rng.uniform(*spec.gain))
        begin = seconds_to_samples(onset)
        add(dry, sound * np.float32(10 ** (gain / 20)), begin)
        events.append(
            LabelledEvent(
                onset=round(begin / SAMPLE_RATE, 4),
                offset=round(min(total, begin + len(sound)) / SAMPLE_RATE, 4),
                label=label,
                sustained=loudness(sound[-6 * _FRAME :]) >= loudness(sound) + _HELD_DB,
            )
        )
        levels.append(loudness(sound) + gain)
        used.add(name)
    noise, background = _background(sources, total, rng, problems)
    floor = min(levels, default=-20.0) - float(rng.uniform(*spec.snr))
    mixed = dry + noise * np.float32(10 ** (floor / 20))
    mixed *= np.float32(10 ** (float(rng.uniform(-20, -1)) / 20)) / np.float32(np.abs(mixed).max() + 1e-9)
    return Mixed(
        mixed,
        tuple(sorted(events, key=lambda event: (event.onset, event.offset, event.label))),
        metadata={
            **({"recordings": sorted(used)} if used else {}),
            **({"background": background} if background else {}),
        },
        problems=tuple(problems),
    )


def _cast(sources: Sources, spec: MixSpec, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Labels and files of the sounds of one clip: few labels, so that some come again."""
    names = list(sources.labels)
    if not names:
        return []
    few = [names[int(i)] for i in rng.permutation(len(names))[: int(rng.integers(1, min(5, len(names)) + 1))]]
    cast = []
    for _ in range(int(rng.integers(spec.events[0], spec.events[1] + 1))):
        label = few[int(rng.integers(len(few)))]
        files = sources.labels[label]
        cast.append((label, f"{label}/{files[int(rng.integers(len(files)))]}"))
    return cast


def add(into: Samples, sound: Samples, begin: int) -> None:
    """Add a sound at a sample; what lies past the end is cut with a short fade."""
    part = sound[: len(into) - begin]
    if len(part) < len(sound):
        part = part.copy()
        fade = min(_FADE, len(part))
        part[len(part) - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
    into[begin : begin + len(part)] += part


def loudness(samples: Samples) -> float:
    """Loudest 50 ms, RMS in dB."""
    frames = -(-len(samples) // _FRAME)
    padded = np.pad(samples.astype(np.float64), (0, frames * _FRAME - len(samples)))
    energy = (padded.reshape(frames, _FRAME) ** 2).mean(1)
    window = min(5, frames)
    return float(10 * np.log10(np.convolve(energy, np.full(window, 1 / window), "valid").max() + 1e-12))


def trim(samples: Samples, name: str) -> Samples:
    """What can be heard of a sound, peak 1, with 5 ms fades.

    Raises:
        InputError: it is silent.
    """
    frames = -(-len(samples) // _FRAME)
    padded = np.pad(samples, (0, frames * _FRAME - len(samples)))
    energy = (padded.reshape(frames, _FRAME).astype(np.float64) ** 2).mean(1)
    if energy.max() < 1e-10:
        raise InputError(f"{name}: is silent; take it out of the folder")
    loud = np.flatnonzero(energy > energy.max() * 10 ** (_AUDIBLE_DB / 10))
    kept = samples[loud[0] * _FRAME : (loud[-1] + 1) * _FRAME].copy()
    fade = min(_FADE, len(kept) // 2)
    if fade and loud[0] > 0:
        kept[:fade] *= np.linspace(0, 1, fade, dtype=np.float32)
    if fade:
        kept[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return kept / np.float32(np.abs(kept).max())


@lru_cache(maxsize=_CACHED)
def load_trimmed(path: Path) -> Samples:
    """A recording, trimmed; the last ones stay in memory."""
    return trim(Clip.load(path).samples, str(path))


@lru_cache(maxsize=8)
def _load(path: Path) -> Samples:
    return Clip.load(path).samples


def _varied(sound: Samples, spec: MixSpec, duration: float, rng: np.random.Generator) -> Samples:
    """The sound changed in pitch and length, and cut where it is too long."""
    semitones, factor = float(rng.uniform(*spec.pitch)), float(rng.uniform(*spec.stretch))
    longest = seconds_to_samples(spec.longest * duration)
    if len(sound) > longest:
        begin = int(rng.integers(0, len(sound) - longest + 1))
        sound = trim(sound[begin : begin + longest], "a cut of a recording")
    rate = 2 ** (semitones / 12)
    # Played faster, a sound is higher and shorter; the stretch before makes up for the length.
    sound = stretched(sound, factor * rate)
    sound = soxr.resample(sound, SAMPLE_RATE * rate, SAMPLE_RATE).astype(np.float32)
    sound = trim(sound, "a changed recording")
    return sound[:longest]


def stretched(sound: Samples, factor: float) -> Samples:
    """The sound `factor` times as long at the same pitch (WSOLA: 32 ms frames laid where they fit best)."""
    frame, half, search = 512, 256, 128
    if abs(factor - 1) < 0.01 or len(sound) < 4 * frame:
        return sound
    window = np.hanning(frame).astype(np.float32)
    count = int(len(sound) * factor) // half
    padded = np.pad(sound, (search, frame + search + half))
    out = np.zeros(count * half + frame, np.float32)
    weight = np.zeros_like(out)
    at = 0
    for number in range(count):
        wanted = min(int(number * half / factor), len(sound))
        if number:
            # The frame that would naturally follow the last one tells which shift fits best.
            follow = padded[at + half : at + half + frame]
            region = padded[wanted : wanted + frame + 2 * search]
            fit = np.correlate(region, follow, "valid")
            at = wanted + int(np.argmax(fit))
        else:
            at = search
        begin = number * half
        out[begin : begin + frame] += padded[at : at + frame] * window
        weight[begin : begin + frame] += window
    found: Samples = (out / np.maximum(weight, 0.05)).astype(np.float32)
    return found


def _free_place(
    events: list[LabelledEvent], label: str, length: float, duration: float, spec: MixSpec, rng: np.random.Generator
) -> float | None:
    """An onset that keeps its distance from others, never over two sounds at once or over its own label."""
    if length > duration - 0.1:
        return None
    for _ in range(_TRIES):
        onset = float(rng.uniform(0.05, duration - length))
        end = onset + length
        over = [event for event in events if event.onset < end + spec.gap and event.offset > onset - spec.gap]
        apart = all(abs(event.onset - onset) >= spec.gap for event in events)
        if apart and len(over) <= 1 and not any(event.label == label for event in over):
            return onset
    return None


def _background(sources: Sources, total: int, rng: np.random.Generator, problems: list[str]) -> tuple[Samples, str]:
    """Background (total,) of RMS 1 and its name: a recording looped from a random point, else falling noise."""
    if sources.backgrounds and sources.background_folder is not None:
        name = sources.backgrounds[int(rng.integers(len(sources.backgrounds)))]
        try:
            return _level(looped(_load(sources.background_folder / name), total, rng)), name
        except InputError as error:
            problems.append(str(error))
    spectrum = np.fft.rfft(rng.standard_normal(total))
    spectrum /= np.maximum(np.arange(len(spectrum)), 30.0) ** float(rng.uniform(0, 1))
    return _level(np.fft.irfft(spectrum, total)), ""


def _level(noise: NDArray[np.floating[Any]]) -> Samples:
    """The same with RMS 1."""
    found: Samples = (noise / (np.sqrt(np.mean(noise.astype(np.float64) ** 2)) + 1e-9)).astype(np.float32)
    return found


def looped(sound: Samples, total: int, rng: np.random.Generator) -> Samples:
    """`total` samples of a recording that starts anywhere and goes round, its seam crossfaded over 50 ms."""
    fade = min(SAMPLE_RATE // 20, len(sound) // 4)
    if fade:
        ramp = np.linspace(0, 1, fade, dtype=np.float32)
        loop = sound[: len(sound) - fade].copy()
        loop[:fade] = loop[:fade] * ramp + sound[len(sound) - fade :] * (1 - ramp)
    else:
        loop = sound
    begin = int(rng.integers(len(loop)))
    return np.resize(np.roll(loop, -begin), total)
