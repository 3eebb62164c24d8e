"""What a CUDA graph does, on a CPU: the operations of a step are recorded and repeated without its Python.

As with a graph, tensors that were there before are used where they are, with what they hold at the time; numbers
and shapes are those of the recording; and a step that waits for a number, or makes a tensor of Python's, cannot be
recorded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

from relisten.models.graphs import Step

_CANNOT = tuple(getattr(torch.ops.aten, name).default for name in ("item", "_local_scalar_dense", "lift_fresh"))


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _CANNOT:
            raise RuntimeError(f"{func} cannot be recorded")
        made = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, made))
        return made


class Recordings:
    """Takes the place of `graphs.record`, and counts."""

    def __init__(self) -> None:
        self.recorded = 0
        self.repeated = 0

    def record(self, step: Step, stream: None, pool: Any) -> Step:
        with _Recorder() as recorder:
            result = step()
        self.recorded += 1

        def again() -> Tensor:
            self.repeated += 1
            now: dict[int, Tensor] = {}

            def current(values: Any) -> Any:
                return tree_map_only(Tensor, lambda tensor: now.get(id(tensor), tensor), values)

            for func, args, kwargs, made in recorder.calls:
                again = func(*current(args), **current(kwargs))
                for old, new in zip(tree_flatten(made)[0], tree_flatten(again)[0], strict=True):
                    if isinstance(old, Tensor):
                        now[id(old)] = new
            return now[id(result)]

        return again
