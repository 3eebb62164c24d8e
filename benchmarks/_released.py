"""The way of Echo's released code, re-created from its description, on the same vLLM: for `engines.py`.

One question at a time. Each turn is one call of the engine with the whole text so far, which is tokenised again,
and all its sounds, which vLLM's stock processor pads to 300 s. A turn stops at `</seg>`; the crop is put behind it.
Reads one JSON line a command from standard input and answers with one.

It gets the engine options that `relisten.engines.vllm` chooses for itself, and those of vLLM's caches: with prefix
caching nothing before its newest sound is computed again, and with vLLM's cache of features (4 GiB by default, four
times ours) no sound is padded twice. What remains is the way itself.

vLLM's stock processor needs torchvision, whose operators do not load beside vLLM's build for CPUs: here they are
declared, which is enough where none is called. Nothing of this leaves this process and those that it starts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from relisten.audio import Clip
from relisten.engines.vllm import ENVIRONMENT
from relisten.protocol import Format, Interleaver, Listen
from relisten.question import Question

PADDED_SECONDS = 300
MAX_TURNS = 9
BLOCK = 32  # tokens of the cache's blocks, as our engine has them on a CPU
SOUND = "<|audio_bos|><|AUDIO|><|audio_eos|>"

_OPERATORS = """
nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor
qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor
roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor
_roi_align_backward(Tensor grad, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, SymInt batch_size, SymInt channels, SymInt height, SymInt width, int sampling_ratio, bool aligned) -> Tensor
roi_pool(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width) -> (Tensor, Tensor)
_roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, float spatial_scale, SymInt pooled_height, SymInt pooled_width, SymInt batch_size, SymInt channels, SymInt height, SymInt width) -> Tensor
ps_roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, int sampling_ratio) -> (Tensor, Tensor)
_ps_roi_align_backward(Tensor grad, Tensor rois, Tensor channel_mapping, float spatial_scale, SymInt pooled_height, SymInt pooled_width, int sampling_ratio, SymInt batch_size, SymInt channels, SymInt height, SymInt width) -> Tensor
ps_roi_pool(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width) -> (Tensor, Tensor)
_ps_roi_pool_backward(Tensor grad, Tensor rois, Tensor channel_mapping, float spatial_scale, SymInt pooled_height, SymInt pooled_width, SymInt batch_size, SymInt channels, SymInt height, SymInt width) -> Tensor
deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, SymInt offset_groups, bool use_mask) -> Tensor
_deform_conv2d_backward(Tensor grad, Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, SymInt offset_groups, bool use_mask) -> (Tensor, Tensor, Tensor, Tensor, Tensor)
"""  # noqa: E501

_SITE = f'''
import importlib.abc, sys

class Declare(importlib.abc.MetaPathFinder):
    """Declares torchvision's operators right before it is imported."""

    def find_spec(self, name, path, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch
            library = torch.library.Library("torchvision", "DEF")
            for operator in """{_OPERATORS}""".strip().splitlines():
                library.define(operator)
            torch._relisten_declared = library
        return None

sys.meta_path.insert(0, Declare())
'''


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
        model: folder of a whole Qwen2.5-Omni checkpoint.
        torchvision: folder with torchvision's Python files (`pip install --no-deps --target FOLDER torchvision`);
            None where torchvision works as it is installed.
        context: tokens an answer may have.
        dtype: as vLLM calls it.
    """

    def __init__(self, model: Path, torchvision: Path | None, context: int, dtype: str) -> None:
        self._scratch = tempfile.TemporaryDirectory()
        scratch = Path(self._scratch.name)
        # What our engine sets for itself, it gets, too; but not our front end.
        quiet = {"TORCH_COMPILE_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error"}
        environment = {**ENVIRONMENT, **quiet, **os.environ, "VLLM_PLUGINS": ""}
        if torchvision is not None:
            (scratch / "sitecustomize.py").write_text(_SITE)
            paths = [str(scratch), str(torchvision.absolute()), environment.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        padded = _padded(model, scratch / "model")
        self._sounds = scratch / "sounds.npz"
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(padded), str(context), dtype],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self._ready = False

    def ask(self, prompts: Sequence[str], clips: Sequence[Clip], max_tokens: int) -> Turns:
        """One question after the other. `prompts` are up to the head of the model's turn, with `SOUND` in them."""
        if not self._ready:  # it starts beside others
            self._ready = not self._read()
        np.savez(self._sounds, *(clip.samples for clip in clips))
        assert self._process.stdin is not None
        command = {"prompts": list(prompts), "sounds": str(self._sounds), "max_tokens": max_tokens}
        print(json.dumps(command), file=self._process.stdin, flush=True)
        return Turns(**self._read())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._scratch.cleanup()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise RuntimeError("the released way ended; what it wrote above says why")


def _padded(model: Path, folder: Path) -> Path:
    """The checkpoint with Qwen2.5-Omni's own setting of the processor."""
    folder.mkdir()
    for path in model.iterdir():
        if path.name != "preprocessor_config.json":
            (folder / path.name).symlink_to(path.absolute())
    settings = json.loads((model / "preprocessor_config.json").read_text())
    samples = PADDED_SECONDS * settings["sampling_rate"]
    settings |= {
        "chunk_length": PADDED_SECONDS,
        "n_samples": samples,
        "nb_max_frames": samples // settings["hop_length"],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def _serve(model: str, context: int, dtype: str, replies: IO[str]) -> None:
    from vllm import LLM

    llm = LLM(
        model,
        dtype=dtype,
        enforce_eager=True,
        block_size=BLOCK,
        max_model_len=context,
        enable_prefix_caching=True,
        limit_mm_per_prompt={"audio": MAX_TURNS, "image": 0, "video": 0},
        generation_config="vllm",
    )
    print("{}", file=replies, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        with np.load(command["sounds"]) as sounds:
            clips = [Clip(sounds[name]) for name in sounds.files]
        began = time.perf_counter()
        answers = [
            _answer(llm, *pair, command["max_tokens"]) for pair in zip(command["prompts"], clips, strict=True)
        ]
        texts, tokens, listens = zip(*answers, strict=True)
        reply = Turns(time.perf_counter() - began, list(texts), list(tokens), list(listens))
        print(json.dumps(reply.__dict__), file=replies, flush=True)


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
    # Everything else that prints goes to standard error.
    _replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _serve(sys.argv[1], int(sys.argv[2]), sys.argv[3], _replies)
