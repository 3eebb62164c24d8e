"""What a listen costs, as ratios measured side by side in one run.

    python benchmarks/listen.py [--model MODEL] [--threads 2] [--json]

1. One listen: a 3 s crop behind 100 tokens of reasoning over a 10 s clip, up to the next sampled token. Ours
   (mel of the crop's own length, KV reuse) against the stock route (every sound padded to 300 s by
   `WhisperFeatureExtractor`, the whole sequence through transformers' forward).
2. Throughput: sampled tokens a second of 32 answers that listen twice for 3 s each, against the same answers
   decoding the same number of tokens without listening, prompts excluded.

Both sides of a ratio alternate, and medians are compared, so that a busy machine slows both alike. Both run on
one thread unless `--threads` says otherwise, so that the figures are processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time

import numpy as np
import torch
from transformers import WhisperFeatureExtractor

from relisten.audio import SAMPLE_RATE, Clip
from relisten.engines.base import Stream
from relisten.engines.native import NativeEngine
from relisten.models import Family, load
from relisten.protocol import Format, Segment
from relisten.question import Question
from relisten.trace import Sampling

PADDED_SECONDS = 300
CLIP_SECONDS, CROP, TOKENS_BEFORE = 10.0, Segment(4.0, 7.0), 100
ROWS, TOKENS, LISTEN_AFTER = 32, 150, (40, 90)


def question(seed: int) -> Question:
    samples = np.random.default_rng(seed).normal(0, 0.1, round(CLIP_SECONDS * SAMPLE_RATE))
    clip = Clip.from_samples(samples.astype(np.float32))
    return Question("How many snare hits between 4 and 7 seconds?", ("2", "3", "4"), clip)


async def decode(stream: Stream, count: int) -> list[int]:
    """Sample `count` tokens, whatever they are."""
    ids: list[int] = []
    while len(ids) < count:
        left = count - len(ids)

        def feed(piece: str, end_of_turn: bool) -> bool:
            nonlocal left
            left -= 1
            return left == 0

        ids += (await stream.decode(feed)).ids
    return ids


async def our_listen(engine: NativeEngine, asked: Question) -> tuple[float, list[int]]:
    """Seconds from the request to the next token, and the ids before it."""
    stream = engine.open(asked, asked.clip(), Format.INTERLEAVED, Sampling())
    ids = [*stream.prompt.ids, *await decode(stream, TOKENS_BEFORE)]
    began = time.perf_counter()
    heard = stream.listen(CROP)
    await decode(stream, 1)
    seconds = time.perf_counter() - began
    stream.close()
    assert heard is not None
    return seconds, [*ids, *heard.ids]


@torch.inference_mode()
def stock_listen(family: Family, extractor: WhisperFeatureExtractor, asked: Question, ids: list[int]) -> float:
    """Seconds for the same next token by the stock extractor and forward."""
    clip = asked.clip()
    began = time.perf_counter()
    sounds = [clip.samples, clip.crop(CROP.start, CROP.end).samples]
    features = extractor(
        sounds,
        sampling_rate=SAMPLE_RATE,
        padding="max_length",
        return_attention_mask=True,
        return_tensors="pt",
    )
    tokens = torch.tensor([ids])
    logits = family.thinker(
        input_ids=tokens,
        attention_mask=torch.ones_like(tokens),
        input_features=features["input_features"].to(family.dtype),
        feature_attention_mask=features["attention_mask"],
    ).logits
    logits[0, -1].argmax()
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
                stream.listen(Segment(1.0 + offset % 6, 4.0 + offset % 6))

    began = time.perf_counter()
    await asyncio.gather(*(one(stream, row % 20) for row, stream in enumerate(streams)))
    seconds = time.perf_counter() - began
    for stream in streams:
        stream.close()
    return ROWS * TOKENS / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="echo-tiny")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    family = load(options.model, dtype="float32")
    # Qwen2.5-Omni's own setting, whatever the checkpoint at hand says.
    extractor = WhisperFeatureExtractor.from_pretrained(family.source.folder, chunk_length=PADDED_SECONDS)

    async def measure() -> dict[str, float]:
        with NativeEngine(family) as engine:
            ours, stock, plain, interleaved = [], [], [], []
            for repeat in range(options.repeats + 1):
                asked = question(repeat)
                seconds, ids = await our_listen(engine, asked)
                ours.append(seconds)
                stock.append(stock_listen(family, extractor, asked, ids))
            rows = [question(row) for row in range(ROWS)]
            for _ in range(options.repeats + 1):
                plain.append(await throughput(engine, rows, listens=False))
                interleaved.append(await throughput(engine, rows, listens=True))
        # The first of each warms up and does not count.
        middle = [statistics.median(values[1:]) for values in (ours, stock, plain, interleaved)]
        return {
            "listen_ms": 1000 * middle[0],
            "stock_listen_ms": 1000 * middle[1],
            "stock_over_ours": middle[1] / middle[0],
            "plain_tokens_per_s": middle[2],
            "interleaved_tokens_per_s": middle[3],
            "interleaved_over_plain": middle[3] / middle[2],
        }

    result = asyncio.run(measure())
    if options.json:
        print(json.dumps(result))
        return
    print(
        f"one 3 s listen     ours {result['listen_ms']:.1f} ms, stock {result['stock_listen_ms']:.1f} ms: "
        f"{result['stock_over_ours']:.1f} times cheaper"
    )
    print(
        f"{ROWS} rows decoding   plain {result['plain_tokens_per_s']:.0f} tokens/s, interleaved "
        f"{result['interleaved_tokens_per_s']:.0f} tokens/s: ratio {result['interleaved_over_plain']:.2f}"
    )


if __name__ == "__main__":
    main()
