"""Conversations spoken by espeak-ng: several voices, who says what and when exact to 10 ms."""

from __future__ import annotations

import io
import shutil
import subprocess
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import soundfile

from relisten.audio import SAMPLE_RATE, Clip
from relisten.data.manifest import Turn
from relisten.data.mixing import PlacedSound, Samples, trim
from relisten.errors import InputError

T = TypeVar("T")

PROGRAM: Final = "espeak-ng"
_TIMEOUT: Final = 30
_ACCENTS: Final = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp")
_LOW: Final = ("m1", "m2", "m3", "m4", "m5", "m6", "m7")
_HIGH: Final = ("f1", "f2", "f3", "f4", "f5")

_PLACES: Final = ("kitchen", "garden", "office", "car", "hall", "library", "station", "market", "cellar", "attic")
_THINGS: Final = (
    "keys", "letter", "blue coat", "tickets", "lamp", "map", "bread", "guitar", "umbrella", "phone", "ladder",
    "camera",
)  # fmt: skip
_PEOPLE: Final = ("Anna", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry", "Ida", "Jack")
_TIMES: Final = (
    "at seven",
    "at noon",
    "tomorrow",
    "on Monday",
    "after lunch",
    "before dark",
    "next week",
    "tonight",
)
_FOODS: Final = ("soup", "rice", "fish", "apples", "cheese", "pancakes", "salad", "pasta")

EXCHANGES: Final = (
    ("Where did you put the {thing}?", "I left the {thing} in the {place}."),
    ("When does the train leave?", "It leaves {time}."),
    ("Is {person} coming with us?", "{person} will be here {time}."),
    ("What shall we cook?", "Let us make {food} with {food2}."),
    ("Did you call {person}?", "Yes, and {person2} as well."),
    ("Who has seen the {thing}?", "It was in the {place} this morning."),
    ("Can you open the window?", "I am afraid it is stuck."),
    ("How far is the {place}?", "Ten minutes on foot."),
    ("Are you ready to go?", "Give me one more minute."),
    ("Why is the {place} so dark?", "The light went out an hour ago."),
    ("Could you hand me the {thing}?", "Here it is, take care."),
    ("Do we have any {food} left?", "Only a little, I think."),
)
STATEMENTS: Final = (
    "The {place} was closed.", "I saw {person} near the {place}.", "We should leave {time}.",
    "The {thing} is broken.", "There is {food} on the table.", "{person} sends greetings.", "It rained all night.",
    "I will be back {time}.", "That is a good idea.", "The {thing} belongs to {person}.",
    "My brother likes {food}.", "Nobody was in the {place}.", "Let us meet {time}.", "I never liked that {thing}.",
    "The bus was late again.", "We need more {food}.",
)  # fmt: skip


@dataclass(frozen=True)
class Voice:
    """How one speaker sounds."""

    name: str
    """espeak-ng's accent and variant, as in "en-us+f2"."""
    speed: int
    """Words a minute."""
    pitch: int
    """0 to 99."""


@dataclass(frozen=True)
class Conversation:
    """Who says what, and the sound of it."""

    turns: tuple[Turn, ...]
    sounds: tuple[PlacedSound, ...]
    voices: tuple[Voice, ...]


def require_speech() -> str:
    """The path of espeak-ng.

    Raises:
        InputError: it is not installed; the message tells how to install it.
    """
    path = shutil.which(PROGRAM)
    if path is None:
        raise InputError(
            f"--speech needs {PROGRAM}, which is not installed; install it with `apt-get install espeak-ng` "
            "(Debian, Ubuntu), `dnf install espeak-ng` (Fedora) or `brew install espeak-ng` (macOS)"
        )
    return path


def converse(program: str, rng: np.random.Generator, longest: float = 14.0) -> Conversation:
    """A conversation of two to four people that fits into `longest` seconds; now and then two talk at once.

    Raises:
        InputError: espeak-ng fails.
    """
    voices = _voices(rng, int(rng.choice([2, 2, 2, 3, 3, 4])))
    turns: list[Turn] = []
    sounds: list[PlacedSound] = []
    time = float(rng.uniform(0.1, 0.8))
    speaker = 0
    queue: list[str] = []
    for number in range(int(rng.integers(2, 9))):
        if number:
            # The next to speak is somebody else; with three or more not always the one who spoke before.
            others = [at for at in range(len(voices)) if at != speaker]
            speaker = others[int(rng.integers(len(others)))]
        text = queue.pop(0) if queue else _line(rng, queue, {turn.text for turn in turns})
        sound = speak(program, voices[speaker], text)
        length = len(sound) / SAMPLE_RATE
        if time + length > longest:
            break
        gain = np.float32(10 ** (float(rng.uniform(-4, 0)) / 20))
        onset = round(time, 2)
        turns.append(Turn(onset, round(onset + length, 4), "abcd"[speaker], text))
        sounds.append(PlacedSound(sound * gain, onset))
        early = float(rng.uniform(0.4, 0.8)) if rng.random() < 0.08 and length > 1.6 else 0.0
        time = onset + length - early if early else onset + length + float(rng.uniform(0.15, 0.9))
    if len(turns) < 2:
        return converse(program, rng, longest + 2)
    return Conversation(tuple(turns), tuple(sounds), voices)


def speak(program: str, voice: Voice, text: str) -> Samples:
    """One utterance at 16 kHz, trimmed, peak 1.

    Raises:
        InputError: espeak-ng fails.
    """
    command = [program, "-v", voice.name, "-s", str(voice.speed), "-p", str(voice.pitch), "--stdout", "--", text]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT, check=True)
        samples, rate = soundfile.read(io.BytesIO(done.stdout), dtype="float32")
    except (OSError, subprocess.SubprocessError, soundfile.LibsndfileError) as error:
        raise InputError(f"{PROGRAM} could not speak {text!r} as {voice.name} ({error}); try it by hand") from error
    return trim(Clip.from_samples(samples, rate, text).samples, text)


def _voices(rng: np.random.Generator, number: int) -> tuple[Voice, ...]:
    """Voices that are easy to tell apart: low and high ones by turns, each of another variant and pitch."""
    low = [_LOW[int(i)] for i in rng.permutation(len(_LOW))]
    high = [_HIGH[int(i)] for i in rng.permutation(len(_HIGH))]
    first = int(rng.integers(2))
    found = []
    for at in range(number):
        deep = (at + first) % 2 == 0
        accent = _ACCENTS[int(rng.integers(len(_ACCENTS)))]
        variant = low.pop() if deep else high.pop()
        pitch = (25, 55, 45, 80)[at if first else (at + 1) % 4]
        found.append(Voice(f"{accent}+{variant}", int(rng.integers(140, 185)), pitch + int(rng.integers(-6, 7))))
    return tuple(found)


def _line(rng: np.random.Generator, queue: list[str], said: set[str]) -> str:
    """A sentence not said before; the reply to a question waits in the queue."""
    for _ in range(50):
        words = {
            "thing": _one(rng, _THINGS), "place": _one(rng, _PLACES), "person": _one(rng, _PEOPLE),
            "person2": _one(rng, _PEOPLE), "time": _one(rng, _TIMES), "food": _one(rng, _FOODS),
            "food2": _one(rng, _FOODS),
        }  # fmt: skip
        if rng.random() < 0.5:
            asked, reply = _one(rng, EXCHANGES)
            if asked.format(**words) not in said and reply.format(**words) not in said:
                queue.append(reply.format(**words))
                return asked.format(**words)
        elif (text := _one(rng, STATEMENTS).format(**words)) not in said:
            return text
    return "I have nothing more to say."


def _one(rng: np.random.Generator, items: tuple[T, ...]) -> T:
    return items[int(rng.integers(len(items)))]
