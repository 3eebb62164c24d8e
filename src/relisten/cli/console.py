"""The console for tables and lines that hold words of the user's files."""

from __future__ import annotations

from rich.console import Console


def plain_console() -> Console:
    """Standard output, on which a label such as "[laughter]" or ":bell:" stays what it is."""
    return Console(markup=False, emoji=False)
