"""Options of an engine as people write them."""

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
