"""A pool of simulated scenes on disk, rendered once and read at random while training.

Rendering is the one thing the processors should not do twice: a scene costs 15 ms, a question about it far less.
Scenes come in a few lengths, and every length is one array, so that the clips of a batch are of equal length.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relisten.audio import Clip, seconds_to_samples
from relisten.data.parallel import ordered_map
from relisten.data.scenes import Event, Scene, SceneSpec, simulate_many
from relisten.data.told import Told, ask_tools
from relisten.files import write_whole
from relisten.tools.finding import Moment

_FULL_SCALE = 32767
_TOLD_UP_TO = 10.0


@dataclass(frozen=True)
class PoolConfig:
    """Which scenes: `counts` of (seconds, number of scenes), drawn from `spec` with that exact length."""

    counts: tuple[tuple[float, int], ...]
    split: str = "train"
    seed: int = 0
    spec: SceneSpec = field(default_factory=SceneSpec)
    tools: tuple[str, ...] = ()
    """Audio tools that are asked about scenes of up to 10 s."""
    told_share: float = 0.0
    """Share of these scenes that they are asked about, the first ones of each length."""

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
        self._told: list[list[tuple[Told, ...]]] = []
        for duration in self.durations:
            self._samples.append(np.load(folder / f"{duration:g}.npy", mmap_mode="r"))
            rows = json.loads((folder / f"{duration:g}.json").read_text())
            self._events.append([tuple(Event(**event) for event in row) for row in rows])
            heard = json.loads((folder / f"{duration:g}.told.json").read_text())
            self._told.append([tuple(_told_from_json(told) for told in row) for row in heard])

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
            if not (folder / f"{duration:g}.told.json").exists():
                _ask(folder, config, duration, count, processes)
        return cls(folder, config)

    def count(self, group: int) -> int:
        """How many scenes of length `durations[group]` there are."""
        return len(self._events[group])

    def count_told(self, group: int) -> int:
        """How many of these, the first ones, have findings of tools."""
        return len(self._told[group])

    def scene(self, group: int, index: int) -> Scene:
        told = self._told[group][index] if index < len(self._told[group]) else ()
        clip = _clip(self._samples[group], index)
        return Scene(clip, self._events[group][index], self.config.split, index, told)


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
    write_whole(folder / f"{duration:g}.json", json.dumps(events))


def _ask(folder: Path, config: PoolConfig, duration: float, count: int, processes: int) -> None:
    asked = round(count * config.told_share) if config.tools and duration <= _TOLD_UP_TO else 0
    tell = partial(_tell, folder / f"{duration:g}.npy", config.tools)
    told = [[asdict(one) for one in row] for row in ordered_map(tell, range(asked), processes)]
    write_whole(folder / f"{duration:g}.told.json", json.dumps(told))


def _tell(samples: Path, tools: tuple[str, ...], index: int) -> tuple[Told, ...]:
    return ask_tools(_clip(np.load(samples, mmap_mode="r"), index), tools)


def _clip(samples: NDArray[np.int16], index: int) -> Clip:
    return Clip(samples[index].astype(np.float32) / np.float32(_FULL_SCALE))


def _told_from_json(row: dict[str, Any]) -> Told:
    return Told(row["tool"], row["line"], tuple(Moment(**moment) for moment in row["moments"]))
