"""The native engine against vLLM, and both against the released way on vLLM, as ratios measured in one run.

    .venv-vllm/bin/pip install --no-deps --target .venv-vllm/torchvision torchvision==0.28.0
    .venv-vllm/bin/python benchmarks/engines.py --torchvision .venv-vllm/torchvision [--json] [--out FILE]

Over the same questions (held-out scenes), greedy, in rounds that alternate:

1. our vLLM engine and the native engine, all questions at once;
2. both, other questions one at a time;
3. the released way (`_released.py`): the same vLLM with its stock processor, one question at a time, a call a turn,
   text and sounds sent again, every sound padded to 300 s. Each takes it seconds, so it is asked all of the second
   questions and as many of the first, spread evenly over how much vLLM's answers listen and write.

Every round has new sounds, so that nobody finds them in a cache. Medians over rounds are compared; the first round
warms up and does not count. All in `--dtype`, on the CPU or, without the released way, on a GPU that both engines
share. `--torchvision` is left out where torchvision works as installed; `--no-released` leaves out what needs it.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from _measuring import Figure, Run, arguments, scene_questions
from _released import Released, prompt_text
from _stock import spread

from relisten.engines.base import Engine
from relisten.engines.drive import answer
from relisten.engines.native import NativeEngine
from relisten.engines.vllm import load as load_vllm
from relisten.models import load, locate
from relisten.protocol import Format, system_prompt, user_text
from relisten.question import Question
from relisten.trace import Sampling, Trace

CONTEXT = 2048


def timed(
    engine: Engine, asked: Sequence[Question], sampling: Sampling, at_once: bool
) -> tuple[float, list[Trace]]:
    """Seconds a question, and the answers."""

    async def work() -> list[Trace]:
        if at_once:
            return list(await asyncio.gather(*(answer(engine, one, sampling=sampling) for one in asked)))
        return [await answer(engine, one, sampling=sampling) for one in asked]

    began = time.perf_counter()
    traces = asyncio.run(work())
    return (time.perf_counter() - began) / len(asked), traces


class Comparison:
    """Rounds over all sides."""

    def __init__(self, vllm: Engine, native: Engine, released: Released | None, sampling: Sampling) -> None:
        self._engines = {"vllm": vllm, "native": native}
        self._released = released
        self._sampling = sampling
        self.seconds: dict[str, list[float]] = {}
        self.counts: dict[str, Counter[str]] = {}
        """What answers were like: vLLM's ("same" as native's), and the released way's ("same" as vLLM's)."""

    def round(self, alone: Sequence[Question], together: Sequence[Question]) -> None:
        for kind, asked in (("together", together), ("alone", alone)):
            answers = {}
            for name, engine in self._engines.items():
                seconds, answers[name] = timed(engine, asked, self._sampling, at_once=kind == "together")
                self._note(f"{name}_{kind}", seconds)
            for ours, native in zip(*answers.values(), strict=True):
                self._count(kind, len(ours.logprobs), len(ours.listens), ours.token_ids == native.token_ids)
            if self._released is not None:
                few = spread(answers["vllm"], len(alone))
                self._ask_released(kind, [asked[place] for place in few], [answers["vllm"][place] for place in few])

    def _ask_released(self, kind: str, asked: Sequence[Question], ours: Sequence[Trace]) -> None:
        assert self._released is not None
        system = system_prompt(Format.INTERLEAVED)
        prompts = [prompt_text(one, system, user_text(one)) for one in asked]
        turns = self._released.ask(prompts, [one.clip() for one in asked], self._sampling.max_tokens)
        self._note(f"released_{kind}", turns.seconds / len(asked))
        for text, tokens, listens, trace in zip(turns.texts, turns.tokens, turns.listens, ours, strict=True):
            self._count(f"released_{kind}", tokens, listens, text == trace.text)

    def _count(self, side: str, tokens: int, listens: int, same: bool) -> None:
        self.counts.setdefault(side, Counter()).update(answers=1, tokens=tokens, listens=listens, same=same)

    def _note(self, name: str, seconds: float) -> None:
        self.seconds.setdefault(name, []).append(seconds)

    def figures(self) -> list[Figure]:
        median = {name: statistics.median(values[1:]) for name, values in self.seconds.items()}
        figures = [
            Figure("vLLM, all at once", 1 / median["vllm_together"], "questions/s"),
            Figure("native, all at once", 1 / median["native_together"], "questions/s"),
            Figure("vLLM over native, all at once", median["native_together"] / median["vllm_together"]),
            Figure("vLLM over native, one at a time", median["native_alone"] / median["vllm_alone"]),
            Figure("answers of vLLM that are native's to the token", self._same("together", "alone"), "%"),
        ]
        if self._released is not None:
            released = median["released_together"]
            figures += [
                Figure("the released way on the same vLLM", 1 / released, "questions/s"),
                Figure("vLLM, times as fast as the released way", released / median["vllm_together"], goal="20"),
                Figure(
                    "native, times as fast as the released way", released / median["native_together"], goal="20"
                ),
                Figure("vLLM one at a time, times as fast", median["released_alone"] / median["vllm_alone"]),
                Figure(
                    "answers of the released way that are vLLM's to the letter",
                    self._same("released_together", "released_alone"),
                    "%",
                ),
            ]
        return figures

    def _same(self, *sides: str) -> float:
        """Per cent."""
        found = [self.counts[side] for side in sides]
        return 100 * sum(each["same"] for each in found) / sum(each["answers"] for each in found)


def main() -> None:
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--questions", type=int, default=256, help="asked at once in a round")
    parser.add_argument("--alone", type=int, default=8, help="asked one at a time in a round")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--torchvision", type=Path)
    parser.add_argument("--no-released", action="store_true")
    options = parser.parse_args()
    gpu = torch.cuda.is_available()
    if gpu and not options.no_released:
        parser.error("two vLLMs do not share a GPU; give --no-released, or hide the GPU with CUDA_VISIBLE_DEVICES=")
    bench = Run(options)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # of vLLM's workers
    size = options.alone + options.questions
    asked = scene_questions(size * (options.repeats + 1))
    family = load(options.model, dtype=options.dtype)
    released = None
    if not options.no_released:
        released = Released(Path(locate(options.model)), options.torchvision, CONTEXT, options.dtype)
    room = {"gpu_memory_utilization": 0.4} if gpu else {}  # the rest is the native engine's
    with (
        load_vllm(options.model, max_context=CONTEXT, dtype=options.dtype, **room) as vllm,
        NativeEngine(family, max_context=CONTEXT) as native,
    ):
        comparison = Comparison(vllm, native, released, Sampling(max_tokens=options.max_tokens))
        for first in range(0, len(asked), size):
            now = asked[first : first + size]
            comparison.round(now[: options.alone], now[options.alone :])
    if released is not None:
        released.close()
    bench.finish(comparison.figures(), seconds=comparison.seconds, answers=comparison.counts)


if __name__ == "__main__":
    main()
