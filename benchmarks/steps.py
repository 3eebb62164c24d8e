"""One decoding step of many rows: where its time goes, and what bfloat16 or `torch.compile` would make of it; what
a long row among them costs, what sampling does, and what the whole engine adds.

    python benchmarks/steps.py [--model MODEL] [--rows 32] [--past 400] [--long 7500] [--threads 1] [--json]
        [--out FILE]

Each row adds one token behind `--past` others, the long one behind `--long`. Shares are what PyTorch's profiler
gives to kernels; the rest is Python and dispatch. Compiled are the MLPs, with the number of rows left open; a C++
compiler is needed for that on a CPU, and without one these figures are left out.
The engine's step (decoder, sampling, masks, text, futures) is compared with the decoder's behind as many tokens,
for one row and for `--rows`.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import Sequence

import torch
from _measuring import Figure, Run, alternate, arguments, decode, question
from torch.profiler import ProfilerActivity, profile

from relisten.engines.base import Stream
from relisten.engines.native import NativeEngine
from relisten.engines.sampling import draw
from relisten.models import load
from relisten.models.decoder import Chunk, KVCache, PackedDecoder
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.protocol import Format
from relisten.trace import Sampling

STEPS = 20  # one side's turn
KERNELS = {
    "attention over the cache": ("attention",),
    "matrix products": ("mm", "linear"),
}


class Side:
    """A decoder with its cache."""

    def __init__(self, model: str, dtype: str, pasts: Sequence[int], compiled: bool = False) -> None:
        family = load(model, dtype=dtype)
        assert isinstance(family, Qwen2_5Omni)
        if compiled:
            for layer in family.language_model.layers:
                layer.mlp.compile(dynamic=True)
        self._decoder = PackedDecoder(family.language_model, family.lm_head)
        self._cache: KVCache = self._decoder.new_cache()
        self._cache.reserve(len(pasts), max(pasts) + 1)
        self._chunks = [Chunk(row, past, 1) for row, past in enumerate(pasts)]
        self._embeddings = family.embed(torch.arange(len(pasts)))

    @torch.inference_mode()
    def steps(self) -> float:
        """Seconds a step."""
        began = time.perf_counter()
        for _ in range(STEPS):
            self._decoder(self._embeddings, self._chunks, self._cache)
        return (time.perf_counter() - began) / STEPS

    def shares(self) -> dict[str, float]:
        """Of the time of a step, in per cent."""
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            whole = 1e6 * STEPS * self.steps()
        found = Counter({"other kernels": 0.0})
        for row in profiler.key_averages():
            name = row.key.removeprefix("aten::")
            kind = next((kind for kind, words in KERNELS.items() if any(word in name for word in words)), None)
            found[kind or "other kernels"] += row.self_cpu_time_total
        return {kind: 100 * found[kind] / whole for kind in (*KERNELS, "other kernels")}


class Sampler:
    """Draws a token for each row, from logits as spread as a model's."""

    def __init__(self, rows: int, vocabulary: int, temperature: float, top_p: float) -> None:
        generator = torch.Generator().manual_seed(0)
        self._logits = 4 * torch.randn(rows, vocabulary, generator=generator)
        self._banned = torch.arange(20)
        self._options = [temperature] * rows, [top_p] * rows, torch.rand(rows, generator=generator).tolist()

    @torch.inference_mode()
    def steps(self) -> float:
        """Seconds a step."""
        began = time.perf_counter()
        for _ in range(STEPS):
            draw(self._logits, self._banned, *self._options)
        return (time.perf_counter() - began) / STEPS


class Answers:
    """Answers of the whole native engine that decode side by side, and the decoder alone behind as many tokens."""

    def __init__(self, model: str, rows: int) -> None:
        self._engine = NativeEngine(load(model, dtype="float32"), max_rows=rows)
        self._asked = [question(10.0, row) for row in range(rows)]
        (stream, *_) = self._open()
        past = len(stream.prompt.ids) + 1 + STEPS // 2  # in the middle of its steps
        stream.close()
        self.decoder = Side(model, "float32", [past] * rows)

    def steps(self) -> float:
        """Seconds a step."""
        return asyncio.run(self._steps())

    async def _steps(self) -> float:
        streams = self._open()
        await self._decode(streams, 1)
        began = time.perf_counter()
        await self._decode(streams, STEPS)
        seconds = (time.perf_counter() - began) / STEPS
        for stream in streams:
            stream.close()
        return seconds

    async def _decode(self, streams: Sequence[Stream], count: int) -> None:
        with self._engine.together():
            working = [asyncio.ensure_future(decode(stream, count)) for stream in streams]
            await asyncio.sleep(0)
        await asyncio.gather(*working)

    def _open(self) -> list[Stream]:
        return [self._engine.open(each, each.clip(), Format.INTERLEAVED, Sampling()) for each in self._asked]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--past", type=int, default=400)
    parser.add_argument("--long", type=int, default=7500)
    options = parser.parse_args()
    run = Run(options)
    pasts = [options.past] * options.rows
    plain = Side(options.model, "float32", pasts)
    sides: dict[str, Side | Sampler | Answers] = {
        "float32": plain,
        "bfloat16": Side(options.model, "bfloat16", pasts),
        "with a long row": Side(options.model, "float32", [*pasts, options.long]),
        "the long row": Side(options.model, "float32", [options.long]),
    }
    vocabulary = len(load(options.model).lm_head.weight)
    for name, temperature, top_p in (("likeliest", 0.0, 1.0), ("sampled", 1.0, 1.0), ("top-p", 0.7, 0.95)):
        sides[name] = Sampler(options.rows, vocabulary, temperature, top_p)
    rows = sorted({1, options.rows})
    for count in rows:
        answers = Answers(options.model, count)
        sides |= {f"engine, {count}": answers, f"decoder, {count}": answers.decoder}
    if shutil.which("g++"):
        sides["compiled"] = Side(options.model, "float32", pasts, compiled=True)
    began = time.perf_counter()
    if "compiled" in sides:
        sides["compiled"].steps()
    compiling = time.perf_counter() - began
    found = alternate({name: side.steps for name, side in sides.items()}, options.repeats)
    figures = [
        Figure(f"a step of {options.rows} rows", 1000 * found["float32"], "ms"),
        *(Figure(f"  {kind}", share, "%") for kind, share in plain.shares().items()),
        Figure("float32, times as fast as bfloat16", found["bfloat16"] / found["float32"]),
        Figure(
            f"with one row more of {options.long} tokens, over both by themselves",
            found["with a long row"] / (found["float32"] + found["the long row"]),
        ),
        *(
            Figure(
                f"the engine's step over the decoder's, {n} row{'s' * (n > 1)}",
                found[f"engine, {n}"] / found[f"decoder, {n}"],
            )
            for n in rows
        ),
        Figure("drawing the likeliest tokens, over a step", 100 * found["likeliest"] / found["float32"], "%"),
        Figure("drawing at temperature 1, over a step", 100 * found["sampled"] / found["float32"], "%"),
        Figure("drawing at 0.7 with top-p 0.95, over a step", 100 * found["top-p"] / found["float32"], "%"),
    ]
    if "compiled" in found:
        figures += [
            Figure("compiled, times as fast as not compiled", found["float32"] / found["compiled"]),
            Figure("the compiling", compiling, "s"),
        ]
    run.finish(figures, seconds=found)


if __name__ == "__main__":
    main()
