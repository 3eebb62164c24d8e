"""`Finding`: the small typed result of a tool; how it reads in a prompt, and its JSON."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, Final, Self

from relisten.errors import InputError
from relisten.tools.sections import note_name

MOST_LISTED: Final = 12
"""Items of a list that are written out; a reasoner's prompt stays short."""


@dataclass(frozen=True)
class Moment:
    """What a finding tells of one moment: when, what as a number (in the tool's unit), and in words."""

    at: float
    value: float
    words: str

    @classmethod
    def of_level(cls, at: float, decibels: float) -> Self:
        return cls(at, decibels, f"{decibels:.0f} dB")

    @classmethod
    def of_pitch(cls, at: float, hertz: float) -> Self:
        return cls(at, hertz, note_name(hertz))

    @classmethod
    def of_length(cls, at: float, seconds: float) -> Self:
        return cls(at, seconds, f"for {seconds:.1f} s")

    def text(self) -> str:
        """ "0.4 s -29 dB"."""
        return f"{self.at:.1f} s {self.words}"


class Finding:
    """Base of what tools return. A subclass is a frozen dataclass whose fields are numbers, texts, booleans, None,
    other dataclasses, or tuples of these; times are seconds from the start of the clip, whatever the window."""

    def text(self) -> str:
        """One or two short lines, as a model reads them in its prompt."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it reads; give it a method text()")

    def moments(self) -> tuple[Moment, ...]:
        """What it tells of single moments, in order, if anything: responses in training data quote these."""
        return ()

    def to_json(self) -> dict[str, Any]:
        """The fields, as a JSON object."""
        return asdict(typing.cast(Any, self))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The finding that `to_json` wrote.

        Raises:
            InputError: for anything else, naming what does not fit.
        """
        return typing.cast(Self, _decode(cls, data, cls.__name__))


def listed(items: Sequence[object], most: int = MOST_LISTED) -> str:
    """The items with commas between, and how many are left out."""
    shown = ", ".join(str(item) for item in items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"


def told(moments: Sequence[Moment], most: int = MOST_LISTED) -> str:
    """Moments as "0.4 s -29 dB, 1.2 s -31 dB"."""
    return listed([moment.text() for moment in moments], most)


def seconds(times: Sequence[float], most: int = MOST_LISTED) -> str:
    """Times as "0.40, 1.25 s"."""
    return f"{listed([f'{time:.2f}' for time in times], most)} s"


def counted(number: int, noun: str) -> str:
    """ "1 beat", "3 beats"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _decode(kind: Any, value: Any, where: str) -> Any:
    """A decoded JSON value as the annotated type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _decode(inner, value, where)
    if origin is tuple and isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_decode(arguments[0], item, f"{where}[{at}]") for at, item in enumerate(value))
    if is_dataclass(kind) and isinstance(value, Mapping):
        hints = typing.get_type_hints(kind)
        names = [field.name for field in fields(kind)]
        if set(names) != set(value):
            raise InputError(f"{where}: has {sorted(value)}; it needs {sorted(names)}")
        return typing.cast(Any, kind)(
            **{name: _decode(hints[name], value[name], f"{where}.{name}") for name in names}
        )
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    name = getattr(kind, "__name__", str(kind))
    raise InputError(f"{where}: is {value!r}; it must be of type {name}")
