"""`relisten data`: from labelled sound to training data. One command a module; each is registered here."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True)


@app.callback()
def data() -> None:
    """From labelled sound to training data."""
