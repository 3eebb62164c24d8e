"""`Endpoint`: where a model is asked, and within which limits. Keys are named here, never held."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from relisten.errors import InputError

ROLES: Final = ("captioner", "writer", "judge")


class Output(StrEnum):
    """How the endpoint is told to answer in JSON."""

    AUTO = "auto"
    """The strictest of the others that it takes."""
    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    TEXT = "text"
    """Only in the prompt's words."""


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible chat endpoint and one model behind it.

    Raises:
        InputError: for a value out of range, or a URL that carries a secret.
    """

    url: str
    """Up to and without `/chat/completions`, as in `http://localhost:8000/v1`."""
    model: str
    key_env: str = ""
    """Name of the environment variable that holds the key; "" sends none."""
    input_price: float | None = None
    """Dollars for a million prompt tokens; None: not known."""
    output_price: float | None = None
    requests_per_minute: float | None = None
    concurrency: int = 8
    """Requests under way at once."""
    timeout: float = 300.0
    """Seconds for one whole reply; a connection that hangs is given up then."""
    retries: int = 6
    """Tries after the first, for what may pass: 429, 5xx, broken or hung connections, garbled replies."""
    stream: bool = False
    output: Output = Output.AUTO
    temperature: float | None = None
    """None leaves it to the endpoint (some reasoning models refuse any)."""
    max_tokens: int = 8192
    """Longest reply, reasoning included; a budget sets that much aside for each request under way."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request body; a None takes a field out."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"endpoint {_shown(self.url)!r}: give a URL such as http://localhost:8000/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise InputError(
                f"endpoint {_shown(self.url)!r}: leave user, password and query out of the URL; "
                "put the key into an environment variable and name that"
            )
        if not self.model.strip():
            raise InputError(f"endpoint {self.url}: the model's name is empty; say which model to ask")
        for name in ("input_price", "output_price"):
            price = getattr(self, name)
            if price is not None and not 0 <= price < math.inf:
                raise self._wrong(name, "it must be dollars for a million tokens, 0 or more")
        if (self.input_price is None) != (self.output_price is None):
            raise self._wrong("output_price", "give both prices or neither")
        if self.requests_per_minute is not None and not 0 < self.requests_per_minute < math.inf:
            raise self._wrong("requests_per_minute", "it must be above 0")
        if not 0 < self.timeout < math.inf:
            raise self._wrong("timeout", "it must be seconds above 0")
        for name, least in (("concurrency", 1), ("retries", 0), ("max_tokens", 1)):
            if getattr(self, name) < least:
                raise self._wrong(name, f"it must be at least {least}")
        if self.temperature is not None and not 0 <= self.temperature <= 2:
            raise self._wrong("temperature", "it must be from 0 to 2")

    @property
    def priced(self) -> bool:
        return self.input_price is not None

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Dollars; 0 where no prices are known."""
        return (prompt_tokens * (self.input_price or 0) + completion_tokens * (self.output_price or 0)) / 1e6

    def read_key(self) -> str:
        """The key from the environment, "" where none is named.

        Raises:
            InputError: the variable is not set, or what it holds cannot be a key. The value is never shown.
        """
        if not self.key_env:
            return ""
        key = os.environ.get(self.key_env, "").strip()
        if not key:
            raise InputError(f"environment variable {self.key_env} is not set; export the key of {self.url} in it")
        if not key.isascii() or not key.isprintable() or " " in key:
            raise InputError(
                f"environment variable {self.key_env} holds characters that no key has; export it again"
            )
        return key

    def _wrong(self, name: str, rule: str) -> InputError:
        return InputError(f"endpoint {self.url}: {name} is {getattr(self, name)!r}; {rule}")


def read_endpoints(path: str | Path) -> dict[str, Endpoint]:
    """The endpoints of a TOML file, by role: a table for each of `captioner`, `writer`, `judge`, with the fields
    of `Endpoint` as keys. Roles may be left out.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except ValueError as error:
        raise InputError(f"{path}: is not TOML ({error})") from None
    found = {}
    for role, table in tables.items():
        if role not in ROLES or not isinstance(table, dict):
            raise InputError(f"{path}: has {role!r}; write one table for each of {', '.join(ROLES)}")
        try:
            found[role] = make_endpoint(table)
        except InputError as error:
            raise InputError(f"{path}: [{role}]: {error}") from None
    return found


def make_endpoint(values: Mapping[str, Any], base: Endpoint | None = None) -> Endpoint:
    """An endpoint from decoded values; what is missing comes from `base`.

    Raises:
        InputError: for a field that does not exist, a value of another type, or no URL or model.
    """
    known = {field.name: str(field.type) for field in fields(Endpoint)}
    for name, value in values.items():
        if name not in known:
            raise InputError(f"{name!r} is not a field of an endpoint; use {', '.join(known)}")
        if not _fits(value, known[name]):
            raise InputError(f"{name} is {value!r}; it must be of type {known[name]}")
    typed = dict(values)
    if "output" in typed:
        try:
            typed["output"] = Output(typed["output"])
        except ValueError:
            raise InputError(f"output is {typed['output']!r}; use {', '.join(Output)}") from None
    if base is not None:
        return replace(base, **typed)
    missing = {"url", "model"} - set(typed)
    if missing:
        raise InputError(f"an endpoint needs url and model; {' and '.join(sorted(missing))} is missing")
    return Endpoint(**typed)


def _fits(value: object, annotation: str) -> bool:
    kinds: dict[str, tuple[type, ...]] = {
        "str": (str,), "Output": (str,), "bool": (bool,), "int": (int,), "float": (int, float),
        "float | None": (int, float, type(None)), "Mapping[str, Any]": (dict,),
    }  # fmt: skip
    return isinstance(value, kinds[annotation]) and (annotation == "bool" or not isinstance(value, bool))


def _shown(url: str) -> str:
    """A URL fit for a message: without user, password and query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if parts.scheme else parts.path.rpartition("@")[2]
