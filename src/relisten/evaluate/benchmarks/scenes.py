"""Our held-out scenes: simulated on the fly from the test split, or rendered into a folder before."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from relisten.audio import Clip
from relisten.data.examples import Example
from relisten.data.questions import make_examples
from relisten.data.scenes import Scene, make_scene
from relisten.errors import InputError
from relisten.evaluate.benchmarks.base import BadRow, Official
from relisten.evaluate.benchmarks.questions import read_rows
from relisten.evaluate.scoring import Rule
from relisten.protocol import Segment, split_at_listens
from relisten.question import Question

SEED: Final = 5
"""Of the benchmark's scenes; the split is `test`, whose streams and sounds no training uses."""
QUESTIONS: Final = 1000
PER_SCENE: Final = 4
_REFERENCE: Final = re.compile(r"scene:([a-z]+)/(\d+)/(\d+)")


class SceneName(NamedTuple):
    """Which scene of which stream."""

    split: str
    seed: int
    number: int


@dataclass(frozen=True, kw_only=True)
class SceneQuestion(Question):
    """A question whose sound is simulated when it is asked, so that a thousand of them take no memory."""

    scene: SceneName

    def clip(self) -> Clip:
        return _scene(self.scene).clip

    @property
    def reference(self) -> str:
        return f"scene:{self.scene.split}/{self.scene.seed}/{self.scene.number}"


def parse_reference(text: str) -> SceneName | None:
    """The scene that `SceneQuestion.reference` names; None for anything else."""
    match = _REFERENCE.fullmatch(text)
    return match and SceneName(match[1], int(match[2]), int(match[3]))


class Scenes:
    """See `Benchmark`. With `--data` the folder's `questions.jsonl` is read instead (`relisten data simulate`)."""

    name = "scenes"
    about = "held-out simulated scenes: how many, when, which first, how long (no data needed)"
    breakdowns: tuple[str, ...] = ("kind",)
    rule = Rule.STRICT
    official: Official | None = None

    def rows(self, data: Path | None, audio: Path | None = None) -> Iterator[Question | BadRow]:
        if data is not None:
            return read_rows(data, audio, self.name)
        if audio is not None:
            raise InputError("scenes: --audio goes with --data; without it every sound is simulated")
        return islice(_simulated(), QUESTIONS)


def _simulated() -> Iterator[Question]:
    index = 0
    while True:
        name = SceneName("test", SEED, index)
        scene = _scene(name)
        examples = make_examples(scene, np.random.default_rng([SEED, index]), per_scene=PER_SCENE)
        for number, example in enumerate(examples):
            yield SceneQuestion(
                text=example.question.text,
                choices=example.question.choices,
                id=f"{scene.clip.name}-{number}",
                answer=example.question.answer,
                metadata=_truth(scene, example),
                scene=name,
            )
        index += 1


def _truth(scene: Scene, example: Example) -> dict[str, Any]:
    """What the scene knows of its own: for breakdowns, and to compare with where a model listened."""
    heard = split_at_listens(example.response, scene.clip.duration)
    return {
        "kind": example.kind,
        "split": scene.split,
        "scene": scene.index,
        "duration": scene.clip.duration,
        "events": [
            {"onset": round(event.onset, 4), "offset": round(event.offset, 4), "label": event.label}
            for event in scene.events
        ],
        "segments": [[part.start, part.end] for part in heard if isinstance(part, Segment)],
    }


def _scene(name: SceneName) -> Scene:
    # Neighbouring rows share a scene and are asked about at once: the lock lets one of them make it.
    with _LOCK:
        return _kept_scene(name)


_LOCK: Final = threading.Lock()


@lru_cache(maxsize=64)
def _kept_scene(name: SceneName) -> Scene:
    return make_scene(name.split, name.seed, name.number)
