"""`relisten router ask`: `relisten ask` with a route before the answer."""

from __future__ import annotations

from functools import wraps
from typing import Any

from relisten.cli.ask import ask as ask_routed
from relisten.errors import InputError


@wraps(ask_routed)
def ask(**given: Any) -> None:
    if given["router"] is None and given["route"] is None:
        raise InputError("who decides? give --router with the folder of a policy, or --route with a route")
    ask_routed(**given)


ask.__doc__ = """Ask a question; shows the route, how sure the policy is, what the tools told, and the answer.

    Whatever a tool or the policy does, the answer comes, and says what went wrong. All options of `relisten ask`.

    Exit status: 0 with an answer, 1 without one, 2 for bad input.
    """
