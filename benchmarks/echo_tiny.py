"""How well a model answers questions about simulated scenes it never met, and whether it listens to do so.

    python benchmarks/echo_tiny.py                            # the shipped echo-tiny, test split
    python benchmarks/echo_tiny.py --split validation --model runs/tiny/checkpoint --json

Two sets of clips: up to 10 s and 10 to 30 s. Questions of every kind are answered by `Listener.ask_many`, greedily,
and set beside chance (guessing among the choices) and the commonest answer of their kind. Then the same questions
again with every crop replaced, while tags, lengths and times stay as they are: by silence, and by another part of
the same clip. What these cost is what listening again is worth.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relisten import models
from relisten.audio import Clip
from relisten.data.examples import Example
from relisten.data.questions import make_examples
from relisten.data.scenes import SceneSpec, simulate_many
from relisten.engines.native import NativeEngine
from relisten.listener import Listener
from relisten.models.base import Family
from relisten.models.checkpoint import find_folder
from relisten.models.tower import ChunkCache

SETS = {"up to 10 s": SceneSpec(long_share=0.0), "10 to 30 s": SceneSpec(long_share=1.0)}
CONTROLS = ("silence", "elsewhere")
PER_SCENE = 4


class ReplacedCrops:
    """A family that hears something else where a crop was asked for; whole clips it hears as they are.

    Args:
        family: the one to stand before.
        control: "silence", or "elsewhere": a part of the same clip, of the same length, that overlaps the crop
            as little as can be. A crop of the whole clip has no other part and stays.
        clips: the whole clips. A crop's samples are a view of one of them.
    """

    def __init__(self, family: Family, control: str, clips: Sequence[Clip]) -> None:
        self._family = family
        self._control = control
        self._whole = {clip.samples.__array_interface__["data"][0]: clip for clip in clips}
        self._starts = np.array(sorted(self._whole))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)

    def encode_audio(self, clips: Sequence[Clip], cache: ChunkCache | None = None) -> list[Tensor]:
        return self._family.encode_audio([self._replace(clip) for clip in clips], cache)

    def _replace(self, clip: Clip) -> Clip:
        address = clip.samples.__array_interface__["data"][0]
        whole = self._whole[int(self._starts[np.searchsorted(self._starts, address, side="right") - 1])]
        if clip is whole:
            return clip
        if self._control == "silence":
            return Clip(np.zeros_like(clip.samples))
        # The farther side of the clip; where the crop is most of it, what is left of that side and some more.
        first = (address - whole.samples.__array_interface__["data"][0]) // 4
        left, right = first, whole.num_samples - first - clip.num_samples
        room = max(0, (left if left > right else right) - clip.num_samples)
        shift = int(np.random.default_rng([first, clip.num_samples]).integers(room + 1))
        start = shift if left > right else whole.num_samples - clip.num_samples - shift
        return Clip(whole.samples[start : start + clip.num_samples])


@dataclass(frozen=True)
class Score:
    """How many of how many, with Wilson's 95 % interval."""

    right: int
    of: int

    @property
    def rate(self) -> float:
        return self.right / self.of

    @property
    def interval(self) -> tuple[float, float]:
        z, n, p = 1.96, self.of, self.rate
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return middle - half, middle + half

    def as_json(self) -> dict[str, Any]:
        low, high = self.interval
        return {"accuracy": round(self.rate, 4), "low": round(low, 4), "high": round(high, 4), "n": self.of}


def questions(split: str, seed: int, spec: SceneSpec, number: int, processes: int) -> list[Example]:
    """`number` questions about as many scenes as that takes, `PER_SCENE` a scene."""
    found: list[Example] = []
    rng = np.random.default_rng([seed, 7])
    scenes = simulate_many(split, seed, 0, number, spec, processes=processes)
    for scene in scenes:
        found += make_examples(scene, rng, per_scene=PER_SCENE)
        if len(found) >= number:
            break
    return found[:number]


def ask(family: Family, examples: Sequence[Example], format: str, control: str | None) -> list[Any]:
    """The traces of all questions, in order."""
    clips = {id(e.question.audio): e.question.audio for e in examples}
    if control is not None:
        whole = [clip for clip in clips.values() if isinstance(clip, Clip)]
        family = ReplacedCrops(family, control, whole)
    with Listener(NativeEngine(family)) as listener:
        return listener.ask_many([e.question for e in examples], format=format, max_tokens=400)


def by_kind(examples: Sequence[Example], traces: Sequence[Any]) -> dict[str, Score]:
    """Score of each kind and of "all"."""
    right: Counter[str] = Counter()
    of: Counter[str] = Counter()
    for example, trace in zip(examples, traces, strict=True):
        for name in (example.kind, "all"):
            of[name] += 1
            right[name] += trace.answer == example.question.answer
    return {name: Score(right[name], of[name]) for name in sorted(of, key=lambda name: (name == "all", name))}


def baselines(examples: Sequence[Example]) -> dict[str, tuple[float, float]]:
    """Chance and the share of the commonest answer, of each kind and over all."""
    kinds: dict[str, list[Example]] = {}
    for example in examples:
        kinds.setdefault(example.kind, []).append(example)
    found, most = {}, 0
    for kind, group in kinds.items():
        commonest = Counter(e.question.answer for e in group).most_common(1)[0][1]
        found[kind] = (float(np.mean([1 / len(e.question.choices) for e in group])), commonest / len(group))
        most += commonest
    chance = float(np.mean([1 / len(e.question.choices) for e in examples]))
    return {**found, "all": (chance, most / len(examples))}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    family = models.load(options.model, dtype="float32")
    folder = checkpoint_folder(options.model)
    report: dict[str, Any] = {
        "command": " ".join(["python benchmarks/echo_tiny.py", *sys.argv[1:]]),
        "commit": commit(),
        "weights_sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "split": options.split,
        "seed": options.seed,
        "format": options.format,
        "sets": {},
    }
    for name, spec in SETS.items():
        number = options.questions if name == next(iter(SETS)) else options.questions // 2
        if number == 0:
            continue
        examples = questions(options.split, options.seed, spec, number, options.processes)
        begun = time.perf_counter()
        traces = ask(family, examples, options.format, None)
        seconds = time.perf_counter() - begun
        listens = [len(trace.segments) for trace in traces]
        result: dict[str, Any] = {
            "questions": len(examples),
            "questions_per_second": round(len(examples) / seconds, 1),
            "listens_per_question": round(float(np.mean(listens)), 2),
            "without_answer": sum(trace.answer is None for trace in traces),
            "kinds": {kind: score.as_json() for kind, score in by_kind(examples, traces).items()},
        }
        for kind, (chance, majority) in baselines(examples).items():
            result["kinds"][kind] |= {"chance": round(chance, 4), "majority": round(majority, 4)}
        for control in () if options.no_controls else CONTROLS:
            scores = by_kind(examples, ask(family, examples, options.format, control))
            for kind, score in scores.items():
                result["kinds"][kind][control] = round(score.rate, 4)
        report["sets"][name] = result
        if not options.json:
            print_table(name, result)
    return report


def checkpoint_folder(model: str) -> Path:
    return find_folder(Path(models.__file__).parent / "checkpoints" / model if model == models.ECHO_TINY else model)


def commit() -> str | None:
    """The commit that is checked out, with "+" where files differ from it; None outside a repository."""
    run = partial(subprocess.run, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    try:
        changed = run(["git", "status", "--porcelain", "--untracked-files=no"]).stdout.strip()
        return run(["git", "rev-parse", "HEAD"]).stdout.strip() + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def print_table(name: str, result: dict[str, Any]) -> None:
    controls = [control for control in CONTROLS if control in result["kinds"]["all"]]
    print(
        f"\nclips {name}: {result['questions']} questions, {result['listens_per_question']} listens a question, "
        f"{result['without_answer']} without an answer, {result['questions_per_second']} questions/s"
    )
    heads = ["accuracy", "95 % interval", "n", "chance", "majority", *controls]
    print(f"{'kind':<14}" + "".join(f"{head:>15}" for head in heads))
    for kind, row in result["kinds"].items():
        cells = [
            f"{row['accuracy']:.3f}", f"{row['low']:.3f}-{row['high']:.3f}", str(row["n"]),
            f"{row['chance']:.3f}", f"{row['majority']:.3f}", *(f"{row[control]:.3f}" for control in controls),
        ]  # fmt: skip
        print(f"{kind:<14}" + "".join(f"{cell:>15}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=models.ECHO_TINY, help="echo-tiny or a checkpoint folder")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--questions", type=int, default=1200, help="about short clips; half as many about long ones"
    )
    parser.add_argument("--format", choices=("interleaved", "grounded", "text"), default="interleaved")
    parser.add_argument("--no-controls", action="store_true")
    parser.add_argument("--processes", type=int, default=2, help="for rendering scenes")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--write", action="store_true", help="also write metrics.json beside the model's weights")
    report = measure(options := parser.parse_args())
    if options.write:
        path = checkpoint_folder(options.model) / "metrics.json"
        path.write_text(json.dumps(report, indent=2) + "\n")
    if options.json:
        print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
