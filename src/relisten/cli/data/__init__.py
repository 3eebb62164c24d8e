"""`relisten data`: from labelled sound to training data. One command a module; each is registered here."""

from __future__ import annotations

import typer

from relisten.cli.data.compose import compose_
from relisten.cli.data.exporting import export
from relisten.cli.data.filtering import filter_
from relisten.cli.data.importing import import_
from relisten.cli.data.judging import judge
from relisten.cli.data.simulate import simulate
from relisten.cli.data.stats import stats
from relisten.cli.data.synthesize import synthesize

app = typer.Typer(no_args_is_help=True)
app.command("import")(import_)
app.command()(simulate)
app.command("compose")(compose_)
app.command()(synthesize)
app.command()(judge)
app.command("filter")(filter_)
app.command()(export)
app.command()(stats)


@app.callback()
def data() -> None:
    """From labelled sound to training data."""
