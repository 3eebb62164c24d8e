"""The way of Echo's released code, re-created from its description, on the same vLLM: for `engines.py`.

One question at a time. Each turn is one call of the engine with the whole text so far, which is tokenised again,
and all its sounds, which vLLM's stock processor pads to 300 s. A turn stops at `</seg>`; the crop is put behind it.

It gets the engine options that `relisten.engines.vllm` chooses for itself, and those of vLLM's caches: with prefix
caching nothing before its newest sound is computed again, and with vLLM's cache of features (4 GiB by default, four
times ours) no sound is padded twice. What remains is the way itself.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _stock_vllm import StockVllm, serve

from relisten.audio import Clip
from relisten.protocol import Format, Interleaver, Listen
from relisten.question import Question

MAX_TURNS = 9
BLOCK = 32  # tokens of the cache's blocks, as our engine has them on a CPU
SOUND = "<|audio_bos|><|AUDIO|><|audio_eos|>"


@dataclass(frozen=True)
class Turns:
    """What came out, and in what time."""

    seconds: float
    texts: list[str]
    tokens: list[int]
    listens: list[int]
    """Of each answer, as `texts`."""


class Released:
    """The other side of a comparison, in a process of its own.

    Args:
        model, torchvision: see `StockVllm`.
        context: tokens an answer may have.
        dtype: as vLLM calls it.
    """

    def __init__(self, model: Path, torchvision: Path | None, context: int, dtype: str) -> None:
        self._vllm = StockVllm(__file__, model, torchvision, context, dtype)
        self.close = self._vllm.close

    def ask(self, prompts: Sequence[str], clips: Sequence[Clip], max_tokens: int) -> Turns:
        """One question after the other. `prompts` are up to the head of the model's turn, with `SOUND` in them."""
        sounds = self._vllm.scratch / "sounds.npz"
        np.savez(sounds, *(clip.samples for clip in clips))
        return Turns(**self._vllm.ask({"prompts": list(prompts), "sounds": str(sounds), "max_tokens": max_tokens}))


def _start(model: str, context: str, dtype: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    from vllm import LLM

    llm = LLM(
        model,
        dtype=dtype,
        enforce_eager=True,
        block_size=BLOCK,
        max_model_len=int(context),
        enable_prefix_caching=True,
        limit_mm_per_prompt={"audio": MAX_TURNS, "image": 0, "video": 0},
        generation_config="vllm",
    )

    def handle(command: dict[str, Any]) -> dict[str, Any]:
        with np.load(command["sounds"]) as sounds:
            clips = [Clip(sounds[name]) for name in sounds.files]
        began = time.perf_counter()
        answers = [
            _answer(llm, *pair, command["max_tokens"]) for pair in zip(command["prompts"], clips, strict=True)
        ]
        texts, tokens, listens = zip(*answers, strict=True)
        return asdict(Turns(time.perf_counter() - began, list(texts), list(tokens), list(listens)))

    return handle


def _answer(llm: Any, prompt: str, clip: Clip, max_tokens: int) -> tuple[str, int, int]:
    from vllm import SamplingParams

    interleaver = Interleaver(clip.duration, format=Format.INTERLEAVED)
    sounds, response, tokens = [clip.samples], "", 0
    written = ""
    for _ in range(MAX_TURNS):
        params = SamplingParams(
            temperature=0,
            max_tokens=max_tokens - tokens,
            stop=["</seg>"],
            include_stop_str_in_output=True,
            skip_special_tokens=False,
        )
        request = {"prompt": prompt + response, "multi_modal_data": {"audio": sounds}}
        (done,) = llm.generate(request, params, use_tqdm=False)
        piece = done.outputs[0].text
        tokens += len(done.outputs[0].token_ids)
        response += piece
        written += piece
        heard = [event.segment for event in interleaver.feed(piece) if isinstance(event, Listen)]
        if not piece.endswith("</seg>") or tokens >= max_tokens:
            break
        for segment in heard:
            sounds = [*sounds, clip.crop(segment.start, segment.end).samples]
            response += SOUND
    return written.removesuffix("<|im_end|>"), tokens, len(sounds) - 1


def prompt_text(question: Question, system: str, user: str) -> str:
    """The prompt as text, sound included."""
    turns = (f"system\n{system}<|im_end|>\n", f"user\n{SOUND}{user}<|im_end|>\n", "assistant\n")
    return "".join(f"<|im_start|>{turn}" for turn in turns)


if __name__ == "__main__":
    serve(lambda: _start(*sys.argv[1:]))
