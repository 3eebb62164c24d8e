"""What routing costs an answer that it leaves direct, as ratios measured side by side in one run.

    python benchmarks/routing.py [--model MODEL] [--questions N] [--rounds N] [--threads 1] [--json]

1. A direct answer behind a policy that reads the model's hidden states (`head`, fresh: it always chooses direct),
   against the same answer with no router.
2. The same for a policy that would read the prompt by itself first, and then have it answered from the start.
3. An answer behind a tool that costs nothing, which goes on from what the policy has seen, against one to a prompt
   that holds the same finding from the start.

Questions are held-out simulated scenes; one answer at a time, greedy, so that all sides of a ratio write the same
tokens. All sides alternate within a round; a ratio is the median over the questions of all rounds, of wall time and
of processor time, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from _measuring import scene_questions

from relisten.audio import Clip
from relisten.engines.base import Look
from relisten.engines.drive import answer
from relisten.engines.native import NativeEngine
from relisten.models import default_dtype, load, resolve_device
from relisten.protocol import Format, Segment
from relisten.question import Question
from relisten.router.answering import Router
from relisten.router.decision import Decision
from relisten.router.head import Head, HeadPolicy, Reads
from relisten.router.routes import DIRECT, Route, default_routes
from relisten.tools.finding import Finding
from relisten.tools.tool import tool
from relisten.trace import Sampling, Trace

FREE = Route(("free",))


@dataclass(frozen=True)
class Told(Finding):
    def text(self) -> str:
        return "4 sounds at 0.40, 1.25, 2.10, 3.00 s"


@tool("free", "costs nothing")
def free(clip: Clip, window: Segment | None = None) -> Told:
    return Told()


class Always:
    """Looks at what the head looks at, lets it decide, and takes one route whatever it says."""

    looks = True

    def __init__(self, policy: HeadPolicy, route: Route) -> None:
        self.routes = (*policy.routes, route)
        self._policy = policy
        self._route = route

    def decide(self, question: Question, clip: Clip, look: Look | None = None) -> Decision:
        return replace(self._policy.decide(question, clip, look), route=self._route)


def fresh_policy(engine: NativeEngine, one: Question) -> HeadPolicy:
    """A head of the usual size that has learned nothing: all routes are equally likely, and direct is the first."""
    look = asyncio.run(look_at(engine, one))
    layers = len(look.last)
    reads = Reads((layers // 2, layers - 1))
    routes = default_routes()
    head = Head(len(reads.of(look)), len(routes), hidden=16)
    return HeadPolicy(routes, head, reads, reasoner="")


async def look_at(engine: NativeEngine, one: Question) -> Look:
    stream = engine.open(one, one.clip(), Format.INTERLEAVED, Sampling())
    look = await stream.look()
    stream.close()
    return look


class Spent(NamedTuple):
    """Seconds."""

    wall: float
    processor: float


async def timed(work: Callable[[], Awaitable[Trace]]) -> tuple[Spent, Trace]:
    began = time.perf_counter(), time.process_time()
    trace = await work()
    return Spent(time.perf_counter() - began[0], time.process_time() - began[1]), trace


async def measure(
    engine: NativeEngine, policy: HeadPolicy, asked: list[Question], rounds: int
) -> dict[str, list[Spent]]:
    """Times of every answer, by name of the side; those of one question stand at one place."""
    routed, to_tool = Router(policy), Router(Always(policy, FREE))

    async def twice(one: Question) -> Trace:
        policy.decide(one, one.clip(), await look_at(engine, one))
        return await answer(engine, one)

    sides: dict[str, Callable[[Question], Awaitable[Trace]]] = {
        "plain": lambda one: answer(engine, one),
        "routed": lambda one: routed.answer(engine, one),
        "read_twice": twice,
        "told": lambda one: answer(engine, replace(one, findings=(f"[free] {Told().text()}",))),
        "tool": lambda one: to_tool.answer(engine, one),
    }
    times: dict[str, list[Spent]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for number, one in enumerate(asked):
            names = list(sides)
            shift = (turn + number) % len(names)  # no side is always the first
            traces = {}
            for name in names[shift:] + names[:shift]:
                spent, traces[name] = await timed(partial(sides[name], one))
                if turn:  # the first round warms up
                    times[name].append(spent)
            assert traces["plain"].token_ids == traces["routed"].token_ids == traces["read_twice"].token_ids
            assert traces["routed"].routing is not None
            assert traces["routed"].routing.route == DIRECT.name
            assert traces["told"].token_ids == traces["tool"].token_ids
    return times


def ratios(times: dict[str, list[Spent]], side: str, base: str) -> Spent:
    pairs = list(zip(times[side], times[base], strict=True))
    wall = statistics.median(one.wall / other.wall for one, other in pairs)
    return Spent(wall, statistics.median(one.processor / other.processor for one, other in pairs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="echo-tiny")
    parser.add_argument("--questions", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = resolve_device("auto")
    family = load(options.model, dtype=default_dtype(device), device=device)
    asked = scene_questions(options.questions)
    with NativeEngine(family) as engine:
        policy = fresh_policy(engine, asked[0])
        times = asyncio.run(measure(engine, policy, asked, options.rounds))
    found = {
        "routed_over_plain": ratios(times, "routed", "plain"),
        "read_twice_over_plain": ratios(times, "read_twice", "plain"),
        "tool_over_told": ratios(times, "tool", "told"),
    }
    plain = statistics.median(one.wall for one in times["plain"])
    if options.json:
        about = {"device": device, "answers": len(times["plain"]), "direct_answer_seconds": plain}
        print(json.dumps(about | {name: one._asdict() for name, one in found.items()}))
        return
    print(f"a direct answer: {1000 * plain:.0f} ms, {len(times['plain'])} answers on {device}")
    print(f"{'times':22}   wall  processor")
    for name, one in found.items():
        print(f"{name:22} {one.wall:6.3f}  {one.processor:6.3f}")


if __name__ == "__main__":
    main()
