"""How fast questions are evaluated, as ratios measured side by side in one run.

    python benchmarks/evaluate.py [--model MODEL] [--questions 1000] [--json] [--out FILE]

1. The whole way, as `relisten eval scenes` goes: simulate, ask, write, score. Questions a second.
2. In each round, over the same questions: all at once; one at a time (a few of them); all at once the same number
   of sampled tokens for each question without listening to anything again; and a few of the same answers the
   released way (one at a time, at every turn the whole text again with all its sounds padded to 300 s). Rounds
   alternate and medians are compared, so that a busy machine slows all alike.
3. Such questions in one process, and in as many as there are processors at the same time (`--processes` of
   `relisten eval`), each with a model and questions of its own.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch
from _measuring import Figure, Run, arguments, scene_questions
from _stock import Stock

from relisten.engines.drive import answer
from relisten.engines.native import NativeEngine
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

AT_ONCE, ALONE, REPLAYED = 64, 8, 2


async def together(
    engine: NativeEngine, asked: Sequence[Question], sampling: Sampling
) -> tuple[float, list[Trace]]:
    began = time.perf_counter()
    traces = await asyncio.gather(*(answer(engine, question, sampling=sampling) for question in asked))
    return (time.perf_counter() - began) / len(asked), list(traces)


async def alone(engine: NativeEngine, asked: Sequence[Question], sampling: Sampling) -> float:
    began = time.perf_counter()
    for question in asked:
        await answer(engine, question, sampling=sampling)
    return (time.perf_counter() - began) / len(asked)


async def without_listening(engine: NativeEngine, asked: Sequence[Question], traces: Sequence[Trace]) -> float:
    """Seconds a question for as many tokens as were sampled before, prompts the same, and no crop."""

    async def one(question: Question, trace: Trace) -> None:
        left = sum(len(span.ids) for span in trace.generated)

        def feed(piece: str, end_of_turn: bool) -> bool:
            nonlocal left
            left -= 1
            return left == 0

        stream = engine.open(question, question.clip(), Format.INTERLEAVED, Sampling())
        while left > 0:  # an end of turn in between does not count
            await stream.decode(feed)
        stream.close()

    began = time.perf_counter()
    await asyncio.gather(*(one(*pair) for pair in zip(asked, traces, strict=True)))
    return (time.perf_counter() - began) / len(asked)


def compare(engine: NativeEngine, stock: Stock, rounds: int, sampling: Sampling) -> dict[str, float]:
    """Medians of seconds a question on each side, and what the answers were like."""
    source = iter(scene_questions(AT_ONCE * (rounds + 1)))
    seconds: list[tuple[float, float, float, float]] = []
    tokens = listens = 0
    for number in range(rounds + 1):
        asked = list(islice(source, AT_ONCE))
        batched, traces = asyncio.run(together(engine, asked, sampling))
        plain = asyncio.run(without_listening(engine, asked, traces))
        single = asyncio.run(alone(engine, asked[:ALONE], sampling))
        replayed = [stock.replay(*pair) for pair in zip(traces[:REPLAYED], (q.clip() for q in asked), strict=False)]
        if number > 0:  # the first warms up
            seconds.append((batched, plain, single, statistics.mean(replayed)))
            tokens += sum(len(span.ids) for trace in traces for span in trace.generated)
            listens += sum(len(trace.listens) for trace in traces)
    names = ("together", "without_listening", "alone", "released")
    found = dict(zip(names, map(statistics.median, zip(*seconds, strict=True)), strict=True))
    return found | {"tokens": tokens / (rounds * AT_ONCE), "listens": listens / (rounds * AT_ONCE)}


def in_processes(model: str, processes: int, rounds: int, sampling: Sampling) -> float:
    """Questions a second of that many processes together, from when all of them are warm."""
    spawn = multiprocessing.get_context("spawn")
    ready, seconds = spawn.Barrier(processes), spawn.Queue()
    threads = max(1, usable_processors() // processes)
    given = (model, threads, rounds, sampling, ready, seconds)
    started = [spawn.Process(target=_answer, args=given) for _ in range(processes)]
    for process in started:
        process.start()
    longest: float = max(seconds.get() for _ in started)
    for process in started:
        process.join()
    return processes * rounds * AT_ONCE / longest


def _answer(
    model: str, threads: int, rounds: int, sampling: Sampling, ready: Barrier, seconds: Queue[float]
) -> None:
    torch.set_num_threads(threads)
    asked = scene_questions(AT_ONCE * (rounds + 1))
    with NativeEngine(load(model, dtype="float32")) as engine:
        asyncio.run(together(engine, asked[:AT_ONCE], sampling))
        ready.wait()
        began = time.perf_counter()
        for first in range(AT_ONCE, len(asked), AT_ONCE):
            asyncio.run(together(engine, asked[first : first + AT_ONCE], sampling))
        seconds.put(time.perf_counter() - began)


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
    parser = arguments(__doc__, repeats=5, threads=usable_processors())
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=usable_processors())
    parser.add_argument("--max-tokens", type=int, default=Sampling().max_tokens)
    options = parser.parse_args()
    bench = Run(options)
    sampling = replace(Sampling(), max_tokens=options.max_tokens)
    family = load(options.model, dtype="float32")
    with NativeEngine(family) as engine:
        found = compare(engine, Stock(family), options.repeats, sampling)
        whole = whole_way(engine, options.questions, sampling)
    one, many = (in_processes(options.model, count, options.repeats, sampling) for count in (1, options.processes))
    together = found["together"]
    bench.finish(
        [
            Figure(f"{options.questions} questions simulated, asked, written and scored", whole["seconds"], "s"),
            Figure(f"{AT_ONCE} questions at once", 1 / together, "a second"),
            Figure("questions the released way", 1 / found["released"], "a second"),
            Figure("times as fast as the released way", found["released"] / together, goal="20"),
            Figure("times as fast as one at a time", found["alone"] / together),
            Figure("speed with listening over the same tokens without", found["without_listening"] / together),
            Figure(f"questions in {options.processes} processes", many, "a second"),
            Figure(f"{options.processes} processes over one", many / one),
            Figure(f"{options.processes} processes over one of the released way", found["released"] * many),
        ],
        run=whole,
        ratios=found,
    )


if __name__ == "__main__":
    main()
