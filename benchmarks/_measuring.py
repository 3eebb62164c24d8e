"""What benchmarks share: their options, sides that alternate, streams that decode, and how figures are told."""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from _machine import machine

from relisten.audio import SAMPLE_RATE, Clip
from relisten.data.questions import make_examples
from relisten.data.scenes import make_scene
from relisten.engines.base import Engine, Stream
from relisten.evaluate.benchmarks.scenes import SEED
from relisten.protocol import Format, Segment
from relisten.question import Question
from relisten.trace import Sampling


class Figure(NamedTuple):
    """One line of what was measured; `goal` is what was aimed at, as text."""

    what: str
    value: float
    unit: str = ""
    goal: str = ""

    def told(self) -> str:
        digits = 0 if abs(self.value) >= 100 else 1 if abs(self.value) >= 10 else 2
        return f"{self.value:.{digits}f}" + (f" {self.unit}" if self.unit else "")


class Run:
    """One run of a benchmark: made right behind its options, so that the machine is described as it was found."""

    def __init__(self, options: argparse.Namespace) -> None:
        if isinstance(options.threads, int):
            torch.set_num_threads(options.threads)
        self._options = options
        self._machine = machine() | {"threads": options.threads}

    def finish(self, figures: list[Figure], **details: Any) -> None:
        """Print the figures, and write them where the options say."""
        name = Path(sys.argv[0]).name
        result = {
            "benchmark": Path(name).stem,
            "command": shlex.join(["python", f"benchmarks/{name}", *_without_output(sys.argv[1:])]),
            "machine": self._machine,
            "figures": [figure._asdict() for figure in figures],
            "details": details,
        }
        if self._options.out is not None:
            self._options.out.write_text(json.dumps(result, indent=1, default=str) + "\n")
        if self._options.json:
            print(json.dumps(result, default=str))
            return
        width = max(len(figure.what) for figure in figures)
        for figure in figures:
            print(f"{figure.what:<{width}}  {figure.told()}" + (f"  (goal {figure.goal})" if figure.goal else ""))


def arguments(
    doc: str | None,
    *,
    model: str | None = "echo-tiny",
    repeats: int | None = 9,
    threads: int | Sequence[int] | None = 1,
) -> argparse.ArgumentParser:
    """Options that benchmarks share, by their defaults; None for one that this benchmark has no use for. Several
    numbers of threads are all tried, and the best of each side counts."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if model is not None:
        parser.add_argument("--model", default=model)
    if repeats is not None:
        parser.add_argument("--repeats", type=int, default=repeats)
    if threads is None:
        parser.set_defaults(threads=None)
    elif isinstance(threads, int):
        parser.add_argument("--threads", type=int, default=threads, help="of PyTorch, on either side")
    else:
        several = "of PyTorch; with several the best of each side counts"
        parser.add_argument("--threads", type=int, nargs="+", default=list(threads), help=several)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--out", type=Path, help="write it to this file, too; benchmarks/table.py reads it")
    return parser


def alternate(sides: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """The median of what each side returns. Sides take turns, so that a busy machine slows all alike; the first
    turn warms up and does not count."""
    values: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, side in sides.items():
            value = side()
            if turn > 0:
                values[name].append(value)
    return {name: statistics.median(found) for name, found in values.items()}


def noise(seconds: float, seed: int = 0) -> Clip:
    samples = np.random.default_rng(seed).normal(0, 0.1, round(seconds * SAMPLE_RATE))
    return Clip.from_samples(samples.astype(np.float32))


def question(seconds: float, seed: int = 0) -> Question:
    return Question("How many snare hits between 4 and 7 seconds?", ("2", "3", "4"), noise(seconds, seed))


def scene_questions(count: int) -> list[Question]:
    """Held-out questions, each about a simulated scene of its own: no sound is met twice. Sounds are in memory:
    simulating them is not what is measured."""
    found: list[Question] = []
    for number in itertools.count():
        if len(found) == count:
            break
        scene = make_scene("test", SEED, number)
        for example in make_examples(scene, np.random.default_rng([SEED, number]), per_scene=1):
            found.append(replace(example.question, audio=scene.clip))
    return found


async def decode(stream: Stream, count: int) -> list[int]:
    """Sample `count` tokens, whatever they are."""
    ids: list[int] = []
    while len(ids) < count:
        left = count - len(ids)

        def feed(piece: str, end_of_turn: bool) -> bool:
            nonlocal left
            left -= 1
            return left == 0

        ids += (await stream.decode(feed)).ids
    return ids


async def time_listen(stream: Stream, segment: Segment) -> tuple[float, tuple[int, ...]]:
    """Seconds from the request to the next token, and the ids that were inserted."""
    began = time.perf_counter()
    heard = stream.listen(segment)
    await decode(stream, 1)
    seconds = time.perf_counter() - began
    assert heard is not None
    return seconds, heard.ids


async def prompt_and_listen(
    engine: Engine, asked: Question, tokens: int, segment: Segment
) -> tuple[float, list[int], int]:
    """A listen behind a prompt and so many tokens: its seconds, the ids before the next token, how many of these
    are new to the model."""
    stream = engine.open(asked, asked.clip(), Format.INTERLEAVED, Sampling())
    ids = [*stream.prompt.ids, *await decode(stream, tokens)]
    seconds, heard = await time_listen(stream, segment)
    stream.close()
    return seconds, [*ids, *heard], 1 + len(heard)


async def one_answer(engine: Engine, asked: Question, tokens: int, segments: Sequence[Segment]) -> None:
    """An answer of so many tokens that listens to these segments on its way, evenly spread."""
    stream = engine.open(asked, asked.clip(), Format.INTERLEAVED, Sampling())
    part = tokens // (len(segments) + 1)
    for segment in segments:
        await decode(stream, part)
        stream.listen(segment)
    await decode(stream, tokens - len(segments) * part)
    stream.close()


def _without_output(given: list[str]) -> list[str]:
    kept, skip = [], False
    for word in given:
        if skip or word == "--json" or word.startswith("--out"):
            skip = word == "--out"
            continue
        kept.append(word)
    return kept
