"""New weights for a running vLLM: tensors by name, through files in shared memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

_FILE_BYTES = 1 << 30  # bounds what the transfer takes beside the two copies of the weights


class WeightLoader:
    """vLLM mixes this into its workers."""

    def relisten_load_weights(self, path: str) -> list[str]:
        """Load a safetensors file into the model in place; the names of its parameters that were set."""
        model = self.get_model()  # type: ignore[attr-defined]
        return sorted(model.load_weights(load_file(path).items()))


def written(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> Iterator[Path]:
    """Files with all of `tensors`, one after the other; each is gone when the next is asked for."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="relisten-", dir=shared if shared.is_dir() else None) as folder:
        path = Path(folder) / "weights.safetensors"
        for part in _parts(tensors.items() if isinstance(tensors, Mapping) else tensors):
            save_file(part, path)
            yield path
            path.unlink()


def _parts(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    part: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors:
        part[name] = tensor.detach().cpu().contiguous()
        size += tensor.nbytes
        if size >= _FILE_BYTES:
            yield part
            part, size = {}, 0
    if part:
        yield part
