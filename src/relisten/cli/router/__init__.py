"""`relisten router`: audio tools, and when to use them. One command a module; each is registered here."""

from __future__ import annotations

import typer

from relisten.cli.ask import Ask
from relisten.cli.router.ask import ask
from relisten.cli.router.report import report
from relisten.cli.router.tools import tool, tools
from relisten.cli.router.train import train

app = typer.Typer(no_args_is_help=True)
app.command()(tools)
app.command()(tool)
app.command()(train)
app.command(cls=Ask)(ask)
app.command()(report)


@app.callback()
def router() -> None:
    """Audio tools that help a model to answer."""
