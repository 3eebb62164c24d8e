"""Options of engines: how people write them, and checks of their values."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, get_args, get_type_hints

from relisten.errors import InputError

_KINDS: Final = {int: "a whole number", bool: "true or false"}


def named_values(given: Iterable[str]) -> dict[str, Any]:
    """`NAME=VALUE` texts as an engine's constructor takes them: a value is JSON, or else a text.

    Raises:
        InputError: a text without a name or an equals sign.
    """
    options: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.strip().partition("=")
        if not name.isidentifier() or not equals:
            raise InputError(f"engine option {text}: write NAME=VALUE, such as max_rows=32")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


def check_options(
    engine: str, make: Callable[..., Any], options: Mapping[str, Any], *, given: Iterable[str] = ()
) -> None:
    """Whether an engine's constructor takes these options, by its signature; what it takes as `**` passes.

    Args:
        given: keywords of the constructor that are no options, since it gets them anyway.

    Raises:
        InputError: there is no such option, or its value is of another kind.
    """
    parameters = inspect.signature(make).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in given]
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters)
    hints = get_type_hints(make)
    for name, value in options.items():
        if name in known:
            check_kind(name, value, hints[name])
        elif name in given or not anything:
            raise InputError(f"engine option {name}: the {engine} engine takes {', '.join(known)}")


def check_kind(name: str, value: Any, hint: Any) -> None:
    """
    Raises:
        InputError: the value of an engine option is of another kind than its type hint says.
    """
    kinds = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if type(value) not in kinds:
        told = " or ".join(_KINDS.get(kind, kind.__name__) for kind in kinds if kind is not type(None))
        raise InputError(f"engine option {name}: {value!r}; it must be {told}")


def checked_context(max_context: int | None, limit: int) -> int:
    """Tokens an answer may have: what was asked for, and no more than the model's own `limit`.

    Raises:
        InputError: fewer than 1 were asked for.
    """
    if max_context is not None and max_context < 1:
        raise InputError(f"max context {max_context}: it must be at least 1")
    return limit if max_context is None else min(max_context, limit)
