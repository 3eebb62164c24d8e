"""The command line: parses, calls, prints."""

from __future__ import annotations

import io
import os
import sys
from importlib.metadata import version
from typing import Annotated, Any

import typer

from relisten.cli import data, router, train
from relisten.cli.ask import Ask, ask
from relisten.cli.evaluate import evaluate, score
from relisten.cli.report import report
from relisten.cli.reproduce import reproduce
from relisten.cli.rubrics import rubrics
from relisten.cli.statuses import BAD_INPUT, FAILED
from relisten.errors import InputError, RelistenError


class _Group(typer.core.TyperGroup):
    """Leaves out of an error what only names the library that checked the value."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            if isinstance(message := getattr(error, "message", None), str):
                error.message = message.removeprefix("Value error, ")  # type: ignore[attr-defined]
            raise


app = typer.Typer(
    cls=_Group,
    help="Audio models that answer by listening again.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command(cls=Ask)(ask)
app.command("eval")(evaluate)
app.command()(score)
app.command()(rubrics)
app.command()(report)
app.command()(reproduce)
app.add_typer(data.app, name="data")
app.add_typer(train.app, name="train")
app.add_typer(router.app, name="router")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"relisten {version('relisten')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error. May stand anywhere.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Audio models that answer by listening again."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. Exit status: 0 done, 1 not (a command says what that means), 2 bad input."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files and answers may hold half characters
    debug = "--debug" in arguments
    if debug:
        arguments = ["--debug", *(argument for argument in arguments if argument != "--debug")]
    try:
        try:
            app(arguments)
        finally:
            print(end="", flush=True)  # here, not at exit: what does not fit on the disk must be told
    except RelistenError as error:
        if debug:
            raise
        print(f"relisten: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT if isinstance(error, InputError) else FAILED)
    except OSError as error:
        if error.filename is None:
            # Nobody takes our output any more; the interpreter must not complain when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            if debug:
                raise
            print(f"relisten: {error.filename or 'output'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(FAILED)
