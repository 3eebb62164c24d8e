"""How fast questions are evaluated, as ratios measured side by side in one run.

    python benchmarks/evaluate.py [--model MODEL] [--questions 1000] [--json]

1. The whole way, as `relisten eval scenes` goes: simulate, ask, write, score. Questions a second.
2. In each round, over the same questions: all at once; one at a time (a few of them); and all at once the same
   number of sampled tokens for each question without listening to anything again. Rounds alternate and medians are
   compared, so that a busy machine slows all alike.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from relisten.audio import Clip
from relisten.engines.drive import answer
from relisten.engines.native import NativeEngine
from relisten.evaluate.benchmarks.base import BadRow
from relisten.evaluate.benchmarks.scenes import Scenes
from relisten.evaluate.results import read_run
from relisten.evaluate.run_folder import Settings, Subject, prepare
from relisten.evaluate.runner import work
from relisten.evaluate.summary import summarize_run
from relisten.models import load
from relisten.protocol import Format
from relisten.question import Question
from relisten.trace import Sampling, Trace

AT_ONCE, ALONE = 64, 8


def loaded_questions() -> Iterator[Question]:
    """Scenes questions with their sound in memory: simulating it is not what is compared."""
    for row in Scenes().rows(None):
        if not isinstance(row, BadRow):
            clip: Clip = row.clip()
            yield Question(row.text, row.choices, clip, row.id, row.answer)


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


async def compare(engine: NativeEngine, rounds: int, sampling: Sampling) -> dict[str, Any]:
    source = loaded_questions()
    seconds: list[tuple[float, float, float]] = []
    tokens = listens = 0
    for number in range(rounds + 1):
        asked = list(islice(source, AT_ONCE))
        batched, traces = await together(engine, asked, sampling)
        plain = await without_listening(engine, asked, traces)
        single = await alone(engine, asked[:ALONE], sampling)
        if number > 0:  # the first warms up
            seconds.append((batched, plain, single))
            tokens += sum(len(span.ids) for trace in traces for span in trace.generated)
            listens += sum(len(trace.listens) for trace in traces)
    batched, plain, single = (statistics.median(values) for values in zip(*seconds, strict=True))
    return {
        "at_once": AT_ONCE,
        "together_per_s": 1 / batched,
        "alone_per_s": 1 / single,
        "without_listening_per_s": 1 / plain,
        "together_over_alone": single / batched,
        "together_over_without_listening": plain / batched,
        "tokens_per_answer": tokens / (rounds * AT_ONCE),
        "listens_per_answer": listens / (rounds * AT_ONCE),
    }


def whole_way(engine: NativeEngine, count: int, sampling: Sampling) -> dict[str, Any]:
    """`relisten eval scenes` without loading the model."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(max_tokens=sampling.max_tokens)
        run = prepare(Scenes(), Path(folder) / "run", Subject(engine.model, ""), settings, limit=count)
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="echo-tiny")
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=Sampling().max_tokens)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sampling = replace(Sampling(), max_tokens=options.max_tokens)
    with NativeEngine(load(options.model, dtype="float32")) as engine:
        ratios = asyncio.run(compare(engine, options.rounds, sampling))
        run = whole_way(engine, options.questions, sampling)
    if options.json:
        print(json.dumps({"run": run, "ratios": ratios}))
        return
    print(
        f"{run['questions']} scenes questions in {run['seconds']:.0f} s: {run['questions_per_s']:.2f} a second, "
        f"accuracy {run['accuracy']:.1%}, {run['listens']:.2f} listens"
    )
    print(
        f"{AT_ONCE} at once {ratios['together_per_s']:.2f} a second, one at a time {ratios['alone_per_s']:.2f}: "
        f"{ratios['together_over_alone']:.1f} times as fast"
    )
    print(
        f"the same {ratios['tokens_per_answer']:.0f} tokens an answer without its "
        f"{ratios['listens_per_answer']:.2f} listens {ratios['without_listening_per_s']:.2f} a second: listening "
        f"runs at {ratios['together_over_without_listening']:.2f} of that speed"
    )


if __name__ == "__main__":
    main()
