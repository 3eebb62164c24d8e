"""Options of engines: how people write them, and checks of their values."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from relisten.errors import InputError


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


def checked_context(max_context: int | None, limit: int) -> int:
    """Tokens an answer may have: what was asked for, and no more than the model's own `limit`.

    Raises:
        InputError: fewer than 1 were asked for.
    """
    if max_context is not None and max_context < 1:
        raise InputError(f"max context {max_context}: it must be at least 1")
    return limit if max_context is None else min(max_context, limit)
