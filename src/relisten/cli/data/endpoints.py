"""The options that name models, and how a run of them looks in a terminal."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from relisten.cli.words import plural
from relisten.errors import InputError
from relisten.jsonl import dump_json
from relisten.llm.endpoint import Endpoint, make_endpoint, read_endpoints
from relisten.llm.limits import Budget

if TYPE_CHECKING:
    from relisten.data.llm.outcome import OutcomeFolder
    from relisten.data.llm.pipeline import ClipResult
    from relisten.llm.client import ChatClient
    from relisten.llm.store import ReplyStore

Model = tuple[str, str] | None
Price = tuple[float, float] | None

EndpointsFile = Annotated[
    Path | None,
    typer.Option("--endpoints", help="A TOML file with a table for each model: url, model, key_env, prices, ..."),
]
PerMinute = Annotated[float | None, typer.Option("--rpm", help="Requests a minute to each model.")]
Concurrency = Annotated[
    int | None, typer.Option(help="Requests under way at once to each model.", show_default="8")
]
Timeout = Annotated[float | None, typer.Option(help="Seconds for one whole reply.", show_default="300")]
Stream = Annotated[bool | None, typer.Option("--stream/--no-stream", help="Have replies sent as they grow.")]
BudgetLimit = Annotated[
    float | None, typer.Option("--budget", help="Dollars that may go into this folder, earlier runs included.")
]


def model_option(role: str, about: str, default: str | bool = False) -> Any:
    return typer.Option(f"--{role}", metavar="URL MODEL", help=about, show_default=default)


def key_option(role: str) -> Any:
    return typer.Option(f"--{role}-key-env", metavar="NAME", help="Environment variable with its key.")


def price_option(role: str) -> Any:
    return typer.Option(f"--{role}-price", metavar="IN OUT", help="Dollars for a million tokens read and written.")


@dataclass(frozen=True)
class Role:
    """What the command line says about one model."""

    model: Model = None
    key_env: str | None = None
    price: Price = None

    def endpoint(self, base: Endpoint | None, limits: Mapping[str, Any]) -> Endpoint | None:
        """The endpoint, or None where neither the command line nor `base` names a model."""
        values = {name: value for name, value in limits.items() if value is not None}
        if self.model is not None:
            values |= {"url": self.model[0], "model": self.model[1]}
            base = None  # with another place named, the file's key must not be sent there
        if self.key_env is not None:
            values["key_env"] = self.key_env
        if self.price is not None:
            values |= {"input_price": self.price[0], "output_price": self.price[1]}
        return None if base is None and self.model is None else make_endpoint(values, base)


def resolve(roles: Mapping[str, Role], file: Path | None, limits: Mapping[str, Any]) -> dict[str, Endpoint]:
    """The endpoint of every role; options go before the file, and a judge that nobody names is the writer.

    Raises:
        InputError: a role has no model, or an option does not fit.
    """
    known = {} if file is None else read_endpoints(file)
    found: dict[str, Endpoint] = {}
    for name, role in roles.items():
        base = known.get(name)
        if base is None and role.model is None and name == "judge":
            base = found.get("writer")
        endpoint = role.endpoint(base, limits)
        if endpoint is None:
            raise InputError(f"no {name}: name it with --{name} URL MODEL, or in an --endpoints file")
        found[name] = endpoint
    return found


def need_httpx() -> None:
    """
    Raises:
        InputError: the extra that asks endpoints is not installed.
    """
    try:
        import httpx  # noqa: F401
    except ModuleNotFoundError:
        raise InputError('asking models needs httpx: pip install "relisten[llm]"') from None


class SpendBar:
    """A run as it goes: the bar with the time left and the spend, Ctrl-C, and the summary at the end."""

    def __init__(self, budget: Budget, total: int | None, what: str, *, quiet: bool) -> None:
        self._budget = budget
        self._total = total
        self._what = what
        self._quiet = quiet
        self._console = Console(stderr=True)
        self._told = 0.0

    def told(self, message: str) -> None:
        """Show why a request is tried again; at most one such line in two seconds."""
        now = time.monotonic()
        if not self._quiet and now - self._told >= 2:
            self._told = now
            self._console.print(message, style="dim", markup=False, highlight=False)

    async def follow(self, results: AsyncIterator[ClipResult], folder: OutcomeFolder) -> None:
        """Take every result into the folder."""
        started = self._budget.spent
        with self._stopping_on_interrupt(), self._bar() as bar:
            task = bar.add_task(self._what, total=self._total, note="")

            async def keep_note() -> None:
                # Money is spent long before the first clip is through all steps.
                while True:
                    spent = f"${self._budget.spent - started:.4f}  " if self._budget.spent else ""
                    bar.update(task, note=f"{spent}{folder.rows['sft']} SFT, {folder.rows['rl']} RL")
                    await asyncio.sleep(0.5)

            note = asyncio.create_task(keep_note())
            try:
                async for result in results:
                    folder.add(result)
                    bar.advance(task)
            finally:
                note.cancel()

    def _bar(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            transient=True,
            disable=self._quiet or not self._console.is_terminal,
        )

    def _stopping_on_interrupt(self) -> _Interrupt:
        return _Interrupt(self._budget, self._console)


class _Interrupt:
    """The first Ctrl-C (or a polite kill) lets requests under way come home; the second one does not wait."""

    def __init__(self, budget: Budget, console: Console) -> None:
        self._budget = budget
        self._console = console

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)

    def _stop(self) -> None:
        self._remove()
        self._console.print("stopping: replies under way are still taken; again to leave at once", markup=False)
        self._budget.close("stopped by hand")

    def _remove(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    def __exit__(self, *_: object) -> None:
        self._remove()


def summarize(
    folder: OutcomeFolder,
    clients: Mapping[str, ChatClient],
    store: ReplyStore,
    budget: Budget,
    started: float,
) -> dict[str, Any]:
    """What a run came to, for `run.json` and for `--json`."""
    counts = list({id(client): client.counts for client in clients.values()}.values())
    return {
        "out": str(folder.path),
        "clips": folder.clips,
        "sft": folder.rows["sft"],
        "rl": folder.rows["rl"],
        "discarded": folder.rows["discarded"],
        "discarded_by_reason": dict(folder.reasons.most_common()),
        "failed": folder.rows["failed"],
        "stopped": budget.closed,
        "replies_paid": sum(count.paid for count in counts),
        "replies_stored": sum(count.stored for count in counts),
        "retries": sum(count.retries for count in counts),
        "spent": round(budget.spent - started, 6),
        "spent_in_all": round(store.spent(), 6),
        "used": {step: asdict(usage) for step, usage in store.usage().items()},
        "lost": {step: asdict(usage) for step, usage in store.lost().items()},
    }


def show_summary(summary: Mapping[str, Any], what: str, as_json: bool) -> int:
    """Print it; the exit status: 0 done, 1 stopped early or with failures."""
    if as_json:
        print(dump_json(summary))
    else:
        reasons = ", ".join(f"{name} {number}" for name, number in summary["discarded_by_reason"].items())
        print(
            f"{plural(summary['clips'], what)}: {summary['sft']} for SFT, {summary['rl']} for RL, "
            f"{summary['discarded']} discarded{f' ({reasons})' if reasons else ''} -> {summary['out']}"
        )
        print(
            f"{summary['replies_paid']} replies paid, {summary['replies_stored']} were there already, "
            f"{summary['retries']} retries; ${summary['spent']:.4f} now, ${summary['spent_in_all']:.4f} in all"
        )
    if summary["failed"]:
        print(f"{summary['failed']} failed, see failed.jsonl; the next run tries them again", file=sys.stderr)
    if summary["stopped"]:
        print(f"stopped early: {summary['stopped']}. Run the same command again to go on", file=sys.stderr)
    return 1 if summary["failed"] or summary["stopped"] else 0
