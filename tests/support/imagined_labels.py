"""Clips with imagined labels: sounds, speech turns and music, without any sound behind them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from relisten.data.compose import (
    Labels,
)
from relisten.data.manifest import Chord, ClipRecord, LabelledEvent, Music, Turn

NAMES = ("Dog", "Rain", "Male speech, man speaking", "Door", "Siren", "Cat", "Engine starting", "Engine")
SET = {
    "set": Labels(NAMES, (1.0,) * len(NAMES), {"Engine": frozenset({NAMES[6]}), NAMES[6]: frozenset({"Engine"})})
}
TEXTS = (
    "Where did you put the keys?", "They are on the table.", "No, I looked there already.", "Then try the kitchen.",
    "Is anyone coming tonight?", "Only Anna and Ben.", "That sounds good to me.", "We should leave at seven.", "",
)  # fmt: skip


def imagined(seed: int) -> ClipRecord:
    """A labelled clip of any kind, well behaved or not."""
    rng = np.random.default_rng(seed)
    duration = round(float(rng.uniform(3, 25)), 2)
    names = [NAMES[i] for i in rng.permutation(len(NAMES))[: rng.integers(1, 6)]]
    events = []
    for _ in range(int(rng.integers(1, 13))):
        onset = round(float(rng.uniform(0, duration - 0.3)), 2)
        offset = round(min(duration, onset + 0.1 + float(rng.exponential(1.2))), 2)
        events.append(LabelledEvent(onset, offset, names[int(rng.integers(len(names)))]))
    turns = []
    time = float(rng.uniform(0, 1))
    for _ in range(int(rng.integers(0, 8))):
        end = time + float(rng.uniform(0.5, 2))
        if end < duration:
            speaker = "abc"[int(rng.integers(1, 4)) - 1]
            turns.append(Turn(round(time, 2), round(end, 2), speaker, TEXTS[int(rng.integers(len(TEXTS)))]))
        time = end + float(rng.uniform(-0.4, 1))
    step = float(rng.uniform(0.35, 0.9))
    beats = tuple(round(0.2 + step * n, 3) for n in range(int((duration - 0.3) / step)))
    chords = ("Am", "F", "C", "G7", "N", "Dm", "Am7", "Bb")
    starts = sorted({round(float(t), 2) for t in rng.uniform(0, duration - 0.5, int(rng.integers(1, 7)))})
    music = Music(
        beats=beats,
        downbeats=beats[:: int(rng.integers(3, 6))],
        chords=tuple(Chord(start, chords[int(rng.integers(len(chords)))]) for start in starts),
        key=("A minor", "Bb major", "F# minor")[int(rng.integers(3))],
        tempo=round(60 / step, 1),
    )
    return ClipRecord(
        id=f"clip-{seed}",
        audio=Path("x.wav"),
        duration=duration,
        resolution=float(rng.choice([0.02, 0.1, 0.2])),
        label_set="set",
        events=tuple(sorted(events, key=lambda e: (e.onset, e.offset, e.label))),
        turns=tuple(sorted(turns, key=lambda t: t.start)),
        music=music,
    )


def quoted(text: str) -> list[str]:
    return re.findall(r'"([^"]+)"', text)
