"""Several processes that train one policy, each on its share of the answers; also one alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from relisten.errors import InputError
from relisten.train.parallel import Processes

T = TypeVar("T")


_BUCKET = 1 << 25
"""Numbers sent at once: few messages, and little memory beside the gradients."""


class Team:
    """The processes that train one policy together, or a single one.

    Args:
        processes: None for a single one, which needs nothing installed.
    """

    def __init__(self, processes: Processes | None = None) -> None:
        self._processes = processes
        self.count = processes.count if processes is not None else 1
        self.index = processes.index if processes is not None else 0
        self.first = self.index == 0

    def share(self, length: int) -> range:
        """This process's part of the places 0 .. `length` - 1."""
        return range(self.index, length, self.count)

    def gather(self, values: Sequence[T]) -> list[T]:
        """Every process's values for its `share`, in the order of the places."""
        if self.count == 1:
            return list(values)
        parts: list[Sequence[T]] = [[] for _ in range(self.count)]
        dist.all_gather_object(parts, values)
        everything: list[T] = []
        for turn in range(max(map(len, parts))):
            everything += [part[turn] for part in parts if turn < len(part)]
        return everything

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Leave every process with the sum of all processes' gradients."""
        if self.count == 1:
            return
        bucket: list[Tensor] = []
        size = 0
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            bucket.append(parameter.grad)
            size += parameter.numel()
            if size >= _BUCKET:
                _sum_together(bucket)
                bucket, size = [], 0
        if bucket:
            _sum_together(bucket)

    def shard(self, module: nn.Module, units: Iterable[nn.Module], dtype: torch.dtype | None) -> None:
        """Leave each process a part of every weight; see `Processes.shard`."""
        assert self._processes is not None  # for the type checker: only several processes divide anything
        self._processes.shard(module, units, dtype, reshard=True)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes, of one number at a time."""
        return self._reduce(values, dist.ReduceOp.SUM) if self.count > 1 else list(values)

    def most(self, value: float) -> float:
        """The largest of all processes' numbers."""
        return self._reduce([value], dist.ReduceOp.MAX)[0] if self.count > 1 else value

    def agree(self, check: Callable[[], None]) -> None:
        """Have the first process check something; every one raises the InputError that it found."""
        problem = None
        if self.first:
            try:
                check()
            except InputError as error:
                problem = error
        if self._processes is not None:
            self._processes.agree(problem)
        elif problem is not None:
            raise problem

    def wait(self) -> None:
        """Wait until every process calls this."""
        if self._processes is not None:
            self._processes.wait()

    def _reduce(self, values: Sequence[float], how: dist.ReduceOp.RedOpType) -> list[float]:
        assert self._processes is not None  # for the type checker: several processes are in a group
        summed: Tensor = torch.tensor(values, dtype=torch.float64, device=self._processes.device)
        dist.all_reduce(summed, how)
        numbers: list[float] = summed.tolist()
        return numbers


def _sum_together(gradients: Sequence[Tensor]) -> None:
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
