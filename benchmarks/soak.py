"""Hundreds of answers in flight for a long time, many of them cancelled at random: does anything leak?

    python benchmarks/soak.py [--minutes 10] [--in-flight 500] [--json] [--out FILE]

Answers about simulated scenes, sampled at temperature 1, half of them cancelled at a random moment of their life,
some given up right away, some on clips too short to be heard; a new one for each that ended. It passes if

* no answer is cancelled that was not told to, and none fails but on the clips that are too short,
* no slot is taken when all have ended, and the engine still answers then,
* memory is flat: the straight line through its samples after the first fifth of the time grows by less than
  `--growth` MB over the rest of it (the chunk cache may fill by 34 MB meanwhile, and never holds more), and
* nothing waited for ever: all answers still open at the end come back within two minutes.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from _measuring import Figure, Run, arguments, scene_questions

from relisten.audio import Clip
from relisten.engines.drive import answer_or_failure
from relisten.engines.native import NativeEngine
from relisten.errors import EngineError
from relisten.models import load
from relisten.protocol import Finish, Format
from relisten.question import Question
from relisten.trace import Sampling

QUESTIONS = 64
CANCELLED, AT_ONCE, TOO_SHORT = 0.5, 0.05, 0.02  # shares of answers


@dataclass
class Seen:
    """What was seen."""

    ends: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[float, float]] = field(default_factory=list)
    """(seconds, MB) while it ran."""
    lost: int = 0
    """Answers that were cancelled by nobody here."""
    broken: int = 0
    """Answers that failed for another reason than a clip too short to be heard."""
    leaked: int = 0
    stuck: int = 0
    answers_after: bool = False

    @property
    def growth(self) -> float:
        """MB that a straight line through memory grew by, the first fifth of the time left out."""
        last = self.memory[-1][0] if self.memory else 0.0
        times, sizes = np.array([m for m in self.memory if m[0] >= last / 5] or [(0.0, 0.0)]).T
        if len(times) < 3:
            return 0.0
        return float(np.polyfit(times, sizes, 1)[0] * (times[-1] - times[0]))

    def failures(self, growth: float) -> list[str]:
        """What did not hold, in words."""
        found = {
            f"{self.lost} answers were cancelled by nobody": self.lost > 0,
            f"{self.broken} answers failed": self.broken > 0,
            f"{self.leaked} slots are still taken": self.leaked > 0,
            f"{self.stuck} answers never came back": self.stuck > 0,
            "the engine does not answer any more": not self.answers_after,
            f"memory grew by {self.growth:.1f} MB": self.growth > growth,
        }
        return [what for what, failed in found.items() if failed]


def memory() -> float:
    """MB of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def soak(engine: NativeEngine, asked: list[Question], seconds: float, in_flight: int) -> Seen:
    seen, random = Seen(), np.random.default_rng(0)
    short = Question("How long?", (), Clip(np.zeros(100, np.float32)))
    began = time.perf_counter()
    ending = False

    async def one(number: int) -> None:
        sampling = Sampling(temperature=1.0, seed=number, max_tokens=int(random.integers(20, 300)))
        question = short if random.random() < TOO_SHORT else asked[int(random.integers(len(asked)))]
        task = asyncio.ensure_future(
            answer_or_failure(engine, question, format=Format.INTERLEAVED, sampling=sampling)
        )
        kind = random.random()
        try:
            if kind < CANCELLED:
                await asyncio.sleep(0 if kind < AT_ONCE else random.exponential(10.0))
                task.cancel()
            finish = (await task).finish
            seen.ends[str(finish)] += 1
            seen.broken += finish is Finish.FAILED and question is not short
        except asyncio.CancelledError:
            seen.ends["cancelled"] += 1
            seen.lost += kind >= CANCELLED and not ending

    running: set[asyncio.Task[None]] = set()
    number = 0
    while (now := time.perf_counter() - began) < seconds:
        while len(running) < in_flight:
            running.add(asyncio.ensure_future(one(number)))
            number += 1
        if not seen.memory or now - seen.memory[-1][0] >= seconds / 200:
            seen.memory.append((now, memory()))
        done, running = await asyncio.wait(running, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    # What is open is given up as everybody gives up at once.
    ending = True
    for task in running:
        task.cancel()
    _, stuck = await asyncio.wait(running, timeout=120)
    seen.stuck = len(stuck)
    for _ in range(1200):
        if engine.open_rows == 0:
            break
        await asyncio.sleep(0.1)
    seen.leaked = engine.open_rows
    try:
        after = await answer_or_failure(engine, asked[0], format=Format.TEXT, sampling=Sampling(max_tokens=5))
        seen.answers_after = after.finish in (Finish.LENGTH, Finish.ANSWER, Finish.NO_ANSWER)
    except EngineError:
        seen.answers_after = False
    return seen


def _told(end: str) -> str:
    return f"{end} (some clips are too short on purpose)" if end == Finish.FAILED else end


def main() -> None:
    parser = arguments(__doc__, repeats=None)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--in-flight", type=int, default=500)
    parser.add_argument("--growth", type=float, default=40, help="MB of growth that still count as flat")
    options = parser.parse_args()
    run = Run(options)
    with NativeEngine(load(options.model, dtype="float32"), max_rows=options.in_flight) as engine:
        seen = asyncio.run(soak(engine, scene_questions(QUESTIONS), 60 * options.minutes, options.in_flight))
    failures = seen.failures(options.growth)
    sizes = [size for _, size in seen.memory]
    run.finish(
        [
            Figure("minutes", options.minutes),
            Figure("answers in flight", options.in_flight),
            *(Figure(f"answers that ended: {_told(end)}", count) for end, count in seen.ends.most_common()),
            Figure("cancelled by nobody", seen.lost, goal="0"),
            Figure("failed on clips long enough", seen.broken, goal="0"),
            Figure("slots still taken", seen.leaked, goal="0"),
            Figure("answers that never came back", seen.stuck, goal="0"),
            Figure("memory, lowest", min(sizes), "MB"),
            Figure("memory, highest", max(sizes), "MB"),
            Figure("memory grew by, straight line", seen.growth, "MB", f"below {options.growth:g}"),
            Figure("passed", float(not failures), goal="1"),
        ],
        failures=failures,
        memory=seen.memory,
    )
    if failures:
        sys.exit("FAIL: " + "; ".join(failures))
    if not options.json:
        print("PASS")


if __name__ == "__main__":
    main()
