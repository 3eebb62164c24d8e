"""`relisten router tools` and `relisten router tool`: what tools there are, how well they do, and one on a file."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from relisten.cli.console import plain_console
from relisten.errors import InputError
from relisten.jsonl import dump_json

if TYPE_CHECKING:
    from relisten.router.measure import Figure
    from relisten.tools.tool import Tool


def tools(
    measure: Annotated[
        bool, typer.Option("--measure", help="Print each tool's errors on held-out scenes and made signals.")
    ] = False,
    only: Annotated[list[str] | None, typer.Option(help="With --measure: only this tool; may be repeated.")] = None,
    count: Annotated[int, typer.Option(help="With --measure: sounds of each kind.")] = 40,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the tools: what each tells, its arguments and limits, and whether it is installed."""
    # Slow to import, and needless for --help.
    from relisten.tools.tool import all_tools, find_tool, tool_problems

    if count < 1:
        raise InputError(f"count {count}: it must be at least 1")
    if measure:
        _measure([find_tool(name).name for name in only or all_tools()], count, as_json)
        return
    if only:
        raise InputError("--only goes with --measure; leave it out to list the tools")
    found = all_tools().values()
    if as_json:
        print(json.dumps([_described(tool) for tool in found], indent=1))
    else:
        table = Table(box=None, pad_edge=False)
        for name in ("tool", "tells", "arguments", "at most"):
            table.add_column(name, overflow="fold")
        for tool in found:
            arguments = ", ".join(f"{name}={parameter.default!r}" for name, parameter in tool.parameters.items())
            tells = f"{tool.summary} (not installed: {tool.install})" if tool.missing else tool.summary
            table.add_row(tool.name, tells, arguments, f"{tool.max_duration:,.0f} s")
        plain_console().print(table)
    errors = Console(stderr=True)
    for problem in tool_problems():
        errors.print(f"not read: {problem}", markup=False, highlight=False)


def tool(
    name: Annotated[str, typer.Argument(help="A tool, as `relisten router tools` lists it.")],
    audio: Annotated[Path, typer.Argument(help="A sound file (wav, flac, ogg, mp3, m4a, ...).")],
    window: Annotated[
        tuple[float, float] | None, typer.Option(help="Only from here to there, in seconds.", show_default="all")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="An argument of the tool; may be repeated."),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Give up after so many seconds.", show_default="the tool's")
    ] = None,
    cache: Annotated[Path | None, typer.Option("--tool-cache", help="File that keeps what tools found.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
) -> None:
    """Run one tool on a file and print what a model would read.

    Exit status: 0 it found out, 1 it could not (the line says why), 2 bad input.
    """
    from relisten.audio import Clip
    from relisten.protocol import Segment
    from relisten.tools.cache import ToolCache
    from relisten.tools.running import run_tool
    from relisten.tools.tool import find_tool

    if timeout is not None and not 0 < timeout < float("inf"):
        raise InputError(f"timeout {timeout:g}: it must be seconds above 0")
    find_tool(name)  # at the command line an unknown tool is bad input, not a result
    segment = None if window is None else Segment(*window)
    arguments = dict(_setting(setting) for setting in settings or ())
    clip = Clip.load(audio)
    with ToolCache(cache) if cache is not None else nullcontext() as kept:
        report = run_tool(name, clip, segment, arguments, cache=kept, timeout=timeout)
    print(dump_json(report.to_json(), indent=1) if as_json else report.text())
    raise typer.Exit(0 if report.finding is not None else 1)


def _setting(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found or not name:
        raise InputError(f"--set {text!r}: write NAME=VALUE, such as sensitivity=0.5")
    return name, value


def _measure(names: list[str], count: int, as_json: bool) -> None:
    from relisten.router.measure import measure

    figures: list[Figure] = []
    errors = Console(stderr=True)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("measuring", total=len(names))
        for name in names:
            bar.update(task, description=name)
            found = measure(name, count)
            figures += found
            if not as_json:
                print(name)
                for figure in found:
                    print(f"  {figure.text()}", flush=True)
            bar.update(task, advance=1)
    if as_json:
        print(json.dumps([figure.to_json() for figure in figures], indent=1))


def _described(tool: Tool[..., Any]) -> dict[str, Any]:
    return {
        "tool": tool.name,
        "tells": tool.summary,
        "version": tool.version,
        "arguments": {
            name: {"type": parameter.kind.__name__, "default": parameter.default}
            for name, parameter in tool.parameters.items()
        },
        "max_duration": tool.max_duration,
        "timeout": tool.timeout,
        "missing": list(tool.missing),
        "install": tool.install,
    }
