"""float32 against bfloat16 on this machine: one layer of models of several sizes, on random weights.

    python benchmarks/dtypes.py [--threads 1] [--json] [--out FILE]

Decoding adds one token to each of some rows behind 300 others; prefill is 300 tokens of one row; hearing is the
audio tower's layer on 3 s of sound. Figures are how many times as fast bfloat16 is. `relisten.models.default_dtype`
takes it on CPUs that have instructions for it, and for models of 1 GiB and more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from _measuring import Figure, Run, alternate, arguments, noise
from _shapes import SHAPES, make

from relisten.models.decoder import Chunk, PackedDecoder
from relisten.models.qwen2_5_omni import Qwen2_5Omni

PAST = 300
TURN = 0.2  # seconds
WORK = {
    "1 row": [Chunk(0, PAST, 1)],
    "8 rows": [Chunk(row, PAST, 1) for row in range(8)],
    "32 rows": [Chunk(row, PAST, 1) for row in range(32)],
    "prefill": [Chunk(0, 0, PAST)],
}


def one_layer(shape: str, dtype: torch.dtype) -> Qwen2_5Omni:
    sizes = {part: dict(wanted) for part, wanted in SHAPES[shape].items()}
    if shape != "echo-tiny":
        sizes["audio_config"]["encoder_layers"] = sizes["text_config"]["num_hidden_layers"] = 1
        del sizes["text_config"]["vocab_size"]  # the head is no layer
    return make(sizes, torch.device("cpu"), dtype)


@torch.inference_mode()
def decoding(family: Qwen2_5Omni, chunks: list[Chunk]) -> float:
    """Seconds of a step."""
    decoder = PackedDecoder(family.language_model, family.lm_head)
    cache = decoder.new_cache()
    cache.reserve(len(chunks), max(chunk.end for chunk in chunks))
    embeddings = family.embed(torch.arange(sum(chunk.length for chunk in chunks)))
    return _seconds(lambda: decoder(embeddings, chunks, cache))


@torch.inference_mode()
def hearing(family: Qwen2_5Omni) -> float:
    """Seconds of a crop, front end included."""
    clip = noise(3.0)
    return _seconds(lambda: family.encode_audio([clip]))


def _seconds(work: Callable[[], object]) -> float:
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < TURN:
        work()
        count += 1
    return (time.perf_counter() - began) / count


def main() -> None:
    options = arguments(__doc__, model=None, repeats=5).parse_args()
    run = Run(options)
    figures, details = [], {}
    for shape in SHAPES:
        families = {dtype: one_layer(shape, getattr(torch, dtype)) for dtype in ("float32", "bfloat16")}
        for what, chunks in (*WORK.items(), ("hearing", None)):
            sides = {
                dtype: partial(hearing, family) if chunks is None else partial(decoding, family, chunks)
                for dtype, family in families.items()
            }
            found = alternate(sides, options.repeats)
            details[f"{shape}, {what}"] = found
            figures.append(
                Figure(f"{shape}, {what}: bfloat16, times as fast", found["float32"] / found["bfloat16"])
            )
    run.finish(figures, seconds=details)


if __name__ == "__main__":
    main()
