"""HTML as values: text is escaped where it becomes markup, so that nobody has to remember to."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from typing import Any, Final

_VOID: Final = frozenset({"meta", "link", "input", "br", "hr"})
_JSON_ESCAPES: Final = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child = str | int | float | None | Iterable["Child"]


def tag(name: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Markup:
    """One element. Children that are not `Markup` are escaped; None is nothing; lists are laid out flat.

    Attributes: a trailing underscore is dropped (`class_`), others become hyphens; False and None leave it out.
    """
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        parts.append(f" {key}" if value is True else f' {key}="{escape(str(value))}"')
    parts.append(">")
    if name not in _VOID:
        parts += [_render(child) for child in children]
        parts.append(f"</{name}>")
    return Markup("".join(parts))


def join(children: Iterable[Child]) -> Markup:
    return Markup("".join(_render(child) for child in children))


def script_json(data: Any) -> Markup:
    """JSON that may stand in a script element: nothing in it can end the element or begin a comment, and lone
    surrogates stay readable."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(_JSON_ESCAPES))


def _render(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, (str, int, float)):
        return escape(str(child))
    return "".join(_render(part) for part in child)
