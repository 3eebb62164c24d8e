"""Files that commands write: none of them is one that the command reads."""

from __future__ import annotations

from pathlib import Path

from relisten.errors import InputError


def refuse_same(out: Path, *inputs: Path) -> None:
    """
    Raises:
        InputError: `out` is one of the inputs, by whatever path.
    """
    if any(out.exists() and given.exists() and out.samefile(given) for given in inputs):
        raise InputError(f"{out}: is the input; give another file")
