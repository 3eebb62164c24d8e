"""Options that mean something only together with another."""

from __future__ import annotations

from collections.abc import Mapping

from relisten.errors import InputError


def refuse_without(options: Mapping[str, object], other: str) -> None:
    """
    Raises:
        InputError: one of the options is given (is not None), and only means something with `other`, which is not.
    """
    for name, value in options.items():
        if value is not None:
            raise InputError(f"{name} goes with {other}; leave it out")
