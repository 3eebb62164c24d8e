"""Latency of one answer and throughput of many for the paper's profile, on random weights of a given shape.

    python benchmarks/latency.py [--shape echo-tiny|0.5b|3b|7b] [--device auto] [--no-graphs] [--json] [--out FILE]

The profile: 150 sampled tokens about a 10 s clip with 1.9 listens of 3 s (here 19 listens over 10 answers; the
paper tells 2.12 s against 1.18 s without listening, on an A100). Weights are random, which costs the same time and
needs no download; `--shape 7b` needs about 20 GB of memory on the device, where they are made.

* one answer at a time, with and without listening, in turns;
* time of a decoded token, and for weights that no cache holds (1 GiB and more) against the memory-bandwidth floor:
  the bytes of all weights that every token needs, over what this device reads a second, measured in the same run;
* cost of one listen;
* tokens a second of 1, 8, 64 and 256 answers at once that listen twice.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from functools import partial

import torch
from _measuring import Figure, Run, alternate, arguments, decode, one_answer, question, time_listen
from _shapes import SHAPES, make

from relisten.engines.native import NativeEngine
from relisten.models import resolve_device
from relisten.processes import usable_processors
from relisten.protocol import Format, Segment
from relisten.question import Question
from relisten.trace import Sampling

TOKENS, LISTENS, ANSWERS, CLIP_SECONDS, CROP_SECONDS = 150, 1.9, 10, 10.0, 3.0
ROWS = (1, 8, 64, 256)
CACHED = 2**30  # bytes; fewer may stay in a processor's cache, and are not read from memory for every token
GOALS = {"7b": {"answer": "0.75 on an H200", "ratio": "1.15 on an H200", "floor": "1.3 on an H200"}}


async def one(engine: NativeEngine, asked: Question, listens: int) -> None:
    starts = [0.7 + 3.1 * number for number in range(listens)]  # off the tower's grid, so that no chunk is known
    segments = [Segment(start, start + CROP_SECONDS) for start in starts]
    await one_answer(engine, asked, TOKENS, segments)


def single(engine: NativeEngine, asked: Question, listens: list[int]) -> float:
    """Seconds an answer, one after the other."""
    began = time.perf_counter()
    for count in listens:
        asyncio.run(one(engine, asked, count))
    return (time.perf_counter() - began) / len(listens)


def several(engine: NativeEngine, asked: list[Question]) -> float:
    """Tokens a second of answers that listen twice, all at once, prompts included."""

    async def work() -> None:
        await asyncio.gather(*(one(engine, question, 2) for question in asked))

    began = time.perf_counter()
    asyncio.run(work())
    return len(asked) * TOKENS / (time.perf_counter() - began)


async def steps(engine: NativeEngine, asked: Question) -> tuple[float, float]:
    """Seconds of a decoded token, and of a listen up to its next token."""
    stream = engine.open(asked, asked.clip(), Format.INTERLEAVED, Sampling())
    await decode(stream, 10)
    began = time.perf_counter()
    await decode(stream, TOKENS)
    token = (time.perf_counter() - began) / TOKENS
    again, _ = await time_listen(stream, Segment(4.0, 4.0 + CROP_SECONDS))
    stream.close()
    return token, again


def bandwidth(device: torch.device) -> float:
    """Bytes read a second: the dot product of two large vectors, which does nothing but read them."""
    size = 1 << (28 if device.type == "cuda" else 25)
    left, right = torch.ones(size, device=device), torch.ones(size, device=device)
    for _ in range(2):
        float(left @ right)
    began = time.perf_counter()
    for _ in range(5):
        product = left @ right
    float(product)
    return 5 * 2 * size * 4 / (time.perf_counter() - began)


def main() -> None:
    parser = arguments(__doc__, model=None, repeats=7, threads=usable_processors())
    parser.add_argument("--shape", choices=tuple(SHAPES), default="echo-tiny")
    parser.add_argument("--device", default="auto", help="auto takes a GPU if there is one")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--rows", type=int, default=max(ROWS), help="leaves out more answers at once")
    parser.add_argument("--no-graphs", action="store_true", help="on a GPU, without CUDA graphs")
    options = parser.parse_args()
    run = Run(options)
    device = torch.device(resolve_device(options.device))
    dtype = None if options.dtype == "auto" else getattr(torch, options.dtype)
    family = make(SHAPES[options.shape], device, dtype)
    weights = sum(
        p.nbytes for p in itertools.chain(family.language_model.parameters(), family.lm_head.parameters())
    )
    weights -= family.thinker.get_input_embeddings().weight.nbytes  # of which a token needs one row
    extra = round(ANSWERS * (LISTENS - int(LISTENS)))
    profile = [int(LISTENS) + (number < extra) for number in range(ANSWERS)]
    rows = [count for count in ROWS if count <= options.rows]
    asked = [question(CLIP_SECONDS, row) for row in range(max(rows))]
    graphs = False if options.no_graphs else None
    with torch.no_grad(), NativeEngine(family, max_rows=max(rows), graphs=graphs) as engine:
        listens: list[float] = []

        def token() -> float:
            seconds, listen = asyncio.run(steps(engine, asked[0]))
            listens.append(listen)
            return seconds

        sides = {
            "listening": partial(single, engine, asked[0], profile),
            "plain": partial(single, engine, asked[0], [0] * ANSWERS),
            "token": token,
            "bandwidth": partial(bandwidth, device),
        }
        found = alternate(sides, options.repeats)
        rates = alternate({str(n): partial(several, engine, asked[:n]) for n in rows}, options.repeats)
    goals = GOALS.get(options.shape, {})
    figures = [
        Figure("one answer with 1.9 listens of 3 s", found["listening"], "s", goals.get("answer", "")),
        Figure("the same tokens without listening", found["plain"], "s"),
        Figure("listening over not listening", found["listening"] / found["plain"], goal=goals.get("ratio", "")),
        Figure("a decoded token", 1000 * found["token"], "ms"),
    ]
    if weights >= CACHED:
        floor = weights / found["bandwidth"]
        figures += [
            Figure("memory-bandwidth floor of a token", 1000 * floor, "ms"),
            Figure("a token over its floor", found["token"] / floor, goal=goals.get("floor", "")),
        ]
    figures += [
        Figure("one listen", 1000 * sorted(listens[1:])[options.repeats // 2], "ms"),
        *(Figure(f"{n} answers at once", rates[str(n)], "tokens/s") for n in rows),
    ]
    run.finish(figures, shape=options.shape, device=str(device), dtype=str(family.dtype), weight_bytes=weights)


if __name__ == "__main__":
    main()
