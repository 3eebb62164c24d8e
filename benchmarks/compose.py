"""How fast, and in how much memory, questions are made by rule.

python benchmarks/compose.py --clips 20000 --per-clip 5 --processes 2 [--json]

The manifest is imagined: ten-second clips with one to nine events of 60 labels, one in five with a conversation and
one in five with beats, chords, key and tempo. Memory is the sum over all processes of what they held at their most.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

# One thread a process: the processes are what runs side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from relisten.data.compose import ComposeOptions, compose
from relisten.data.manifest import Chord, ClipRecord, LabelledEvent, Music, Turn, write_manifest
from relisten.data.statistics import FileStatistics

_PAGE = os.sysconf("SC_PAGE_SIZE")
_LINES = tuple(f"Sentence number {number} is said here." for number in range(40))


def main() -> None:
    parser = argparse.ArgumentParser(description="Questions by rule: a second, and megabytes.")
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--per-clip", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_manifest(folder / "manifest.jsonl", imagined(options.clips))
        with Memory() as memory:
            begun, cpu = time.perf_counter(), _cpu()
            made = 0
            with (folder / "questions.jsonl").open("w", encoding="utf-8") as file:
                ask = ComposeOptions(per_clip=options.per_clip)
                for stretch in compose(folder / "manifest.jsonl", folder, ask, options.processes):
                    file.writelines(stretch.rows)
                    made += len(stretch.rows)
            seconds, processor_seconds = time.perf_counter() - begun, _cpu() - cpu
        measured = FileStatistics(folder / "questions.jsonl")
        for _ in measured.read():
            pass
        reasoning = measured.to_json()["reasoning"]
    result = {
        "clips": options.clips,
        "questions": made,
        "processes": options.processes,
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor_seconds, 1),
        "questions_a_second": round(made / seconds),
        "peak_megabytes": round(memory.peak / 1e6),
        "mean_words": reasoning["words"]["mean"],
        "mean_segments": reasoning["segments"]["mean"],
        "distinct_3": reasoning["distinct_3"],
        "near_duplicates": reasoning["near_duplicates"],
    }
    if options.json:
        print(json.dumps(result))
        return
    print(f"{made} questions from {options.clips} clips in {seconds:.1f} s, {options.processes} processes")
    print(f"  {made / seconds:.0f} a second; {processor_seconds:.1f} s of processor time")
    print(f"  at most {memory.peak / 1e6:.0f} MB in all processes together")
    print(
        f"  reasoning: {reasoning['words']['mean']:.1f} words, {reasoning['segments']['mean']:.2f} segments, "
        f"distinct-3 {reasoning['distinct_3']:.3f}, near-duplicates {reasoning['near_duplicates']:.2%}"
    )


def imagined(clips: int) -> Iterator[ClipRecord]:
    """Labelled clips without sound."""
    rng = np.random.default_rng(0)
    labels = [f"{first} {second}" for first in _FIRST for second in _SECOND]
    shares = rng.dirichlet(np.full(len(labels), 0.5))
    for number in range(clips):
        few = rng.choice(len(labels), size=int(rng.integers(1, 5)), replace=False, p=shares)
        onsets = np.sort(rng.uniform(0, 9.5, int(rng.integers(1, 10))))
        events = [
            LabelledEvent(
                onset=round(float(onset), 3),
                offset=round(min(10.0, float(onset + 0.1 + rng.exponential(0.8))), 3),
                label=labels[int(rng.choice(few))],
            )
            for onset in onsets
        ]
        yield ClipRecord(
            id=f"clip-{number}",
            audio=Path(f"clips/{number}.flac"),
            duration=10.0,
            hash=f"{number:064x}",
            source=f"source-{number}",
            split="train",
            resolution=0.05,
            label_set="imagined",
            events=tuple(events),
            turns=_conversation(rng) if number % 5 == 0 else None,
            music=_song(rng) if number % 5 == 1 else None,
        )


_FIRST = ("near", "distant", "wooden", "metal", "glass", "electric", "small", "large", "wet", "dull")
_SECOND = ("knock", "bell", "engine", "splash", "bark", "scrape")


def _conversation(rng: np.random.Generator) -> tuple[Turn, ...]:
    turns, time = [], 0.3
    words = rng.permutation(len(_LINES))
    for number in range(int(rng.integers(2, 7))):
        end = time + float(rng.uniform(0.7, 1.5))
        if end < 10:
            text = _LINES[int(words[number])]
            speaker = "abc"[int(rng.integers(3))]
            turns.append(
                Turn(round(time, 2), round(end, 2), speaker, text.replace(".", "?") if number % 3 == 0 else text)
            )
        time = end + float(rng.uniform(0.1, 0.6))
    return tuple(turns)


def _song(rng: np.random.Generator) -> Music:
    step = float(rng.uniform(0.4, 0.8))
    beats = tuple(round(0.2 + step * number, 3) for number in range(int(9.5 / step)))
    names = ("C", "G", "Am", "F", "Dm", "Em7")
    chords = tuple(Chord(beat, names[int(rng.integers(len(names)))]) for beat in beats[::4])
    return Music(beats, beats[::4], chords, "C major", round(60 / step, 1))


def _cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Memory:
    """The most memory that this process and its children have held together, sampled ten times a second."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            self.peak = max(self.peak, sum(_resident(process) for process in [os.getpid(), *_children()]))


def _resident(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _children() -> list[int]:
    try:
        return [
            int(child) for child in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        ]
    except OSError:
        return []


if __name__ == "__main__":
    if not sys.platform.startswith("linux"):
        print("memory is measured on Linux only and reads 0 here", file=sys.stderr)
    main()
