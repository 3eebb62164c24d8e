"""What many tests need: a random-weight echo-tiny, and sounds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings

from relisten.audio import SAMPLE_RATE, Clip

if TYPE_CHECKING:
    from relisten.models import Family

# Speed is not what tests measure, and shared machines are slow at times.
settings.register_profile("relisten", deadline=None)
settings.load_profile("relisten")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def untrained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of echo-tiny's shape with random weights."""
    from relisten.models.tiny import build

    return build(tmp_path_factory.mktemp("checkpoint") / "untrained", seed=0)


@pytest.fixture(scope="session")
def untrained(untrained_folder: Path) -> Family:
    from relisten.models import load

    return load(untrained_folder, dtype="float32")


def noise_clip(seconds: float, seed: int = 0) -> Clip:
    """White noise; `seed` tells clips apart."""
    samples = np.random.default_rng(seed).normal(0, 0.1, round(seconds * SAMPLE_RATE))
    return Clip.from_samples(samples.astype(np.float32), name=f"noise-{seed}")
