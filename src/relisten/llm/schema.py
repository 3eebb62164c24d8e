"""JSON out of a model's text, and a check of its form: the small part of JSON schema that our requests need."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from relisten.errors import RelistenError

_STARTS: Final = 200
"""Places at which a text is tried for JSON; a bound on the work that a hostile reply can make."""
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,), "number": (int, float),
    "null": (type(None),),
}  # fmt: skip


class FormError(RelistenError):
    """A reply is not in the form that was asked for; the message is written for the model that may repair it."""


def read_json(text: str) -> Any:
    """The JSON object that a reply consists of or holds: bare, in a code fence, or behind some thinking.

    Where there are several, the last one: reasoning comes before the answer.

    Raises:
        FormError: there is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    decoder = json.JSONDecoder()
    found: Any = None
    at = tries = 0
    while (at := text.find("{", at)) >= 0 and tries < _STARTS:
        tries += 1
        try:
            found, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
    if found is None:
        raise FormError("The reply holds no complete JSON object.")
    return found


def validate(value: Any, schema: Mapping[str, Any], where: str = "the reply") -> None:
    """Check a decoded value. Known are `type` (one or several), `properties`, `required`, `items`,
    `additionalProperties: false`, `minItems`, `maxItems` and `minLength`.

    Raises:
        FormError: naming the place, what stands there, and what must.
    """
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(_is(value, name) for name in types):
        raise FormError(f"In {where}: got {_short(value)}, but it must be of type {' or '.join(types)}.")
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        for name in schema.get("required", ()):
            if name not in value:
                raise FormError(f"In {where}: the key {name!r} is missing.")
        for name, item in value.items():
            if name in properties:
                validate(item, properties[name], f"{where}, {name!r}")
            elif schema.get("additionalProperties") is False:
                raise FormError(f"In {where}: the key {name!r} is not one of {', '.join(properties)}.")
    elif isinstance(value, list):
        least, most = schema.get("minItems", 0), schema.get("maxItems", len(value))
        if not least <= len(value) <= most:
            raise FormError(
                f"In {where}: {len(value)} items, but it must be {_range(least, schema.get('maxItems'))}."
            )
        for number, item in enumerate(value, 1):
            validate(item, schema["items"], f"{where}, item {number}")
    elif isinstance(value, str):
        if len(value.strip()) < schema.get("minLength", 0):
            raise FormError(f"In {where}: the text is empty.")
        if not value.isprintable() and any("\ud800" <= character <= "\udfff" for character in value):
            raise FormError(f"In {where}: the text holds half of a character pair, which no file can keep.")


def _is(value: Any, name: str) -> bool:
    return isinstance(value, _TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def _range(least: int, most: int | None) -> str:
    if most is None:
        return f"at least {least}"
    return f"{least}" if least == most else f"{least} to {most}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
