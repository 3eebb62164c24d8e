"""Stock vLLM in a process of its own, for what is compared with ours: `engines.py`, `serving.py`.

vLLM's stock processor needs torchvision, whose operators do not load beside vLLM's build for CPUs: here they are
declared, which is enough where none is called. Nothing of this leaves this process and those that it starts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from relisten.engines.vllm import ENVIRONMENT

PADDED_SECONDS = 300

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

_DECLARING = f'''
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


def torchvision_beside_cpu(scratch: Path, torchvision: Path) -> dict[str, str]:
    """What in the environment has a new process import torchvision beside vLLM's build for CPUs.

    Args:
        scratch: a folder for what declares the operators.
        torchvision: folder with its Python files.
    """
    (scratch / "sitecustomize.py").write_text(_DECLARING)
    paths = [str(scratch), str(torchvision.absolute()), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


class StockVllm:
    """Starts a script that calls `serve`, and asks it. It starts beside others: the first `ask` waits for it.

    Args:
        script: what is run, with the folder of the checkpoint and `arguments`.
        model: folder of a whole Qwen2.5-Omni checkpoint.
        torchvision: folder with torchvision's Python files (`pip install --no-deps --target FOLDER torchvision`);
            None where torchvision works as it is installed.
        ours: whether vLLM finds our front end, as it does where relisten is installed.
    """

    def __init__(
        self, script: str, model: Path, torchvision: Path | None, *arguments: object, ours: bool = False
    ) -> None:
        self._scratch = tempfile.TemporaryDirectory()
        self.scratch = Path(self._scratch.name)
        # What our engine sets for itself, it gets, too.
        quiet = {"TORCH_COMPILE_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error"}
        environment = {**ENVIRONMENT, **quiet, **os.environ} | ({} if ours else {"VLLM_PLUGINS": ""})
        if torchvision is not None:
            environment |= torchvision_beside_cpu(self.scratch, torchvision)
        padded = _padded(model, self.scratch / "model")
        self._process = subprocess.Popen(
            [sys.executable, script, str(padded), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self._ready = False

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """What `serve`'s `handle` makes of a command."""
        if not self._ready:
            self._ready = not self._read()
        assert self._process.stdin is not None
        print(json.dumps(command), file=self._process.stdin, flush=True)
        return self._read()

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
        raise RuntimeError("stock vLLM ended; what it wrote above says why")


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


def serve(start: Callable[[], Callable[[dict[str, Any]], dict[str, Any]]]) -> None:
    """The other end of `StockVllm`: `start` returns what handles a command. Everything else that prints goes to
    standard error."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    handle = start()
    print("{}", file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(handle(json.loads(line))), file=replies, flush=True)
