"""`Route`: one way to an answer. Which audio tools run first, and whether the model may listen again."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

from relisten.errors import InputError
from relisten.protocol import Format
from relisten.tools.tool import Tool, all_tools, find_tool

_NO_TOOL: Final = "direct"
_TEXT: Final = "/text"
_TOOL: Final = re.compile(r"[a-z0-9_]+")


@dataclass(frozen=True)
class Route:
    """What happens before and while a model reasons about one question.

    A tool that is not here, or fails, is no reason against a route: its report says so, and the answer comes.

    Raises:
        InputError: a name that no tool can have, or a tool twice.
    """

    tools: tuple[str, ...] = ()
    """Run in this order; the model reads all their findings."""
    listen: bool = True
    """Whether to reason in the format that was asked for; else in `Format.TEXT`, which never listens again."""

    def __post_init__(self) -> None:
        for tool in self.tools:
            if not _TOOL.fullmatch(tool) or tool == _NO_TOOL:
                raise InputError(f"route with tool {tool!r}: a tool's name has small letters, digits and _ only")
        if len(set(self.tools)) != len(self.tools):
            raise InputError(f"route {self.name!r}: a tool stands in it twice; name each once")

    @property
    def name(self) -> str:
        """`direct`, `pitch`, `pitch+silence`; with `/text` behind it where nothing is listened to again."""
        return ("+".join(self.tools) or _NO_TOOL) + ("" if self.listen else _TEXT)

    @classmethod
    def parse(cls, name: str) -> Route:
        """The route of that name.

        Raises:
            InputError: it is no name of a route.
        """
        tools = name.removesuffix(_TEXT)
        try:
            return cls(() if tools == _NO_TOOL else tuple(tools.split("+")), not name.endswith(_TEXT))
        except InputError as error:
            raise InputError(
                f"route {name!r}: {error}; write direct, a tool, or tools with + between, and /text behind it to "
                "reason without listening again"
            ) from None

    def format(self, asked: Format) -> Format:
        """How the model reasons on this route where `asked` is what the user wants."""
        return asked if self.listen else Format.TEXT


DIRECT: Final = Route()


def default_routes(
    tools: Iterable[str] | None = None, *, text: bool = False, longest: int = 1
) -> tuple[Route, ...]:
    """An action set: `DIRECT`, then each tool alone, then several in sequence.

    Args:
        tools: names; None takes every tool that can run here as it is, sorted by name.
        text: also each of these routes without listening again.
        longest: tools that a route may run; of several, one order stands for all.

    Raises:
        InputError: a tool is unknown, or `longest` is below 1.
    """
    if longest < 1:
        raise InputError(f"longest {longest}: a route that runs tools runs at least 1")
    if tools is None:
        names = [tool.name for tool in all_tools().values() if _runs_here(tool)]
    else:
        names = [find_tool(name).name for name in dict.fromkeys(tools)]
    listening = [DIRECT, *(Route(some) for size in range(1, longest + 1) for some in combinations(names, size))]
    return (*listening, *(Route(route.tools, listen=False) for route in listening if text))


def check_routes(routes: Iterable[Route]) -> tuple[Route, ...]:
    """The routes, as an action set: in order, direct among them, none twice.

    Raises:
        InputError: it is none.
    """
    found = tuple(routes)
    if DIRECT not in found:
        raise InputError(
            f"routes {', '.join(route.name for route in found) or '(none)'}: direct must be among them"
        )
    if len(set(found)) != len(found):
        raise InputError(f"routes {', '.join(route.name for route in found)}: one stands twice; name each once")
    return found


def _runs_here(tool: Tool[..., Any]) -> bool:
    """Installed; and one that is completed from the environment (an endpoint, say) finds something there."""
    if tool.missing:
        return False
    if tool.complete is None:
        return True
    try:
        return tool.arguments({}) != {name: parameter.default for name, parameter in tool.parameters.items()}
    except InputError:
        return False
