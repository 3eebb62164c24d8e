"""What a listen costs, as ratios measured side by side in one run.

    python benchmarks/listen.py [--model MODEL] [--threads 1] [--json] [--out FILE]

1. One listen: a 3 s crop behind 100 tokens of reasoning over a 10 s clip, up to the next sampled token. Ours
   (mel of the crop's own length, KV reuse) against the stock route (every sound padded to 300 s by
   `WhisperFeatureExtractor`, the whole sequence through transformers' forward).
2. Throughput: sampled tokens a second of 32 answers that listen twice for 3 s each, against the same answers
   decoding the same number of tokens without listening, prompts excluded; once with sound encoded beside decoding,
   on a processor of its own, and once by the engine's thread, so that nothing runs beside.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial

import torch
from _measuring import Figure, Run, alternate, arguments, decode, prompt_and_listen, question
from _stock import Stock

from relisten.engines.base import Stream
from relisten.engines.native import NativeEngine
from relisten.models import load
from relisten.processes import usable_processors
from relisten.protocol import Format, Segment
from relisten.question import Question
from relisten.trace import Sampling

CLIP_SECONDS, CROP, TOKENS_BEFORE = 10.0, Segment(4.0, 7.0), 100
ROWS, TOKENS, LISTEN_AFTER = 32, 150, (40, 90)


@torch.inference_mode()
def stock_listen(stock: Stock, asked: Question, ids: list[int]) -> float:
    """Seconds for the same next token by the stock extractor and forward."""
    clip = asked.clip()
    began = time.perf_counter()
    stock.forward(ids, stock.features([clip, clip.crop(CROP.start, CROP.end)])).logits[0, -1].argmax()
    return time.perf_counter() - began


async def throughput(engine: NativeEngine, asked: list[Question], listens: bool) -> float:
    """Sampled tokens a second over all rows, from the first token of every row on."""
    streams = [engine.open(each, each.clip(), Format.INTERLEAVED, Sampling()) for each in asked]
    await asyncio.gather(*(decode(stream, 1) for stream in streams))

    async def one(stream: Stream, offset: int) -> None:
        done = 0
        for pause in (*LISTEN_AFTER, TOKENS):
            until = min(pause + offset, TOKENS)  # rows do not listen in step
            await decode(stream, until - done)
            done = until
            if listens and done < TOKENS:
                start = (pause + offset) % 6 + 0.1 * offset  # never twice the same, which would be encoded once
                stream.listen(Segment(start, start + 3.0))

    began = time.perf_counter()
    await asyncio.gather(*(one(stream, row % 20) for row, stream in enumerate(streams)))
    seconds = time.perf_counter() - began
    for stream in streams:
        stream.close()
    return ROWS * TOKENS / seconds


def main() -> None:
    options = arguments(__doc__).parse_args()
    run = Run(options)
    family = load(options.model, dtype="float32")
    stock = Stock(family)
    asked = [question(CLIP_SECONDS, row) for row in range(ROWS)]
    with NativeEngine(family) as engine, NativeEngine(family, encode_beside=False) as single:
        ids: list[int] = []

        def ours() -> float:
            seconds, ids[:], _ = asyncio.run(prompt_and_listen(engine, asked[0], TOKENS_BEFORE, CROP))
            return seconds

        def rate(engine: NativeEngine, listens: bool) -> float:
            return asyncio.run(throughput(engine, asked, listens))

        listen = alternate({"ours": ours, "stock": lambda: stock_listen(stock, asked[0], ids)}, options.repeats)
        sides = {
            "plain": partial(rate, engine, False),
            "beside": partial(rate, engine, True),
            "alone": partial(rate, single, True),
        }
        tokens = alternate(sides, options.repeats)
    run.finish(
        [
            Figure("one 3 s listen", 1000 * listen["ours"], "ms"),
            Figure("one 3 s listen the stock way", 1000 * listen["stock"], "ms"),
            Figure("times cheaper than the stock way", listen["stock"] / listen["ours"]),
            Figure("32 rows without listening", tokens["plain"], "tokens/s"),
            Figure("32 rows that listen twice", tokens["beside"], "tokens/s"),
            Figure("interleaved over plain", tokens["beside"] / tokens["plain"], goal="0.9"),
            Figure("the same, sound encoded by the same thread", tokens["alone"] / tokens["plain"], goal="0.9"),
        ],
        listen=listen,
        tokens=tokens,
        processors=usable_processors(),
    )


if __name__ == "__main__":
    main()
