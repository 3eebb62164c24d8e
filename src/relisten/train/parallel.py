"""Processes of one run: who they are, and how a model is divided among them (FSDP2).

`accelerate launch` (or `torchrun`) starts them. accelerate's own `prepare` is not used: on CPUs it knows no FSDP.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from relisten.errors import InputError
from relisten.models import check_device, resolve_device

T = TypeVar("T")


class ProcessGroup(Protocol):
    """Processes that can wait for each other, or a single one."""

    @property
    def count(self) -> int: ...

    @property
    def first(self) -> bool: ...

    def wait(self) -> None: ...


class Gathered(nn.Module):
    """Wraps a module that may be sharded. Inside the function passed to it, the outer weights are gathered; sharded
    submodules gather theirs when called. Every process must make the same number of calls."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, work: Callable[[], T]) -> T:
        return work()


def whole(tensor: Tensor) -> Tensor:
    """The tensor, gathered if it is divided among processes; then every process must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


class Processes:
    """This process among those of its run; alone where nothing launched it.

    Args:
        device: "auto" takes this process's GPU if there is one, else the CPU.

    Raises:
        InputError: accelerate is not installed, or there is no such device.
    """

    def __init__(self, device: str = "auto") -> None:
        try:
            from accelerate import PartialState
        except ModuleNotFoundError:
            raise InputError('training needs accelerate: pip install "relisten[train]"') from None
        if device != "auto":
            check_device(device)
        on_cpu = resolve_device(device) == "cpu"
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and on_cpu:
            os.environ.setdefault("OMP_NUM_THREADS", "1")  # else accelerate warns on every start
        self._state = PartialState(cpu=on_cpu)
        self.count: int = self._state.num_processes
        self.index: int = self._state.process_index
        self.device = torch.device(device) if device != "auto" and self.count == 1 else self._state.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and talks."""
        return self.index == 0

    def wait(self) -> None:
        """Wait until every process calls this."""
        self._state.wait_for_everyone()

    def wait_for(self, path: Path) -> None:
        """Wait until `path` exists: for work that takes longer than processes wait for each other."""
        while not path.exists():
            time.sleep(0.2)
        self.wait()

    def agree(self, problem: InputError | None) -> None:
        """Raise in every process the problem that the first one found, if there is one."""
        found = [problem and str(problem)]
        if self.count > 1:
            dist.broadcast_object_list(found, src=0)
        if found[0] is not None:
            raise InputError(found[0])

    def close(self) -> None:
        """Leave the other processes; the last call."""
        if self.count > 1:
            self._state.destroy_process_group()

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes, on every one."""
        if self.count > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def shard(
        self, module: nn.Module, units: Iterable[nn.Module], dtype: torch.dtype | None, reshard: bool
    ) -> None:
        """Move `module` to the device, and with several processes leave each a part of every weight. Trained
        weights become float32: steps are too small for half precision.

        Args:
            units: parts of it whose weights are gathered when they are called, and not before.
            dtype: what weights are gathered and computed in; gradients are summed in float32. None: as they are.
            reshard: free gathered weights after the forward pass, and gather them again for the backward pass.
        """
        if self.count == 1:
            self._place(module)
            return
        policy = MixedPrecisionPolicy() if dtype is None else MixedPrecisionPolicy(dtype, torch.float32)
        mesh = init_device_mesh(self.device.type, (self.count,))
        options: dict[str, Any] = {"mesh": mesh, "mp_policy": policy}
        for unit in units:
            fully_shard(self._place(unit), reshard_after_forward=reshard, **options)
        # By default outer weights stay gathered for the backward pass; a frozen module has none.
        if not any(p.requires_grad for p in module.parameters()):
            options["reshard_after_forward"] = True
        fully_shard(self._place(module), **options)

    def _place(self, module: nn.Module) -> nn.Module:
        module.to(self.device)
        for parameter in module.parameters():
            if parameter.requires_grad and parameter.dtype != torch.float32:
                parameter.data = parameter.data.float()
        return module
