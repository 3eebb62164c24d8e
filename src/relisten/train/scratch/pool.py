"""A pool of simulated scenes on disk, rendered once and read at random while training.

Rendering is the one thing the processors should not do twice: a scene costs 15 ms, a question about it far less.
Scenes come in a few lengths, and every length is one array, so that the clips of a batch are of equal length.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from relisten.audio import Clip, seconds_to_samples
from relisten.data.scenes import Event, Scene, SceneSpec, simulate_many

_FULL_SCALE = 32767


@dataclass(frozen=True)
class PoolConfig:
    """Which scenes: `counts` of (seconds, number of scenes), drawn from `spec` with that exact length."""

    counts: tuple[tuple[float, int], ...]
    split: str = "train"
    seed: int = 0
    spec: SceneSpec = field(default_factory=SceneSpec)

    @property
    def digest(self) -> str:
        """Names the folder: another configuration never reads these scenes."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


class ScenePool:
    """Scenes of one `PoolConfig`. Samples are mapped from disk, 16 bits each; events are held in memory."""

    def __init__(self, folder: Path, config: PoolConfig) -> None:
        self.config = config
        self.durations = tuple(duration for duration, _ in config.counts)
        self._samples: list[NDArray[np.int16]] = []
        self._events: list[list[tuple[Event, ...]]] = []
        for duration in self.durations:
            self._samples.append(np.load(folder / f"{duration:g}.npy", mmap_mode="r"))
            rows = json.loads((folder / f"{duration:g}.json").read_text())
            self._events.append([tuple(Event(**event) for event in row) for row in rows])

    @classmethod
    def open(
        cls, root: Path, config: PoolConfig, processes: int = 1, progress: Callable[[int], None] | None = None
    ) -> ScenePool:
        """The pool under `root`, rendered first where it is not there yet.

        `progress` is called with the number of scenes that were rendered since its last call.
        """
        folder = root / config.digest
        folder.mkdir(parents=True, exist_ok=True)
        for number, (duration, count) in enumerate(config.counts):
            if not (folder / f"{duration:g}.json").exists():
                _render(folder, config, number, duration, count, processes, progress)
        return cls(folder, config)

    def count(self, group: int) -> int:
        """How many scenes of length `durations[group]` there are."""
        return len(self._events[group])

    def scene(self, group: int, index: int) -> Scene:
        samples = self._samples[group][index].astype(np.float32) / np.float32(_FULL_SCALE)
        return Scene(Clip(samples), self._events[group][index], self.config.split, index)


def _render(
    folder: Path,
    config: PoolConfig,
    number: int,
    duration: float,
    count: int,
    processes: int,
    progress: Callable[[int], None] | None,
) -> None:
    spec = replace(config.spec, duration=(duration, duration), long_share=0.0)
    part = folder / f"{duration:g}.npy"
    samples = np.lib.format.open_memmap(
        part, mode="w+", dtype=np.int16, shape=(count, seconds_to_samples(duration))
    )
    events = []
    # Streams of different lengths must not share their random numbers.
    scenes = simulate_many(config.split, config.seed + 1000 * number, 0, count, spec, processes=processes)
    for index, scene in enumerate(scenes):
        samples[index] = np.round(scene.clip.samples * _FULL_SCALE)
        events.append([asdict(event) for event in scene.events])
        if progress is not None:
            progress(1)
    samples.flush()
    # Written last: its presence says that the array is complete.
    (folder / f"{duration:g}.json").write_text(json.dumps(events))
