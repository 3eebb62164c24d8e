"""The scene simulator: short sound scenes whose every event is known exactly.

A scene is a function of (spec, split, seed, index) and of nothing else: scene i never depends on other scenes, on
the process that makes it or on how many processes there are. Splits differ in their seed streams and in the
ranges of sound parameters (`relisten.data.synth` says which values belong to which split): pitch, decay and
length of every event, reverberation time and the colour of the background noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from relisten.audio import SAMPLE_RATE, Clip, seconds_to_samples
from relisten.data.loudness import LEVEL_SAMPLES, levels_of, rms_db
from relisten.data.parallel import ordered_map
from relisten.data.recording import record
from relisten.data.synth import SPLITS, Draw, SynthSound
from relisten.data.timbres import DRUMS, LABELS, SYNTHESIS
from relisten.data.told import Told
from relisten.errors import InputError


@dataclass(frozen=True)
class Event:
    """One sound in a scene; times in seconds from the clip's start."""

    onset: float
    offset: float
    """Where the dry sound's 10 ms energy has last been above -40 dB of its maximum, or the clip's end."""
    label: str
    gain: float = 0.0
    """Gain applied to the peak-1 sound, in dB, before the scene's overall level."""
    pitch: float | None = None
    """Fundamental in Hz where the label has one."""
    level: float = 0.0
    """Loudest 50 ms of the dry sound, RMS in dB of full scale as it stands in the finished clip."""
    weighted_level: float = 0.0
    """The same after a weighting that follows the ear (bass counts less)."""
    sustained: bool = False
    """True where the sound holds its level and then stops, so that its length can be told."""

    @property
    def duration(self) -> float:
        return self.offset - self.onset


@dataclass(frozen=True)
class Scene:
    """A clip and what is in it; events are sorted by onset."""

    clip: Clip
    events: tuple[Event, ...]
    split: str = "train"
    index: int = 0
    told: tuple[Told, ...] = ()
    """What audio tools say about the clip, where they were asked."""

    def between(self, start: float, end: float) -> tuple[Event, ...]:
        """The events whose onset lies in [start, end)."""
        return tuple(event for event in self.events if start <= event.onset < end)


@dataclass(frozen=True)
class SceneSpec:
    """What scenes are like. Ranges are (lowest, highest); probabilities lie in 0 to 1.

    Raises:
        InputError: for a range that is reversed, a clip outside 1 to 600 s or an unknown label.
    """

    duration: tuple[float, float] = (4.0, 10.0)
    long_duration: tuple[float, float] = (10.0, 30.0)
    long_share: float = 0.08
    """Share of scenes whose length comes from `long_duration`."""
    events: tuple[int, int] = (3, 16)
    density: tuple[float, float] = (0.4, 2.0)
    """Events a second aimed at, within `events`."""
    labels: tuple[str, ...] = LABELS
    distinct: tuple[int, int] = (2, 6)
    """How many different labels one scene draws from."""
    drums_share: float = 0.35
    """Share of scenes that hold drums only."""
    others_share: float = 0.25
    """Share of scenes that hold no drums."""
    pattern_share: float = 0.35
    """Share of scenes that repeat a short pattern."""
    gap: tuple[float, float] = (0.2, 0.45)
    """Smallest distance between two onsets; drawn once a scene."""
    overlap_share: float = 0.5
    """Share of scenes in which a sound may start before the one before it has ended."""
    pause_share: float = 0.3
    """Share of scenes with one pause that is clearly the longest."""
    gain: tuple[float, float] = (-15.0, 0.0)
    """Gain of single events, in dB."""
    mixed_share: float = 0.5
    """Share of scenes in which each label has a loudness of its own, whatever its waveform's peak."""
    snr: tuple[float, float] = (12.0, 50.0)
    """Median event level over background noise, in dB."""
    silent_share: float = 0.15
    """Share of scenes without any background noise."""
    dry_share: float = 0.35
    reverb: tuple[float, float] = (0.1, 1.2)
    """Reverberation time (-60 dB) in seconds."""
    codec_share: float = 0.15
    """Share of scenes low-passed at 3.5 to 7.5 kHz."""
    peak: tuple[float, float] = (-26.0, -0.5)
    """Peak of the finished clip in dBFS."""

    def __post_init__(self) -> None:
        for name in (
            "duration",
            "long_duration",
            "events",
            "density",
            "distinct",
            "gap",
            "gain",
            "snr",
            "reverb",
            "peak",
        ):
            low, high = getattr(self, name)
            if low > high:
                raise InputError(f"scene {name} ({low}, {high}): give the lowest value first")
        if self.duration[0] < 1 or max(self.duration[1], self.long_duration[1]) > 600:
            raise InputError(f"scene duration {self.duration}: clips last 1 to 600 s")
        unknown = set(self.labels) - set(LABELS)
        if unknown or not self.labels:
            raise InputError(f"scene labels {sorted(unknown)}: use some of {', '.join(LABELS)}")


def simulate(
    split: str, seed: int, start: int = 0, count: int = 1, spec: SceneSpec | None = None
) -> Iterator[Scene]:
    """Scenes start .. start + count - 1 of one stream, in order.

    Raises:
        InputError: for an unknown split, a negative seed or a negative start.
    """
    for index in range(start, start + count):
        yield make_scene(split, seed, index, spec)


def simulate_many(
    split: str,
    seed: int,
    start: int = 0,
    count: int = 1,
    spec: SceneSpec | None = None,
    *,
    processes: int = 2,
) -> Iterator[Scene]:
    """The same scenes as `simulate`, in the same order, made by several processes."""
    make = partial(make_scene, split, seed, spec=spec)
    return ordered_map(make, range(start, start + count), processes)


def make_scene(split: str, seed: int, index: int, spec: SceneSpec | None = None) -> Scene:
    """Scene `index` of the stream (split, seed)."""
    if split not in SPLITS:
        raise InputError(f"split {split!r} is unknown; use one of {', '.join(SPLITS)}")
    if seed < 0 or index < 0:
        raise InputError(f"seed {seed}, index {index}: both must be 0 or more")
    spec = spec or SceneSpec()
    draw = Draw(split, np.random.default_rng(np.random.SeedSequence([seed, SPLITS.index(split), index])))
    low, high = spec.long_duration if draw.chance(spec.long_share) else spec.duration
    duration = round(draw.uniform(low, high), 1)
    plan = plan_events(draw, spec, duration)
    sounds = {label: _voiced(draw, label) for label in _cast(plan)}
    dry, events = place_events(draw, spec, duration, [(onset, label, sounds[label]) for onset, label in plan])
    samples, gain = record(draw, spec, dry, events)
    clip = Clip.from_samples(samples, SAMPLE_RATE, name=f"{split}-{seed}-{index}")
    events = tuple(
        replace(event, level=event.level + gain, weighted_level=event.weighted_level + gain) for event in events
    )
    return Scene(clip, events, split, index)


# What happens when


def _cast(plan: Sequence[tuple[float, str]]) -> list[str]:
    return sorted({label for _, label in plan})


def plan_events(draw: Draw, spec: SceneSpec, duration: float) -> list[tuple[float, str]]:
    """Onsets and labels, in order; onsets keep the scene's smallest gap."""
    drums = tuple(label for label in spec.labels if label in DRUMS)
    others = tuple(label for label in spec.labels if label not in DRUMS)
    chance = draw.rng.random()
    pool = drums if chance < spec.drums_share else others if chance > 1 - spec.others_share else spec.labels
    pool = pool or spec.labels
    kinds = min(len(pool), draw.integer(*spec.distinct))
    names = [pool[i] for i in draw.rng.permutation(len(pool))[:kinds]]
    gap = draw.uniform(*spec.gap)
    room = duration - 0.5
    aim = round(duration * draw.uniform(*spec.density))
    number = max(spec.events[0], min(spec.events[1], aim, int(room / gap * 0.8)))
    if draw.chance(spec.pattern_share):
        loop = [draw.choice(names) for _ in range(draw.integer(2, 6))]
        labels = [loop[i % len(loop)] for i in range(number)]
        step = room / number * draw.uniform(0.6, 1.0)
        begin = draw.uniform(0.02, max(0.03, room - step * number))
        swing = max(0.0, min(0.25 * step, (step - gap) / 2))
        onsets = [begin + i * step + draw.uniform(-swing, swing) for i in range(number)]
    else:
        # Weights differ, so that one label may dominate a scene and another come once.
        weights = draw.rng.dirichlet(np.full(len(names), draw.log(0.6, 5)))
        labels = [names[i] for i in draw.rng.choice(len(names), size=number, p=weights)]
        # Uniform spacings over the slack, cut unevenly by the exponent: even to clustered.
        spacings = draw.rng.exponential(size=number + 1) ** draw.uniform(0.5, 1.8)
        slack = max(0.0, room - gap * (number - 1) - 0.04)
        onsets = list(0.04 + slack * np.cumsum(spacings)[:-1] / spacings.sum() + gap * np.arange(number))
    if number > 1 and draw.chance(spec.pause_share):
        onsets = _with_pause(draw, onsets, spec.gap[0], room)
    return [(max(0.02, float(onset)), label) for onset, label in zip(onsets, labels, strict=True)]


def _with_pause(draw: Draw, onsets: list[float], gap: float, room: float) -> list[float]:
    """The onsets pressed together before and after one point, which leaves a pause there."""
    pause = draw.uniform(0.8, 2.5)
    shrink = (room - pause) / room
    at = draw.integer(0, len(onsets) - 2)
    if min(np.diff(onsets)) * shrink < gap or shrink < 0.4:
        return onsets
    return [onset * shrink + (pause if number > at else 0.0) for number, onset in enumerate(onsets)]


def _voiced(draw: Draw, label: str) -> list[SynthSound]:
    """A stock of takes for one label in one scene: drums repeat one or two, others change each time."""
    if label in DRUMS:
        return [SYNTHESIS[label](draw) for _ in range(1 if draw.chance(0.6) else 2)]
    return [SYNTHESIS[label](draw) for _ in range(draw.integer(1, 4))]


def place_events(
    draw: Draw, spec: SceneSpec, duration: float, plan: Sequence[tuple[float, str, Sequence[SynthSound]]]
) -> tuple[NDArray[np.float32], tuple[Event, ...]]:
    """Mix sounds into a dry clip.

    Args:
        plan: onset in seconds, label and the takes to choose from, for every event in order.

    Returns:
        The clip (n,) and what is in it.
    """
    total = seconds_to_samples(duration)
    dry = np.zeros(total, np.float32)
    may_overlap = draw.chance(spec.overlap_share)
    softest = draw.uniform(*spec.gain)
    mixed = draw.chance(spec.mixed_share)
    levels = {label: draw.uniform(*spec.gain) - 14 for label in _cast([(t, name) for t, name, _ in plan])}
    events = []
    for number, (onset, label, takes) in enumerate(plan):
        begin = seconds_to_samples(onset)
        sound = draw.choice(takes)
        samples = sound.samples[: total - begin]
        if not may_overlap and number + 1 < len(plan):
            samples = _cut(samples, seconds_to_samples(plan[number + 1][0]) - begin)
        measured = levels_of(samples)
        if mixed:
            loudness = (measured.plain + measured.weighted) / 2
            gain = min(10.0, levels[label] - loudness + draw.uniform(-2, 2))
        else:
            gain = draw.uniform(softest, spec.gain[1])
        # A sound inside another one's tail must stand out enough to be heard at all.
        under = rms_db(dry[begin : begin + 2 * LEVEL_SAMPLES])
        gain = min(10.0, max(gain, under - 3.0 - measured.plain))
        dry[begin : begin + len(samples)] += samples * np.float32(10 ** (gain / 20))
        events.append(
            Event(
                onset=begin / SAMPLE_RATE,
                offset=(begin + measured.audible) / SAMPLE_RATE,
                label=label,
                gain=gain,
                pitch=sound.pitch,
                level=measured.plain + gain,
                weighted_level=measured.weighted + gain,
                sustained=sound.sustained,
            )
        )
    return dry, tuple(events)


def _cut(samples: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """The sound ended early with a 15 ms fade, as a player that chokes the last sound would."""
    if len(samples) <= length:
        return samples
    samples = samples[:length].copy()
    fade = min(length, SAMPLE_RATE * 15 // 1000)
    samples[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return samples


# Targets for training


def onset_targets(scene: Scene, frame_rate: float, labels: Sequence[str] = LABELS) -> NDArray[np.float32]:
    """Which label starts in which frame: (frames, labels) float32 of 0 and 1, frames = ceil(duration x rate).

    Raises:
        InputError: for a frame rate that is not positive.
    """
    if frame_rate <= 0:
        raise InputError(f"frame rate {frame_rate}: it must be above 0")
    frames = int(np.ceil(scene.clip.duration * frame_rate - 1e-9))
    targets = np.zeros((frames, len(labels)), np.float32)
    column = {label: number for number, label in enumerate(labels)}
    for event in scene.events:
        if event.label in column:
            targets[min(frames - 1, int(event.onset * frame_rate)), column[event.label]] = 1.0
    return targets


def caption(events: Sequence[Event], start: float, end: float, *, relative: bool = True, times: bool = True) -> str:
    """What starts in [start, end), as text: "0.5 kick, 0.9 snare"; "nothing" where nothing does.

    Times are onsets rounded to 0.1 s, from `start` if `relative`, else from the clip's start; none without `times`.
    """
    zero = start if relative else 0.0
    heard = [event for event in events if start <= event.onset < end]
    words = [f"{event.onset - zero:.1f} {event.label}" if times else event.label for event in heard]
    return ", ".join(words) or "nothing"
