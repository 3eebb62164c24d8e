"""Numbers of a run: `metrics.jsonl` always, TensorBoard and a tracker where they are wanted and installed."""

from __future__ import annotations

import importlib
import json
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch

from relisten.errors import InputError
from relisten.files import write_whole
from relisten.jsonl import read_rows

_FILE: Final = "metrics.jsonl"


def gpu_memory(device: torch.device) -> dict[str, float]:
    """The most GPU memory that this process has held so far, as a number of its metrics; none on a CPU."""
    return {"memory_gib": torch.cuda.max_memory_allocated(device) / 2**30} if device.type == "cuda" else {}


def has_metrics(folder: Path) -> bool:
    """Whether a run in `folder` has logged anything."""
    return (folder / _FILE).exists() and (folder / _FILE).stat().st_size > 0


def last_row(folder: Path) -> dict[str, float]:
    """The numbers that a run in `folder` logged last; none where it logged nothing."""
    rows = _good_rows(folder / _FILE)
    return {name: value for name, value in rows[-1].items() if name != "step"} if rows else {}


def keep_rows(path: Path, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
    """Keep only the rows of a file that are `wanted`, and no line torn by a kill; does nothing without a file."""
    if path.exists():
        write_whole(path, "".join(json.dumps(row) + "\n" for row in _good_rows(path) if wanted(row)))


class Metrics:
    """Writes rows of numbers, each with the steps done so far.

    Args:
        folder: of the run.
        done: the step that a run goes on from; rows of later steps are dropped, so that the file reads as if the
            run had never stopped.
        tensorboard: also write to `folder/tensorboard`, if TensorBoard is installed.
        tracker: "trackio", "wandb" or "none".
        settings: those of the run, which the tracker shows.

    Raises:
        InputError: the tracker is not installed.
    """

    def __init__(
        self,
        folder: Path,
        done: int = 0,
        tensorboard: bool = False,
        tracker: str = "none",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._path = folder / _FILE
        keep_rows(self._path, lambda row: row["step"] <= done)
        self._tracker: Any = None
        if tracker != "none":
            try:
                self._tracker = importlib.import_module(tracker)
            except ModuleNotFoundError:
                raise InputError(f"tracker {tracker} is not installed: pip install {tracker}") from None
            given: dict[str, Any] = {"project": "relisten", "name": folder.name, "config": dict(settings or {})}
            if tracker == "wandb":  # which knows runs by ids, not by names
                given["id"] = _own_id(folder / "wandb-id")
            if done > 0:
                given["resume"] = "allow"
            self._tracker.init(**given)
        self._board: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ModuleNotFoundError:
                pass  # metrics.jsonl has it all
            else:
                # purge_step hides what an interrupted run wrote after `done`.
                self._board = SummaryWriter(folder / "tensorboard", purge_step=done + 1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One row; `step` counts the steps done."""
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **{name: _short(value) for name, value in values.items()}}) + "\n")
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        if self._tracker is not None:
            self._tracker.log(dict(values), step=step)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()
        if self._tracker is not None:
            self._tracker.finish()


def _good_rows(path: Path) -> list[dict[str, Any]]:
    return [row[1] for row in read_rows(path) if isinstance(row, tuple)] if path.exists() else []


def _own_id(path: Path) -> str:
    """An id of the run alone, which its folder keeps."""
    if not path.exists():
        write_whole(path, uuid.uuid4().hex)
    return path.read_text(encoding="utf-8")


def _short(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.7g}")
