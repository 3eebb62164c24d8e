"""Sounds for tests."""

from __future__ import annotations

import numpy as np

from relisten.audio import SAMPLE_RATE, Clip
from relisten.question import Question


def noise_clip(seconds: float, seed: int = 0) -> Clip:
    """White noise; `seed` tells clips apart."""
    samples = np.random.default_rng(seed).normal(0, 0.1, round(seconds * SAMPLE_RATE))
    return Clip.from_samples(samples.astype(np.float32), name=f"noise-{seed}")


def noise_question(index: int) -> Question:
    """A question about noise of 2 to 6 s, with none to two choices."""
    seconds = 2.0 + index % 5
    return Question(f"How many {index}?", ("one", "two")[: index % 3], noise_clip(seconds, index))
