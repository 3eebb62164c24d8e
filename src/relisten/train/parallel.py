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
    """Some processes, or one, as those see it who only have to wait for each other."""

    @property
    def count(self) -> int: ...

    @property
    def first(self) -> bool: ...

    def wait(self) -> None: ...


class Gathered(nn.Module):
    """A module that may be divided among processes: work that it is called with finds its outer weights whole, and
    those of its divided parts whenever they are called. Every process must call it as often."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, work: Callable[[], T]) -> T:
        return work()


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, put together where it is divided; then every process must call this."""
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
        """Until every process is here."""
        self._state.wait_for_everyone()

    def wait_for(self, path: Path) -> None:
        """Until `path` is there: for what may take longer than a group waits."""
        while not path.exists():
            time.sleep(0.2)
        self.wait()

    def agree(self, problem: InputError | None) -> None:
        """Every process raises what the first one found wrong."""
        found = [problem and str(problem)]
        if self.count > 1:
            dist.broadcast_object_list(found, src=0)
        if found[0] is not None:
            raise InputError(found[0])

    def close(self) -> None:
        """Leave the group; the last thing a process does."""
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
        """Move `module` to the device, and with several processes leave each a part of every weight. What is
        trained becomes float32: steps are too small for half precision.

        Args:
            units: parts that are gathered one at a time, inner ones first.
            dtype: what weights are gathered and computed in; gradients are summed in float32. None: as they are.
            reshard: give gathered weights up again between forward and backward.
        """
        if self.count == 1:
            self._place(module)
            return
        policy = MixedPrecisionPolicy() if dtype is None else MixedPrecisionPolicy(dtype, torch.float32)
        mesh = init_device_mesh(self.device.type, (self.count,))
        options: dict[str, Any] = {"mesh": mesh, "mp_policy": policy}
        for unit in units:
            fully_shard(self._place(unit), reshard_after_forward=reshard, **options)
        # Outer weights stay gathered for the backward pass, by default; what has none gives them up.
        if not any(p.requires_grad for p in module.parameters()):
            options["reshard_after_forward"] = True
        fully_shard(self._place(module), **options)

    def _place(self, module: nn.Module) -> nn.Module:
        module.to(self.device)
        for parameter in module.parameters():
            if parameter.requires_grad and parameter.dtype != torch.float32:
                parameter.data = parameter.data.float()
        return module
