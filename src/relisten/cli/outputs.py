"""Files that commands write: none of them is one that the command reads, and none is written twice."""

from __future__ import annotations

from pathlib import Path

from relisten.errors import InputError


def refuse_same(out: Path, *inputs: Path) -> None:
    """
    Raises:
        InputError: `out` is one of the inputs, by whatever path.
    """
    if any(_same(out, given) for given in inputs):
        raise InputError(f"{out}: is the input; give another file")


def refuse_twice(out: Path, other: Path | None, option: str) -> None:
    """
    Raises:
        InputError: `other`, the file of `option`, is `out` by whatever path, or will be.
    """
    if other is not None and _same(out, other):
        raise InputError(f"{other}: is given as --out and as {option}; give two files")


def _same(one: Path, other: Path) -> bool:
    if one.exists() and other.exists():
        return one.samefile(other)
    return one.resolve() == other.resolve()
