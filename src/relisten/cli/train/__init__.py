"""`relisten train`: stage 1 and stage 2. One command a module; each is registered here."""

from __future__ import annotations

import typer

from relisten.cli.train.grpo import grpo
from relisten.cli.train.sft import sft

app = typer.Typer(no_args_is_help=True)
app.command()(sft)
app.command()(grpo)


@app.callback()
def train() -> None:
    """Train a model: supervised, then by reinforcement."""
