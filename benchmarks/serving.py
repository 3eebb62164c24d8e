"""What relisten beside it does for stock vLLM that serves Qwen2.5-Omni: requests with sound, as ratios in one run.

    .venv-vllm/bin/python benchmarks/serving.py --torchvision .venv-vllm/torchvision [--json] [--out FILE]

The same `vllm.LLM` twice, once where it finds our front end (docs/vllm.md) and once where it does not, take turns:
requests of one new sound and a short answer, one after the other and all at once. vLLM's options are its defaults
but for the length of the context, and nothing is compiled. `--torchvision` is left out where it works as installed.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _measuring import Figure, Run, alternate, arguments, noise
from _stock_vllm import StockVllm, serve

from relisten.models import locate

SECONDS = (3, 10, 30)
CONTEXT = 2048
PROMPT = (
    "<|im_start|>user\n<|audio_bos|><|AUDIO|><|audio_eos|>Which sound comes first?<|im_end|>\n"
    "<|im_start|>assistant\n"
)
_seeds = itertools.count()


def _start(model: str, dtype: str, tokens: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    from vllm import LLM, SamplingParams

    limits = {"audio": 1, "image": 0, "video": 0}
    llm = LLM(model, dtype=dtype, enforce_eager=True, max_model_len=CONTEXT, limit_mm_per_prompt=limits)
    params = SamplingParams(temperature=0, max_tokens=int(tokens), ignore_eos=True)

    def handle(command: dict[str, Any]) -> dict[str, Any]:
        clips = [noise(command["seconds"], seed) for seed in command["seeds"]]
        asked = [{"prompt": PROMPT, "multi_modal_data": {"audio": clip.samples}} for clip in clips]
        began = time.perf_counter()
        answers = [
            answer
            for some in ([asked] if command["at_once"] else [[one] for one in asked])
            for answer in llm.generate(some, params, use_tqdm=False)
        ]
        took = time.perf_counter() - began
        return {"seconds": took / len(asked), "prompt_tokens": len(answers[0].prompt_token_ids)}

    return handle


def main() -> None:
    parser = arguments(__doc__, repeats=5)
    parser.add_argument("--alone", type=int, default=4, help="requests of a turn, one after the other")
    parser.add_argument("--at-once", type=int, default=16, help="requests of a turn, side by side")
    parser.add_argument("--tokens", type=int, default=16, help="of an answer")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--torchvision", type=Path)
    options = parser.parse_args()
    if torch.cuda.is_available():
        parser.error("two vLLMs do not share a GPU; hide it with CUDA_VISIBLE_DEVICES=")
    bench = Run(options)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # of vLLM's workers
    model = Path(locate(options.model))
    sides = {
        name: StockVllm(__file__, model, options.torchvision, options.dtype, options.tokens, ours=name == "ours")
        for name in ("ours", "stock")
    }
    figures, lengths = [], set()

    def turn(side: StockVllm, seconds: int, count: int, at_once: bool) -> float:
        seeds = list(itertools.islice(_seeds, count))  # a sound is met once
        told = side.ask({"seconds": seconds, "seeds": seeds, "at_once": at_once})
        lengths.add((seconds, told["prompt_tokens"]))
        return float(told["seconds"])

    ways = (
        ("one at a time", options.alone, False),
        (f"{options.at_once} at once", options.at_once, True),
    )
    for seconds, (what, *way) in itertools.product(SECONDS, ways):
        took = alternate(
            {name: partial(turn, side, seconds, *way) for name, side in sides.items()}, options.repeats
        )
        figures += [
            Figure(f"{seconds} s of sound, {what}: with relisten", 1000 * took["ours"], "ms a request"),
            Figure(f"{seconds} s of sound, {what}: without", 1000 * took["stock"], "ms a request"),
            Figure(f"{seconds} s of sound, {what}: times as fast", took["stock"] / took["ours"]),
        ]
    for side in sides.values():
        side.close()
    bench.finish(figures, prompt_tokens=sorted(lengths))


if __name__ == "__main__":
    # A side of the comparison starts this file with what `_start` takes.
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        serve(lambda: _start(*sys.argv[1:]))
    else:
        main()
