"""New weights for a running vLLM: tensors by name, handed over in files in shared memory.

vLLM repacks weights for its kernels when it loads them, so new weights take the same way in, layer by layer.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from vllm.config import set_current_vllm_config
from vllm.model_executor.layers.linear import MergedColumnParallelLinear, QKVParallelLinear
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info

_SHARED = Path("/dev/shm")
_FILE_BYTES = 1 << 30  # bounds the memory of the transfer, beside the two copies of the weights


class WeightLoader:
    """vLLM mixes this into its workers. Between begin and end nothing may be decoded."""

    def relisten_begin_weights(self) -> None:
        initialize_layerwise_reload(self._relisten_model())

    @torch.no_grad()
    def relisten_load_weights(self, path: str) -> list[str]:
        """Load a safetensors file; the names of the model's parameters that it is for."""
        with set_current_vllm_config(self.vllm_config):  # type: ignore[attr-defined]
            return sorted(self._relisten_model().load_weights(load_file(path).items()))

    @torch.no_grad()
    def relisten_end_weights(self) -> list[str]:
        """Put in place what was loaded. Layers that vLLM made of several matrices, and that were not given all of
        them, keep their old weights; their names are returned."""
        model = self._relisten_model()
        incomplete = []
        for name, layer in model.named_modules():
            info = get_layerwise_info(layer)
            fused = isinstance(layer, QKVParallelLinear | MergedColumnParallelLinear)
            if fused and info.can_load() and 0 < info.load_numel < info.load_numel_total:
                incomplete.append(name)
                info.load_numel = 0
                info.loaded_weights.clear()
        with set_current_vllm_config(self.vllm_config):  # type: ignore[attr-defined]
            finalize_layerwise_reload(model, self.model_config)  # type: ignore[attr-defined]
        return incomplete

    def _relisten_model(self) -> Any:
        return self.get_model()  # type: ignore[attr-defined]


def written(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> Iterator[Path]:
    """Files with all of `tensors`, one after the other; each is gone when the next is asked for."""
    roomy = _SHARED.is_dir() and shutil.disk_usage(_SHARED).free > 4 * _FILE_BYTES  # containers often have little
    with tempfile.TemporaryDirectory(prefix="relisten-", dir=_SHARED if roomy else None) as folder:
        path = Path(folder) / "weights.safetensors"
        for part in _parts(tensors.items() if isinstance(tensors, Mapping) else tensors):
            save_file(part, path)
            yield path
            path.unlink()


def _parts(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    part: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors:
        # Copied, since tied weights share memory, which safetensors refuses.
        part[name] = tensor.detach().to("cpu", copy=True).contiguous()
        size += tensor.nbytes
        if size >= _FILE_BYTES:
            yield part
            part, size = {}, 0
    if part:
        yield part
