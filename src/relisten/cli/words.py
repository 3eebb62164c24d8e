"""Counts as people write them."""

from __future__ import annotations


def plural(count: int, what: str) -> str:
    """ "1 clip", "2 clips"."""
    return f"{count} {what}{'' if count == 1 else 's'}"
