"""States that a run goes on from: trained weights and optimizer. Each process writes its own part.

A state that was written by some number of processes can be read by any other number.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

from torch import nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.optim import Optimizer

from relisten.train.exporting import step_name
from relisten.train.parallel import ProcessGroup

_TRAINED: Final = StateDictOptions(ignore_frozen_params=True, strict=False)
"""Not strict, since frozen weights are not stored. Reading the files checks that nothing else is missing."""


class States:
    """The states in `folder`, each in a folder named after the steps done.

    Args:
        keep: how many of the newest are kept.
    """

    def __init__(
        self, folder: Path, module: nn.Module, optimizer: Optimizer, processes: ProcessGroup, keep: int = 1
    ) -> None:
        self.folder = folder
        self._module = module
        self._optimizer = optimizer
        self._processes = processes
        self._keep = keep

    def restore(self) -> int:
        """Load the newest state and return its steps done; 0 where there is none. Every process calls this."""
        found = sorted(self.folder.glob("step-*"))
        if not found:
            return 0
        state = self._state()
        with _quiet():
            state_dict_loader.load(state, checkpoint_id=found[-1], no_dist=self._processes.count == 1)
        set_state_dict(
            self._module, self._optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"],
            options=_TRAINED,
        )  # fmt: skip
        return int(found[-1].name.removeprefix("step-"))

    def save(self, done: int) -> None:
        """Write the state after `done` steps; it appears once it is complete. Every process calls this."""
        folder = self.folder / step_name(done)
        part = folder.with_name(f".{folder.name}.part")
        if self._processes.first:
            shutil.rmtree(part, ignore_errors=True)
        self._processes.wait()
        with _quiet():
            state_dict_saver.save(self._state(), checkpoint_id=part, no_dist=self._processes.count == 1)
        self._processes.wait()
        if self._processes.first:
            shutil.rmtree(folder, ignore_errors=True)
            part.rename(folder)
            for old in sorted(self.folder.glob("step-*"))[: -self._keep]:
                shutil.rmtree(old)
        self._processes.wait()

    def drop(self, done: int) -> None:
        """Delete the state after `done` steps, if there is one. Every process calls this."""
        if self._processes.first:
            shutil.rmtree(self.folder / step_name(done), ignore_errors=True)
        self._processes.wait()

    def _state(self) -> dict[str, Any]:
        if not self._optimizer.state:
            # torch creates the moments by a step without gradients, which must not count as a step.
            get_state_dict(self._module, self._optimizer, options=_TRAINED)
            for moments in self._optimizer.state.values():
                moments["step"].zero_()
        model, optimizer = get_state_dict(self._module, self._optimizer, options=_TRAINED)
        return {"model": cast(Any, model), "optimizer": cast(Any, optimizer)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warning that a single process saves alone."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is")
        yield
