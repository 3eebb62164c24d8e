"""Small labelled sets on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from relisten.audio import Clip, write_clip
from relisten.data.manifest import ClipRecord, LabelledEvent, write_manifest

LABELS = ("Dog", "Bell", "Speech", "Door")


def make_record(folder: Path, number: int) -> ClipRecord:
    """A clip of 6 s with a burst at each of its four events; two clips in a row come from one source."""
    rng = np.random.default_rng(number)
    samples = (rng.standard_normal(6 * 16_000) * 0.01).astype(np.float32)
    events = []
    for place in range(4):
        onset = 0.5 + 1.4 * place
        first = int(onset * 16_000)
        samples[first : first + 4_000] += 0.3
        events.append(LabelledEvent(onset, onset + 0.25, LABELS[(number + place * (1 + number % 2)) % 4]))
    path = folder / "clips" / f"{number}.wav"
    path.parent.mkdir(exist_ok=True)
    write_clip(path, Clip(samples))
    clip = Clip.load(path)
    return ClipRecord(
        f"clip-{number}", path, clip.duration, hash=clip.hash, source=f"tape-{number // 2}", events=tuple(events)
    )


def make_set(folder: Path, count: int) -> Path:
    """A manifest of `count` clips."""
    path = folder / "manifest.jsonl"
    write_manifest(path, (make_record(folder, number) for number in range(count)))
    return path
