"""How fast questions are evaluated, as ratios measured side by side in one run.

    python benchmarks/evaluate.py [--model MODEL] [--questions 1000] [--threads 1 2] [--json] [--out FILE]

1. In each round, over the same questions: all at once, three times as many as the engine has rows, so that new ones
   come as others end, as in a benchmark of a thousand; all at once the same number of sampled tokens for each
   question without listening to anything again; one at a time, 8 of them, spread evenly over how much these answers
   listen and write; and the answers to these 8 the released way (one at a time, at every turn the whole text again
   with all its sounds padded to 300 s).
2. The first and the last of these also in as many processes as there are processors (`--processes` of
   `relisten eval`), which all get these questions at the same time, each with a model of its own.
3. The whole way, as `relisten eval scenes` goes: simulate, ask, write, score. Questions a second.

All sides take their turns in every round and medians are compared, so that a busy machine slows all alike. One
process works with each of `--threads`, ours and the released way's alike, and the best of each counts; the details
tell all.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from _measuring import Figure, Run, arguments, scene_questions
from _stock import Stock, counts, spread

from relisten.engines.drive import answer
from relisten.engines.native import MAX_ROWS, NativeEngine
from relisten.evaluate.benchmarks.scenes import Scenes
from relisten.evaluate.results import read_run
from relisten.evaluate.run_folder import Evaluated, Settings, prepare
from relisten.evaluate.runner import work
from relisten.evaluate.summary import summarize_run
from relisten.models import load
from relisten.processes import usable_processors
from relisten.protocol import Format
from relisten.question import Question
from relisten.trace import Sampling, Trace

FEW = 8
IN_ONE = ("together", "without_listening", "alone", "released")
IN_SEVERAL = ("together", "released")


class Shape(NamedTuple):
    processes: int
    threads: int
    """Of PyTorch, in each."""


class Worker:
    """What a process of a side can do; `together` comes first in a round, the others are about its answers."""

    def __init__(self, model: str, threads: int, sampling: Sampling) -> None:
        torch.set_num_threads(threads)
        family = load(model, dtype="float32")
        self._engine, self._stock, self._sampling = NativeEngine(family, threads=threads), Stock(family), sampling
        self._asked: list[Question] = []
        self._traces: list[Trace] = []
        self._few: list[int] = []

    def take(self, asked: list[Question]) -> None:
        self._asked = asked

    def together(self) -> int:
        async def work() -> list[Trace]:
            return await asyncio.gather(*(self._answer(question) for question in self._asked))

        self._traces = asyncio.run(work())
        self._few = spread(self._traces, FEW)
        return len(self._asked)

    def alone(self) -> int:
        async def work() -> None:
            for place in self._few:
                await self._answer(self._asked[place])

        asyncio.run(work())
        return len(self._few)

    def without_listening(self) -> int:
        asyncio.run(without_listening(self._engine, self._asked, self._traces))
        return len(self._asked)

    def released(self) -> int:
        for place in self._few:
            self._stock.replay(self._traces[place], self._asked[place].clip())
        return len(self._few)

    def described(self) -> dict[str, dict[str, float]]:
        return {"all": counts(self._traces), "few": counts([self._traces[place] for place in self._few])}

    async def _answer(self, question: Question) -> Trace:
        return await answer(self._engine, question, sampling=self._sampling)


async def without_listening(engine: NativeEngine, asked: Sequence[Question], traces: Sequence[Trace]) -> None:
    """As many tokens as were sampled before, prompts the same, and no crop."""

    async def one(question: Question, trace: Trace) -> None:
        left = len(trace.logprobs)

        def feed(piece: str, end_of_turn: bool) -> bool:
            nonlocal left
            left -= 1
            return left == 0

        stream = engine.open(question, question.clip(), Format.INTERLEAVED, Sampling())
        while left > 0:  # an end of turn in between does not count
            await stream.decode(feed)
        stream.close()

    await asyncio.gather(*(one(*pair) for pair in zip(asked, traces, strict=True)))


class Side:
    """Processes that do the same things at the same time, each with a model of its own."""

    def __init__(self, model: str, shape: Shape, sampling: Sampling) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.shape = shape
        self._pipes: list[Connection] = []
        for _ in range(shape.processes):
            here, there = spawn.Pipe()
            spawn.Process(target=_work, args=(there, model, shape.threads, sampling), daemon=True).start()
            there.close()
            self._pipes.append(here)

    def do(self, what: str, *given: Any) -> Any:
        """What one of them returned, when all have done it."""
        for pipe in self._pipes:
            pipe.send((what, given))
        replies = [pipe.recv() for pipe in self._pipes]
        return replies[0]

    def seconds(self, what: str) -> float:
        """Seconds a question, over all processes."""
        began = time.perf_counter()
        questions = self.do(what)
        return (time.perf_counter() - began) / (questions * self.shape.processes)


def _work(pipe: Connection, model: str, threads: int, sampling: Sampling) -> None:
    worker = Worker(model, threads, sampling)
    with contextlib.suppress(EOFError):  # nobody asks any more
        while True:
            what, given = pipe.recv()
            pipe.send(getattr(worker, what)(*given))


def compare(sides: Sequence[Side], rounds: int, at_once: int) -> tuple[dict[Shape, dict[str, float]], list[Any]]:
    """Medians of questions a second, and what the answers of each round were like."""
    asked = scene_questions(at_once * (rounds + 1))
    seconds: dict[Shape, dict[str, list[float]]] = {
        side.shape: {what: [] for what in (IN_ONE if side.shape.processes == 1 else IN_SEVERAL)} for side in sides
    }
    described = []
    for first in range(0, len(asked), at_once):
        for side in sides:
            side.do("take", asked[first : first + at_once])
            for what, found in seconds[side.shape].items():
                found.append(side.seconds(what))
        described.append(sides[0].do("described"))
    rates = {
        shape: {what: 1 / statistics.median(found[1:]) for what, found in each.items()}  # the first warms up
        for shape, each in seconds.items()
    }
    return rates, described[1:]


def best(rates: Mapping[Shape, Mapping[str, float]], processes: int, what: str) -> tuple[float, int]:
    """The most questions a second in so many processes, and with how many threads in each."""
    return max((each[what], shape.threads) for shape, each in rates.items() if shape.processes == processes)


def whole_way(engine: NativeEngine, count: int, sampling: Sampling) -> dict[str, Any]:
    """`relisten eval scenes` without loading the model."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(sampling=replace(sampling, seed=0))
        run = prepare(Scenes(), Path(folder) / "run", Evaluated(engine.model, ""), settings, limit=count)
        work(run, engine)
        summary = summarize_run(read_run(Path(folder) / "run"))
    seconds = time.perf_counter() - began
    return {
        "questions": count,
        "seconds": seconds,
        "questions_per_s": count / seconds,
        "accuracy": summary.main.overall.accuracy,
        "listens": summary.listens,
    }


def main() -> None:
    processors = usable_processors()
    parser = arguments(__doc__, repeats=3, threads=sorted({1, processors}))
    parser.add_argument("--questions", type=int, default=1000, help="of the whole way")
    parser.add_argument("--at-once", type=int, default=3 * MAX_ROWS, help="questions of a round")
    parser.add_argument("--processes", type=int, default=processors)
    parser.add_argument("--max-tokens", type=int, default=Sampling().max_tokens)
    options = parser.parse_args()
    bench = Run(options)
    sampling = replace(Sampling(), max_tokens=options.max_tokens)
    many = options.processes
    shapes = {*(Shape(1, threads) for threads in options.threads), Shape(many, max(1, processors // many))}
    rates, described = compare(
        [Side(options.model, shape, sampling) for shape in sorted(shapes)], options.repeats, options.at_once
    )
    (together, threads), (released, released_threads) = (best(rates, 1, what) for what in ("together", "released"))
    side_by_side, released_side_by_side = (best(rates, many, what)[0] for what in ("together", "released"))
    torch.set_num_threads(threads)
    with NativeEngine(load(options.model, dtype="float32"), threads=threads) as engine:
        whole = whole_way(engine, options.questions, sampling)
    bench.finish(
        [
            Figure(f"{options.questions} questions simulated, asked, written and scored", whole["seconds"], "s"),
            Figure(f"{options.at_once} questions at once", together, "a second"),
            Figure("questions the released way", released, "a second"),
            Figure("times as fast as the released way", together / released, goal="20"),
            Figure("times as fast as one at a time", together / best(rates, 1, "alone")[0]),
            Figure(
                "speed with listening over the same tokens without",
                together / best(rates, 1, "without_listening")[0],
            ),
            Figure(f"questions in {many} processes", side_by_side, "a second"),
            Figure(f"{many} processes over one", side_by_side / together),
            Figure(f"questions the released way in {many} processes", released_side_by_side, "a second"),
            Figure(f"{many} processes over {many} of the released way", side_by_side / released_side_by_side),
        ],
        run=whole,
        threads={"ours": threads, "released": released_threads},
        rates=[{**shape._asdict(), **each} for shape, each in rates.items()],
        answers=described,
    )


if __name__ == "__main__":
    main()
