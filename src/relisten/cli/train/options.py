"""A configuration's fields as options of a command, over those of a TOML file."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

import typer

from relisten.train.settings import SHIPPED, make_config, read_settings

T = TypeVar("T")

_NOTHING: Final[Mapping[str, str]] = {}


def configured(
    kind: type[T],
    *,
    shipped: str | None = None,
    needed: Collection[str] = (),
    repeated: Mapping[str, str] = _NOTHING,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Turns `command(config, ...)` into a command with one option for every field of dataclass `kind`, which come
    from the command line, else from the file of `--config`, else from their defaults.

    A field's help is the text in its `Annotated[..., "text"]`.

    Args:
        shipped: what the names of the shipped files begin with that are for this command; None: there are none.
        needed: fields whose default does not do.
        repeated: options that may be given several times, by the field of which they are the parts, with commas
            between.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(config: Path | None, **given: Any) -> None:
            options = {name: given.pop(name) for name in names}
            values = {name: value for name, value in options.items() if value not in (None, [])}
            values |= {name: ",".join(values[name]) for name in repeated if name in values}
            where = "configuration"
            if config is not None:
                values = read_settings(config) | values
                where = str(config)
            command(make_config(kind, values, where), **given)

        hints = get_type_hints(kind, include_extras=True)
        names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
        file = Annotated[Path | None, typer.Option(help=_config_help(shipped))]
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        first = [_parameter(p.name, p.annotation, p.default) for p in own if p.default is inspect.Parameter.empty]
        rest = [
            _parameter(p.name, p.annotation, p.default) for p in own if p.default is not inspect.Parameter.empty
        ]
        settings = [
            _option(field, hints[field.name], field.name in needed, repeated.get(field.name))
            for field in fields(kind)  # type: ignore[arg-type]
        ]
        parameters = [*first, _parameter("config", file, None), *settings, *rest]
        run.__doc__ = command.__doc__
        run.__name__ = command.__name__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _config_help(shipped: str | None) -> str:
    names = [name for name in SHIPPED if shipped is not None and name.startswith(shipped)]
    return (
        f"TOML file with settings{', or a shipped one: ' if names else ''}{', '.join(names)}. Options override it."
    )


def _option(field: Any, hint: Any, needed: bool, repeated: str | None) -> inspect.Parameter:
    text = ""
    if get_origin(hint) is Annotated:
        hint, text = get_args(hint)[:2]
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(option for option in get_args(hint) if option is not type(None))
    if get_origin(hint) is tuple and get_args(hint)[-1] is Ellipsis:
        hint = list[get_args(hint)[0]]  # type: ignore[misc]
        text += " Give it once for each."
    if repeated is not None:
        option = typer.Option(repeated, f"--{field.name.replace('_', '-')}", metavar="NAME=VALUE", help=text)
        return _parameter(field.name, Annotated[list[str] | None, option], None)
    if field.default is MISSING or needed:
        text += " Needed here or in the file."
    elif field.default not in (None, "", ()):
        default = field.default if isinstance(field.default, tuple) else (field.default,)
        text += f" Default: {' '.join(map(str, default))}."
    option = typer.Option(help=text.strip(), show_default=False)
    return _parameter(field.name, Annotated[hint | None, option], None)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
