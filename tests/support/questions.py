"""Questions files to run over."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from relisten.audio import Clip, write_clip

CHOICES = ("one", "two", "three")


def write_questions(folder: Path, count: int) -> Path:
    """A folder with `questions.jsonl` of so many rows over one short sound."""
    folder.mkdir(parents=True)
    samples = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    write_clip(folder / "noise.wav", Clip.from_samples(samples))
    rows = [
        {
            "id": f"q{number}",
            "audio": "noise.wav",
            "question": f"What is number {number}?",
            "choices": list(CHOICES),
            "answer": CHOICES[number % 3],
            "group": "even" if number % 2 == 0 else "odd",
        }
        for number in range(count)
    ]
    write_rows(folder / "questions.jsonl", rows)
    return folder


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
