"""The native engine against vLLM, and both against the released way on vLLM, as ratios measured in one run.

    .venv-vllm/bin/pip install --no-deps --target .venv-vllm/torchvision torchvision==0.28.0
    .venv-vllm/bin/python benchmarks/engines.py --torchvision .venv-vllm/torchvision [--json] [--out FILE]

Over the same questions (held-out scenes), greedy, in rounds that alternate:

1. our vLLM engine and the native engine, all questions at once;
2. both, one question at a time;
3. the released way (`_released.py`): the same vLLM with its stock processor, one question at a time, a call a turn,
   text and sounds sent again, every sound padded to 300 s.

Every round has new sounds, so that nobody finds them in a cache. Medians over rounds are compared; the first round
warms up and does not count. On CPUs, all in float32. The released way is asked those questions that are asked one
at a time: each takes it seconds. `--torchvision` is left out where torchvision works as installed; `--no-released`
leaves out what needs it.
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
        self.counts: Counter[str] = Counter()

    def round(self, alone: Sequence[Question], together: Sequence[Question]) -> None:
        answers = {}
        for name, engine in self._engines.items():
            one_by_one, some = timed(engine, alone, self._sampling, at_once=False)
            at_once, others = timed(engine, together, self._sampling, at_once=True)
            self._note(name + "_alone", one_by_one)
            self._note(name + "_together", at_once)
            answers[name] = [*some, *others]
        self.counts["questions"] += len(answers["vllm"])
        for ours, native in zip(*answers.values(), strict=True):
            self.counts["tokens"] += len(ours.logprobs)
            self.counts["listens"] += len(ours.listens)
            self.counts["same_as_native"] += ours.token_ids == native.token_ids
        if self._released is None:
            return
        system = system_prompt(Format.INTERLEAVED)
        prompts = [prompt_text(one, system, user_text(one)) for one in alone]
        turns = self._released.ask(prompts, [one.clip() for one in alone], self._sampling.max_tokens)
        self._note("released", turns.seconds / len(alone))
        self.counts["released_questions"] += len(alone)
        self.counts["released_tokens"] += turns.tokens
        self.counts["released_listens"] += turns.listens
        for text, ours in zip(turns.texts, answers["vllm"], strict=False):
            self.counts["released_same_as_vllm"] += text == ours.text

    def _note(self, name: str, seconds: float) -> None:
        self.seconds.setdefault(name, []).append(seconds)

    def figures(self) -> list[Figure]:
        median = {name: statistics.median(values[1:]) for name, values in self.seconds.items()}
        figures = [
            Figure("vLLM, all at once", 1 / median["vllm_together"], "questions/s"),
            Figure("native, all at once", 1 / median["native_together"], "questions/s"),
            Figure("vLLM over native, all at once", median["native_together"] / median["vllm_together"]),
            Figure("vLLM over native, one at a time", median["native_alone"] / median["vllm_alone"]),
        ]
        if "released" in median:
            released = median["released"]
            figures += [
                Figure("the released way on the same vLLM", 1 / released, "questions/s"),
                Figure("vLLM, times as fast as the released way", released / median["vllm_together"], goal="20"),
                Figure(
                    "native, times as fast as the released way", released / median["native_together"], goal="20"
                ),
                Figure("vLLM one at a time, times as fast", released / median["vllm_alone"]),
            ]
        return figures


def main() -> None:
    parser = arguments(__doc__, repeats=5)
    parser.add_argument("--questions", type=int, default=64, help="asked at once in a round")
    parser.add_argument("--alone", type=int, default=4, help="asked one at a time in a round")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--torchvision", type=Path)
    parser.add_argument("--no-released", action="store_true")
    options = parser.parse_args()
    if torch.cuda.is_available():
        parser.error("this compares on CPUs: two vLLMs do not share a GPU; hide it with CUDA_VISIBLE_DEVICES=")
    bench = Run(options)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # of vLLM's workers
    size = options.alone + options.questions
    asked = scene_questions(size * (options.repeats + 1))
    family = load(options.model, dtype="float32", device="cpu")
    released = None
    if not options.no_released:
        released = Released(Path(locate(options.model)), options.torchvision, CONTEXT)
    with load_vllm(options.model, max_context=CONTEXT) as vllm, NativeEngine(family, max_context=CONTEXT) as native:
        comparison = Comparison(vllm, native, released, Sampling(max_tokens=options.max_tokens))
        for first in range(0, len(asked), size):
            now = asked[first : first + size]
            comparison.round(now[: options.alone], now[options.alone :])
    if released is not None:
        released.close()
    bench.finish(comparison.figures(), seconds=comparison.seconds, answers=comparison.counts)


if __name__ == "__main__":
    main()
