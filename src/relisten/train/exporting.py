"""Checkpoints that runs write."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from relisten.errors import InputError

_OF_ITS_START = ("metrics.json", "training.jsonl")
"""Files that describe the model which a run started from; a new checkpoint must not carry them."""


def step_name(done: int) -> str:
    """The name of folders and files that belong to a number of steps done: "step-000200"."""
    return f"step-{done:06d}"


def export_folder(out: Path, step: int | None = None, kind: str = "checkpoint") -> Path:
    """Where a run in `out` writes the trained model.

    Args:
        step: the number of steps done, for a checkpoint on the way; None for the final one.
        kind: "checkpoint", or "adapter" for adapters alone.
    """
    return out / kind if step is None else out / f"{kind}s" / step_name(step)


def replace_checkpoint(folder: Path, save: Callable[[Path], None], made: Mapping[str, Any]) -> None:
    """Write a checkpoint to `folder`; one that is there is removed once the new one is complete.

    Args:
        save: writes the model into a new folder.
        made: what `training.json` tells of it, beside versions of libraries.
    """
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    save(new)
    for name in _OF_ITS_START:
        (new / name).unlink(missing_ok=True)
    versions = {name: version(name) for name in ("relisten", "torch", "transformers")}
    content = json.dumps({**made, "versions": versions}, indent=2)
    (new / "training.json").write_text(content + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)


def check_model_outside(model: str, out: Path) -> None:
    """Raises InputError where a run in `out` would write over the model that it starts from."""
    source = Path(model)
    if source.is_dir() and out.resolve() in source.resolve().parents:
        raise InputError(f"{model}: lies in {out}, where the run writes; give another --out")
