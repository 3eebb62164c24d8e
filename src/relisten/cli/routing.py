"""The options of every command whose answers may take a route, and what they come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relisten.errors import InputError
from relisten.trace import Routing

if TYPE_CHECKING:
    from relisten.router.answering import Router

RouterFolder = Annotated[
    Path | None,
    typer.Option("--router", help="Folder of a policy (relisten router train) that decides on audio tools."),
]
RouteName = Annotated[
    str | None,
    typer.Option(
        "--route", help="Instead: always this route, such as direct, pitch, pitch+silence or direct/text."
    ),
]
ToolCacheFile = Annotated[
    Path | None, typer.Option("--tool-cache", help="With --router or --route: file that keeps what tools found.")
]


@dataclass(frozen=True)
class Chosen:
    """What the three options say."""

    router: Router | Path | None
    """As `Listener.load` takes it."""
    tool_cache: Path | None

    @property
    def options(self) -> dict[str, Any]:
        """Of `Listener.load`; none where nothing is routed."""
        return {} if self.router is None else {"router": self.router, "tool_cache": self.tool_cache}


def chosen(router: Path | None, route: str | None, tool_cache: Path | None) -> Chosen:
    """
    Raises:
        InputError: they do not go together, the route is none or names a tool that cannot run here, or the file is
            no cache.
    """
    if router is not None and route is not None:
        raise InputError("--router and --route: a route that is given needs no policy; leave one out")
    if router is None and route is None:
        if tool_cache is not None:
            raise InputError("--tool-cache goes with --router or --route; without them no tool runs")
        return Chosen(None, None)
    # Slow to import, and needless for answers without tools.
    from relisten.tools.cache import ToolCache

    kept = None if tool_cache is None else ToolCache(tool_cache)
    if route is not None:
        from relisten.router.answering import Router
        from relisten.router.routes import Route
        from relisten.tools.tool import require_tools

        parsed = Route.parse(route)
        require_tools(parsed.tools)
        return Chosen(Router(parsed, kept), tool_cache)
    if kept is not None:
        kept.close()
    return Chosen(router, tool_cache)


def tell_routes(routings: Iterable[Routing | None]) -> str:
    """How often each route was taken, and what went wrong: "12 direct, 4 pitch; 1 with a tool that failed"."""
    taken: Counter[str] = Counter()
    failed = noted = 0
    for routing in routings:
        if routing is not None:
            taken[routing.route] += 1
            failed += bool(routing.failures)
            noted += bool(routing.note)
    told = ", ".join(f"{count} {name}" for name, count in sorted(taken.items(), key=lambda it: (-it[1], it[0])))
    if failed:
        told += f"; {failed} with a tool that failed"
    if noted:
        told += f"; {noted} with a note"
    return told
