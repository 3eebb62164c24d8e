"""Each tool's own errors, against sounds whose truth is known: held-out scenes, and signals made for this."""

from __future__ import annotations

import itertools
import math
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from relisten.audio import SAMPLE_RATE, Clip, seconds_to_samples
from relisten.data.manifest import Turn
from relisten.data.scenes import Scene, SceneSpec, simulate
from relisten.data.synth import Draw
from relisten.data.timbres import DRUMS, SYNTHESIS
from relisten.data.voices import PROGRAM, converse, require_speech
from relisten.protocol import Segment
from relisten.tools.builtin.beats import Beats
from relisten.tools.builtin.harmony import Harmony
from relisten.tools.builtin.loudness import Loudness
from relisten.tools.builtin.onsets import Onsets
from relisten.tools.builtin.pitch import Pitch
from relisten.tools.builtin.repeats import Repeats
from relisten.tools.builtin.silence import Silence
from relisten.tools.builtin.spectrum import Spectrum
from relisten.tools.builtin.speech import Speech
from relisten.tools.builtin.voice import Voice
from relisten.tools.finding import Finding
from relisten.tools.running import run_tool
from relisten.tools.sections import pitch_class

SEED: Final = 61_116
_PATIENCE: Final = 300.0
_NEAR: Final = 0.05
F = TypeVar("F", bound=Finding)


@dataclass(frozen=True)
class Figure:
    """One number about one tool. `value` is None where it could not be measured; `note` then says why."""

    tool: str
    what: str
    value: float | None
    unit: str = ""
    cases: int = 0
    note: str = ""

    def text(self) -> str:
        if self.value is None:
            return f"{self.what}: not measured ({self.note})"
        shown = f"{self.value:.0%}" if self.unit == "share" else f"{self.value:.2f} {self.unit}".strip()
        return f"{self.what}: {shown} (n = {self.cases})"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class NotMeasuredError(Exception):
    """There is no figure; the message says why: a tool's error, or sounds that cannot be made here."""


def measure(name: str, count: int = 40, split: str = "test") -> tuple[Figure, ...]:
    """A tool's figures over about `count` sounds of a split; the same for the same arguments."""
    if name not in _MEASURES:
        return (Figure(name, "errors", None, note="no sounds with known truth for this tool"),)
    figures = []
    try:
        for figure in _MEASURES[name](count, split):
            figures.append(figure)
    except NotMeasuredError as error:
        figures.append(Figure(name, "further errors" if figures else "errors", None, note=str(error)))
    return tuple(figures)


def _run(kind: type[F], name: str, clip: Clip) -> F:
    report = run_tool(name, clip, timeout=_PATIENCE)
    if not isinstance(report.finding, kind):
        raise NotMeasuredError(report.error)
    return report.finding


def matched(found: Sequence[float], true: Sequence[float], near: float) -> list[tuple[int, int]]:
    """(index found, index true) of times that lie within `near` seconds, each used once, nearest first."""
    pairs = sorted(
        (abs(one - other), i, j)
        for i, one in enumerate(found)
        for j, other in enumerate(true)
        if abs(one - other) <= near
    )
    left: set[int] = set()
    right: set[int] = set()
    kept = []
    for _, i, j in pairs:
        if i not in left and j not in right:
            left.add(i)
            right.add(j)
            kept.append((i, j))
    return kept


def _f1(hits: int, found: int, true: int) -> float:
    return 2 * hits / (found + true) if found + true else 1.0


def _onsets(count: int, split: str) -> Iterator[Figure]:
    hits = found = true = exact = 0
    off: list[float] = []
    miscounted: list[float] = []
    for scene in simulate(split, SEED, 0, count):
        times = _run(Onsets, "onsets", scene.clip).times
        truth = [event.onset for event in scene.events]
        pairs = matched(times, truth, _NEAR)
        hits, found, true = hits + len(pairs), found + len(times), true + len(truth)
        off += [abs(times[i] - truth[j]) for i, j in pairs]
        miscounted.append(abs(len(times) - len(truth)))
        exact += len(times) == len(truth)
    yield Figure("onsets", "F1 within 50 ms", _f1(hits, found, true), "share", true)
    yield Figure("onsets", "count exactly right", exact / count, "share", count)
    yield Figure("onsets", "count off by", float(np.mean(miscounted)), "onsets", count)
    yield Figure("onsets", "time off by", 1000 * float(np.mean(off)) if off else None, "ms", len(off))


def _pitch(count: int, split: str) -> Iterator[Figure]:
    for label in ("low beep", "high beep", "bell"):
        sounds = [(clip, pitch) for clip, pitch in _single(label, count, split)]
        near = [_cents(_run(Pitch, "pitch", clip).median, pitch) <= 50 for clip, pitch in sounds]
        yield Figure("pitch", f"{label}: median within 50 cents", float(np.mean(near)), "share", len(near))
    noise = [_run(Pitch, "pitch", clip).voiced for clip, _ in _single("noise burst", count, split)]
    yield Figure("pitch", "noise burst: time called pitched", float(np.mean(noise)), "share", len(noise))
    glides = [(rate, _glide(rate)) for rate in np.linspace(-1, 1, 2 * (count // 4) + 2)]
    right = [_run(Pitch, "pitch", clip).contour == ("rising" if rate > 0 else "falling") for rate, clip in glides]
    yield Figure("pitch", "glides: direction right", float(np.mean(right)), "share", len(right))


def _beats(count: int, split: str) -> Iterator[Figure]:
    draw = Draw(split, np.random.default_rng(SEED))
    same = related = hits = found = true = 0
    for _ in range(count):
        tempo = draw.uniform(70, 170)
        clip, times = _drum_loop(draw, tempo)
        told = _run(Beats, "beats", clip)
        ratio = 0.0 if told.tempo is None else told.tempo / tempo
        same += abs(ratio - 1) < 0.04
        related += any(abs(ratio / factor - 1) < 0.04 for factor in (0.5, 1, 2))
        hits += len(matched(told.times, times, 0.07))
        found, true = found + len(told.times), true + len(times)
    yield Figure("beats", "drum loops: tempo within 4 %", same / count, "share", count)
    yield Figure("beats", "drum loops: the same, or half or double", related / count, "share", count)
    yield Figure("beats", "drum loops: F1 of beats within 70 ms", _f1(hits, found, true), "share", true)


def _harmony(count: int, split: str) -> Iterator[Figure]:
    rng = np.random.default_rng(SEED)
    keys = chords = total = 0
    for _ in range(count):
        root, minor = int(rng.integers(12)), bool(rng.integers(2))
        clip, names = _progression(rng, root, minor)
        told = _run(Harmony, "harmony", clip)
        keys += told.key == f"{pitch_class(root)} {'minor' if minor else 'major'}"
        for number, name in enumerate(names):
            middle = number + 0.5
            chords += any(chord.start <= middle < chord.end and chord.name == name for chord in told.chords)
        total += len(names)
    yield Figure("harmony", "progressions: key right", keys / count, "share", count)
    yield Figure("harmony", "progressions: chord right", chords / total, "share", total)


def _loudness(count: int, split: str) -> Iterator[Figure]:
    rng = np.random.default_rng(SEED)
    off = []
    for _ in range(count):
        level = rng.uniform(-60, -3)
        told = _run(Loudness, "loudness", Clip.from_samples(_tone(440, 2.0) * 10 ** (level / 20) * math.sqrt(2)))
        off.append(abs(told.level - level))
    yield Figure("loudness", "tones: level off by", float(np.mean(off)), "dB", count)
    right = hits = found = true = 0
    off = []
    for scene in simulate(split, SEED, 0, count):
        told = _run(Loudness, "loudness", scene.clip)
        most = max(event.level for event in scene.events)
        at = told.loudest_at
        right += any(e.onset - 0.05 <= at <= e.offset and e.level > most - 3 for e in scene.events)
        pairs = matched([rise.at for rise in told.rises], [event.onset for event in scene.events], _NEAR)
        hits, found, true = hits + len(pairs), found + len(told.rises), true + len(scene.events)
        off += [abs(told.rises[i].level - scene.events[j].level) for i, j in pairs]
    yield Figure("loudness", "scenes: loudest moment in a loudest sound", right / count, "share", count)
    yield Figure("loudness", "scenes: rises, F1 within 50 ms", _f1(hits, found, true), "share", true)
    yield Figure("loudness", "scenes: level of a sound off by", float(np.median(off)), "dB", len(off))


def _spectrum(count: int, split: str) -> Iterator[Figure]:
    for label in ("low beep", "high beep"):
        sounds = list(_single(label, count, split))
        off = [_cents((*_run(Spectrum, "spectrum", clip).peaks, None)[0], pitch) for clip, pitch in sounds]
        right = float(np.mean(np.array(off) <= 25))
        yield Figure("spectrum", f"{label}: strongest within 25 cents", right, "share", count)


def _silence(count: int, split: str) -> Iterator[Figure]:
    for what, spec in (
        ("no background", SceneSpec(silent_share=1.0, dry_share=1.0)),
        ("background 20 to 40 dB down", SceneSpec(silent_share=0.0, dry_share=1.0, snr=(20, 40))),
    ):
        agree = []
        for scene in simulate(split, SEED, 0, count, spec):
            sound = _frames(scene.clip, [Segment(e.onset, e.offset) for e in scene.events])
            agree.append(float(np.mean(sound == _frames(scene.clip, _run(Silence, "silence", scene.clip).sounds))))
        yield Figure("silence", f"scenes, {what}: time told rightly", float(np.mean(agree)), "share", count)


def _voice(count: int, split: str) -> Iterator[Figure]:
    missed = [1 - _run(Voice, "voice", clip).share for clip, _ in _single("voice", count, split)]
    yield Figure("voice", "synthetic voices: time missed", float(np.mean(missed)), "share", count)
    others = [label for label in SYNTHESIS if label != "voice"]
    false = [_run(Voice, "voice", clip).share for label in others for clip, _ in _single(label, 4, split)]
    yield Figure("voice", "other sounds: time called voice", float(np.mean(false)), "share", len(false))
    agree = []
    for clip, turns in _conversations(min(count, 6)):
        spoken = [Segment(turn.start, turn.end) for turn in turns]
        agree.append(float(np.mean(_frames(clip, spoken) == _frames(clip, _run(Voice, "voice", clip).spoken))))
    yield Figure("voice", "conversations: time told rightly", float(np.mean(agree)), "share", len(agree))


def _speech(count: int, split: str) -> Iterator[Figure]:
    wrong = words = 0
    for clip, turns in _conversations(min(count, 6)):
        errors, number = word_errors(_run(Speech, "speech", clip).words, " ".join(turn.text for turn in turns))
        wrong, words = wrong + errors, words + number
    yield Figure("speech", "conversations: words wrong", wrong / words, "share", words)


def _repeats(count: int, split: str) -> Iterator[Figure]:
    both = told = true = 0
    spec = SceneSpec(labels=DRUMS, overlap_share=0.0, silent_share=0.5, pattern_share=0.7)
    for scene in simulate(split, SEED, 0, count, spec):
        pairs_told, pairs_true = _alike(scene, _run(Repeats, "repeats", scene.clip))
        both, told, true = both + len(pairs_told & pairs_true), told + len(pairs_told), true + len(pairs_true)
    yield Figure("repeats", "drums: pairs called alike that are", both / told if told else None, "share", told)
    yield Figure("repeats", "drums: alike pairs found", both / true if true else None, "share", true)


_MEASURES: Final[dict[str, Callable[[int, str], Iterator[Figure]]]] = {
    "beats": _beats, "harmony": _harmony, "loudness": _loudness, "onsets": _onsets, "pitch": _pitch,
    "repeats": _repeats, "silence": _silence, "spectrum": _spectrum, "speech": _speech, "voice": _voice,
}  # fmt: skip


def _alike(scene: Scene, told: Repeats) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """Pairs of events that the tool takes for one kind, and those that have one label; of events it found."""
    truth = [event.onset for event in scene.events]
    times = [time for kind in told.kinds for time in kind.times]
    kinds = [number for number, kind in enumerate(told.kinds) for _ in kind.times]
    kind_of = {j: kinds[i] for i, j in matched(times, truth, _NEAR)}
    pairs = list(itertools.combinations(sorted(kind_of), 2))
    labels = [event.label for event in scene.events]
    return (
        {(a, b) for a, b in pairs if kind_of[a] == kind_of[b]},
        {(a, b) for a, b in pairs if labels[a] == labels[b]},
    )


def _single(label: str, count: int, split: str) -> Iterator[tuple[Clip, float]]:
    """Sounds of one label, alone, with their pitch in Hz (0: none)."""
    draw = Draw(split, np.random.default_rng(SEED))
    for number in range(count):
        sound = SYNTHESIS[label](draw)
        yield (
            Clip.from_samples(np.asarray(sound.samples, np.float32) * 0.5, name=f"{label}-{number}"),
            sound.pitch or 0.0,
        )


def _cents(found: float | None, true: float) -> float:
    return math.inf if not found or not true else abs(1200 * math.log2(found / true))


def _tone(hertz: float, seconds: float) -> NDArray[np.float64]:
    return np.sin(2 * np.pi * hertz * np.arange(seconds_to_samples(seconds)) / SAMPLE_RATE)


def _glide(octaves: float) -> Clip:
    t = np.arange(seconds_to_samples(1.5)) / SAMPLE_RATE
    phase = 2 * np.pi * np.cumsum(330 * 2 ** (octaves * (t / 1.5 - 0.5))) / SAMPLE_RATE
    wave = np.sum([np.sin(k * phase) / k for k in range(1, 6)], axis=0)
    return Clip.from_samples((0.2 * wave).astype(np.float32))


def _drum_loop(draw: Draw, tempo: float) -> tuple[Clip, list[float]]:
    """12 s of kick, hat, snare, hat at `tempo`, and where the beats are."""
    kick, snare, hat = (SYNTHESIS[label](draw).samples for label in ("kick", "snare", "hi-hat"))
    beat, begin, length = 60 / tempo, draw.uniform(0.05, 0.6), 12.0
    samples = np.zeros(seconds_to_samples(length + 3))
    beats = [float(time) for time in np.arange(begin, length - 0.2, beat)]
    for number, time in enumerate(beats):
        for sound, at, gain in ((kick if number % 2 == 0 else snare, time, 0.5), (hat, time + beat / 2, 0.15)):
            first = seconds_to_samples(at)
            samples[first : first + len(sound)] += gain * sound[: len(samples) - first]
    return Clip.from_samples(samples[: seconds_to_samples(length)].astype(np.float32)), beats


def _progression(rng: np.random.Generator, root: int, minor: bool) -> tuple[Clip, list[str]]:
    """I IV V I (or i iv V i) of one second each, and the names of these chords."""
    parts, names = [], []
    for degree in (0, 5, 7, 0):
        small = minor and degree != 7
        third = 3 if small else 4
        base = 48 + (root + degree) % 12
        harmonics = 1 / np.arange(1, 6) ** rng.uniform(1, 2)
        notes = [440 * 2 ** ((base + step - 69) / 12) for step in (0, third, 7, 12)]
        tones = [level * _tone(note * (k + 1), 1.0) for note in notes for k, level in enumerate(harmonics)]
        wave = np.sum(tones, axis=0)
        fade = np.minimum(1, np.minimum(np.arange(SAMPLE_RATE), np.arange(SAMPLE_RATE)[::-1]) / 400)
        parts.append(0.05 * wave * fade)
        names.append(pitch_class(root + degree) + ("m" if small else ""))
    return Clip.from_samples(np.concatenate(parts).astype(np.float32)), names


def _frames(clip: Clip, parts: Sequence[Segment]) -> NDArray[np.bool_]:
    """Which 10 ms of a clip lie in one of the parts."""
    centres = (np.arange(int(clip.duration * 100)) + 0.5) / 100
    inside = np.zeros(len(centres), bool)
    for part in parts:
        inside |= (centres >= part.start) & (centres < part.end)
    return inside


def _conversations(count: int) -> Iterator[tuple[Clip, tuple[Turn, ...]]]:
    """Conversations by espeak-ng in faint noise, and who says what when."""
    if shutil.which(PROGRAM) is None:
        raise NotMeasuredError("espeak-ng is not installed")
    rng = np.random.default_rng(SEED)
    for _ in range(count):
        talk = converse(require_speech(), rng)
        samples = rng.normal(0, 0.001, seconds_to_samples(max(turn.end for turn in talk.turns) + 0.8))
        for sound in talk.sounds:
            first = seconds_to_samples(sound.onset)
            samples[first : first + len(sound.samples)] += 0.5 * sound.samples[: len(samples) - first]
        yield Clip.from_samples(samples), talk.turns


def word_errors(said: str, true: str) -> tuple[int, int]:
    """(substituted, left out or added words, words there should be); case and punctuation do not count."""
    told, words = (re.findall(r"[\w']+", text.casefold()) for text in (said, true))
    costs = list(range(len(words) + 1))
    for number, one in enumerate(told, start=1):
        diagonal, costs[0] = costs[0], number
        for at, other in enumerate(words, start=1):
            diagonal, costs[at] = costs[at], min(costs[at] + 1, costs[at - 1] + 1, diagonal + (one != other))
    return costs[-1], len(words)
