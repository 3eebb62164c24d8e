"""Where the time of one listen goes, ours and the stock way's, phase by phase in one run.

    python benchmarks/phases.py [--model MODEL] [--threads 1] [--json] [--out FILE]

A 3 s crop behind a 10 s clip and 100 tokens of reasoning. Ours: mel features of the crop, audio tower, the crop's
tokens through the language model with everything before them in the cache; what the engine adds (its thread, its
bookkeeping, sampling) is a whole listen less those. The stock way: features of both sounds padded to 300 s, tower,
language model over everything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import torch
from _measuring import Figure, Run, alternate, arguments, prompt_and_listen, question
from _stock import Stock

from relisten.engines.native import NativeEngine
from relisten.models import load
from relisten.models.decoder import Chunk, PackedDecoder
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.models.tower import encode_features
from relisten.protocol import Segment

CROP, TOKENS_BEFORE = Segment(4.0, 7.0), 100


def timed(work: Callable[[], Any]) -> Callable[[], float]:
    @torch.inference_mode()
    def side() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return side


@torch.inference_mode()
def main() -> None:
    options = arguments(__doc__, repeats=15).parse_args()
    run = Run(options)
    family = load(options.model, dtype="float32")
    assert isinstance(family, Qwen2_5Omni)
    asked, stock = question(10.0), Stock(family)
    clip = asked.clip()
    crop = clip.crop(CROP.start, CROP.end)
    features, lengths = family.mel([crop])
    padded = stock.features([clip, crop])
    frames = padded["feature_attention_mask"].sum(-1)
    true = padded["input_features"].permute(0, 2, 1)[padded["feature_attention_mask"].bool()].T
    with NativeEngine(family) as engine:

        def listen() -> tuple[float, list[int], int]:
            return asyncio.run(prompt_and_listen(engine, asked, TOKENS_BEFORE, CROP))

        _, ids, new = listen()
        decoder = PackedDecoder(family.language_model, family.lm_head)
        cache = decoder.new_cache()
        cache.reserve(1, len(ids))
        embeddings = family.embed(torch.tensor(ids[-new:], device=family.device))
        everything = family.embed(torch.tensor([ids], device=family.device))
        positions = torch.arange(len(ids), device=family.device).expand(3, 1, -1)
        found = alternate(
            {
                "listen": lambda: listen()[0],
                "mel": timed(lambda: family.mel([crop])),
                "tower": timed(lambda: encode_features(family.audio_tower, features, lengths.tolist())),
                "prefill": timed(lambda: decoder(embeddings, [Chunk(0, len(ids) - new, new)], cache)),
                "stock": timed(lambda: stock.forward(ids, stock.features([clip, crop]))),
                "stock mel": timed(lambda: stock.features([clip, crop])),
                "stock tower": timed(lambda: family.audio_tower(true, feature_lens=frames)),
                "stock model": timed(
                    lambda: family.lm_head(
                        family.language_model(inputs_embeds=everything, position_ids=positions).last_hidden_state
                    )
                ),
            },
            options.repeats,
        )
    rest = found["listen"] - found["mel"] - found["tower"] - found["prefill"]
    run.finish(
        [
            Figure("ours: one listen", 1000 * found["listen"], "ms"),
            Figure("  mel features of the crop", 1000 * found["mel"], "ms"),
            Figure("  audio tower", 1000 * found["tower"], "ms"),
            Figure(f"  language model, {new} new tokens", 1000 * found["prefill"], "ms"),
            Figure("  engine, sampling, threads", 1000 * rest, "ms"),
            Figure("the stock way: one listen", 1000 * found["stock"], "ms"),
            Figure("  mel features of both sounds, padded", 1000 * found["stock mel"], "ms"),
            Figure("  audio tower, both sounds", 1000 * found["stock tower"], "ms"),
            Figure(f"  language model, all {len(ids)} tokens", 1000 * found["stock model"], "ms"),
        ]
    )


if __name__ == "__main__":
    main()
