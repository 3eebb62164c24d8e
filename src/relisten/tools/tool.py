"""`Tool`: a named, typed function of a clip; the decorator that makes one, and the registry that holds them.

    @tool("level", "how loud it is", max_duration=600)
    def level(clip: Clip, window: Segment | None = None, *, floor: float = -90.0) -> Level: ...

The function's keyword-only parameters are the tool's arguments, its return annotation the type of its findings.
Every file in `relisten.tools.builtin` is read when tools are first asked for, and after them the modules that other
packages name in the entry point group `relisten.tools`.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any, Final, Generic, ParamSpec, TypeVar

from relisten.errors import InputError, RelistenError
from relisten.tools.finding import Finding

ENTRY_POINTS: Final = "relisten.tools"
P = ParamSpec("P")
F = TypeVar("F", bound=Finding)
Argument = str | int | float | bool
"""What an argument of a tool may be."""


class ToolError(RelistenError):
    """A tool could not do its work on this clip, for a reason its user may mend; the message says which."""


@dataclass(frozen=True)
class Parameter:
    """An argument of a tool: its type and what it is where nobody says."""

    kind: type[Argument]
    default: Argument

    def take(self, value: Argument) -> Argument | None:
        """The value in this type, None where it does not fit. Texts are read as numbers where numbers are asked
        for, as they come from a command line or a model."""
        if self.kind is bool:
            if isinstance(value, str):
                return {"true": True, "false": False}.get(value.lower())
            return value if isinstance(value, bool) else None
        if self.kind is str:
            return value if isinstance(value, str) else None
        if isinstance(value, bool):
            return None
        try:
            number = float(value)
        except ValueError:
            return None
        if self.kind is int:
            return int(number) if number.is_integer() else None
        return number if abs(number) < float("inf") else None


@dataclass(frozen=True)
class Tool(Generic[P, F]):
    """A tool as the registry holds it; calling it calls its function, without limits and without the cache."""

    name: str
    summary: str
    """What it tells, in a few words: listings and routing prompts show this."""
    function: Callable[P, F]
    finding: type[F]
    parameters: Mapping[str, Parameter]
    version: int = 1
    """Raised whenever the same clip gives another finding: cached ones are then made anew."""
    max_duration: float = 600.0
    """Longest window in seconds. It bounds memory and work, also of a run that was given up."""
    timeout: float = 30.0
    """Seconds after which an answer goes on without it."""
    requires: tuple[str, ...] = ()
    """Modules it imports that a plain installation does not have; loading them is not counted as its time."""
    install: str = ""
    """The command that brings them."""
    complete: Callable[[Mapping[str, Argument]], Mapping[str, Argument]] | None = field(default=None, repr=False)
    """Fills in what arguments leave open (from the environment, say), before they enter the cache's key."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> F:
        return self.function(*args, **kwargs)

    @property
    def missing(self) -> tuple[str, ...]:
        """The required modules that are not installed."""
        packages = dict.fromkeys(name.partition(".")[0] for name in self.requires)
        return tuple(name for name in packages if find_spec(name) is None)

    @property
    def need(self) -> str:
        """What is not installed, and the command that mends it; "" where all is there."""
        missing = self.missing
        remedy = self.install or f"pip install {' '.join(missing)}"
        return f"needs {', '.join(missing)}: {remedy}" if missing else ""

    def arguments(self, given: Mapping[str, Argument]) -> dict[str, Argument]:
        """All arguments by name, those not given at their defaults.

        Raises:
            InputError: for an argument that the tool does not have, or a value of another type.
        """
        values = {name: parameter.default for name, parameter in self.parameters.items()}
        for name, value in given.items():
            if name not in self.parameters:
                known = ", ".join(self.parameters) or "none"
                raise InputError(f"{name!r} is not an argument of {self.name}; it has {known}")
            taken = self.parameters[name].take(value)
            if taken is None:
                kind = self.parameters[name].kind.__name__
                raise InputError(f"{self.name}: {name} is {value!r}; it must be of type {kind}")
            values[name] = taken
        return dict(self.complete(values)) if self.complete is not None else values

    @property
    def surroundings(self) -> dict[str, Argument]:
        """What the environment fills into arguments that nobody gives, but for the name of a key's variable. A
        finding depends on it besides clip and version.

        Raises:
            InputError: that cannot be used.
        """
        filled = self.arguments({})
        return {
            name: filled[name]
            for name, parameter in self.parameters.items()
            if name != "key_env" and filled[name] != parameter.default
        }


@dataclass
class Registry:
    """Tools by name, and what went wrong while other people's were read."""

    tools: dict[str, Tool[..., Finding]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, new: Tool[..., Any]) -> None:
        """
        Raises:
            InputError: another function has that name already.
        """
        old = self.tools.get(new.name)
        if old is not None and _origin(old) != _origin(new):
            raise InputError(
                f"tool {new.name!r} is there already ({_origin(old)}); give {_origin(new)} another name"
            )
        self.tools[new.name] = new


_REGISTRY: Final = Registry()


def tool(
    name: str,
    summary: str,
    *,
    version: int = 1,
    max_duration: float = 600.0,
    timeout: float = 30.0,
    requires: tuple[str, ...] = (),
    install: str = "",
    complete: Callable[[Mapping[str, Argument]], Mapping[str, Argument]] | None = None,
) -> Callable[[Callable[P, F]], Tool[P, F]]:
    """Make a function a tool and register it; see `Tool` for what the arguments mean.

    Raises:
        InputError: the name is taken or no plain word, a limit is not above 0, or the function's signature is not
            `(clip, window=None, *, arguments with defaults) -> Finding`.
    """

    def register(function: Callable[P, F]) -> Tool[P, F]:
        if not name.replace("_", "a").isalnum() or not name.islower():
            raise InputError(f"tool {name!r}: its name must be of small letters, digits and _")
        if max_duration <= 0 or timeout <= 0:
            raise InputError(f"tool {name!r}: max_duration and timeout must be above 0")
        finding, parameters = _signature(name, function)
        made: Tool[P, F] = Tool(
            name,
            summary,
            function,
            finding,
            parameters,
            version,
            max_duration,
            timeout,
            requires,
            install,
            complete,
        )
        _REGISTRY.add(made)
        return made

    return register


def all_tools() -> dict[str, Tool[..., Finding]]:
    """Every tool there is, by name, sorted."""
    _read_tools()
    return dict(sorted(_REGISTRY.tools.items()))


def find_tool(name: str) -> Tool[..., Finding]:
    """
    Raises:
        InputError: there is no such tool; the message lists those there are.
    """
    tools = all_tools()
    if name not in tools:
        raise InputError(f"tool {name!r} is unknown; there are {', '.join(tools)}")
    return tools[name]


def require_tools(names: Iterable[str]) -> None:
    """
    Raises:
        InputError: there is no such tool, or what it needs is not installed.
    """
    for name in names:
        if need := find_tool(name).need:
            raise InputError(f"tool {name} {need}")


def tool_problems() -> tuple[str, ...]:
    """What kept tools of other packages from being read, one line each."""
    _read_tools()
    return tuple(_REGISTRY.problems)


@cache
def _read_tools() -> None:
    from relisten.tools import builtin

    for module in pkgutil.iter_modules(builtin.__path__):
        importlib.import_module(f"{builtin.__name__}.{module.name}")
    for point in entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        except Exception as error:  # other people's code: one broken package must not take the others along
            _REGISTRY.problems.append(f"{point.name} ({point.value}): {type(error).__name__}: {error}")


def _signature(name: str, function: Callable[..., Any]) -> tuple[type[Any], dict[str, Parameter]]:
    hints = typing.get_type_hints(function)
    finding = hints.get("return")
    if not (isinstance(finding, type) and issubclass(finding, Finding)):
        raise InputError(f"tool {name!r}: returns {finding}; annotate it with a subclass of Finding")
    given = inspect.signature(function).parameters.values()
    first = [parameter for parameter in given if parameter.kind is not parameter.KEYWORD_ONLY]
    arguments = [parameter for parameter in given if parameter.kind is parameter.KEYWORD_ONLY]
    if [parameter.name for parameter in first] != ["clip", "window"] or first[1].default is not None:
        raise InputError(
            f"tool {name!r}: its parameters must be clip and window=None, and arguments behind a * if it has any"
        )
    parameters = {}
    for parameter in arguments:
        kind = hints.get(parameter.name)
        if kind not in (str, int, float, bool) or not isinstance(parameter.default, typing.get_args(Argument)):
            raise InputError(
                f"tool {name!r}: argument {parameter.name} must be a str, int, float or bool with a default"
            )
        parameters[parameter.name] = Parameter(typing.cast(type[Argument], kind), parameter.default)
    return finding, parameters


def _origin(one: Tool[..., Any]) -> str:
    return f"{one.function.__module__}.{one.function.__qualname__}"
