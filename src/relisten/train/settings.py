"""Configurations of training runs: flat frozen dataclasses, read from TOML files and written to them."""

from __future__ import annotations

import difflib
import json
import tomllib
import types
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields, replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from relisten.errors import InputError
from relisten.files import make_folder, write_whole
from relisten.train.exporting import check_model_outside

T = TypeVar("T")

_FOLDER: Final = Path(__file__).parent / "configs"
SHIPPED: Final = tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))
"""Names of the configurations that come with the package."""


def read_settings(path: str | Path) -> dict[str, Any]:
    """The content of a TOML file, or of a shipped one, which goes by its name.

    Raises:
        InputError: it cannot be read or is no TOML.
    """
    if str(path) in SHIPPED and not Path(path).exists():
        path = _FOLDER / f"{path}.toml"
    try:
        with Path(path).open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); check the path, or name one of {', '.join(SHIPPED)}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is no TOML ({error}); write lines like: steps = 100") from None


def make_config(kind: type[T], values: Mapping[str, Any], where: str = "configuration") -> T:
    """A configuration of dataclass `kind` from plain values; what is not given keeps its default.

    Raises:
        InputError: with `where` in front, for a name that is no field, a value of another type, a field without a
            default that is missing, or what the dataclass itself refuses.
    """
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            meant = f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"
            raise InputError(f"{where}: {name!r} is no setting{meant}")
    for name, field in known.items():
        if field.default is MISSING and field.default_factory is MISSING and name not in values:
            option = "--" + name.replace("_", "-")
            raise InputError(f"{where}: no {name}: give {option}, or a line {name} = ... in the file of --config")
    given = {name: _typed(hints[name], value, f"{where}: {name}") for name, value in values.items()}
    try:
        return kind(**given)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def dump_settings(config: Any) -> str:
    """The TOML that `read_settings` and `make_config` turn into an equal configuration."""
    lines = []
    for field in fields(config):
        value = getattr(config, field.name)
        if value is not None:  # TOML has no null: a setting that is not there has its default
            lines.append(f"{field.name} = {_toml(value)}\n")
        elif field.default is not None:
            raise InputError(f"{field.name}: None cannot be written to TOML unless it is the default")
    return "".join(lines)


def begin_run(config: Any, out: Path, may_change: Collection[str], begun: bool) -> None:
    """Make the folder of a run and write its settings, or check that they are those it was begun with.

    Args:
        may_change: settings that may differ when a run goes on.
        begun: whether anything was trained there; if not, the settings of a failed attempt are replaced.

    Raises:
        InputError: another run, other files or the model itself are there, or the folder cannot be written.
    """
    written = out / "config.toml"
    check_model_outside(config.model, out)
    if out.is_dir() and any(out.iterdir()) and not written.exists():
        raise InputError(f"{out}: holds other files and no run; give a new folder as --out")
    if begun and written.exists():
        _refuse_others(config, written, may_change)
    elif written.exists() and not _is_dump(type(config), written):
        raise InputError(
            f"{written}: holds no settings of such a run (it is yours, or another trainer's) and would be "
            "replaced; give another --out"
        )
    make_folder(out)
    write_whole(written, dump_settings(config))


def _is_dump(kind: type, path: Path) -> bool:
    """Whether a file is just as a run would write it."""
    try:
        return dump_settings(make_config(kind, read_settings(path), str(path))) == path.read_text(encoding="utf-8")
    except InputError:
        return False


def _refuse_others(config: Any, written: Path, may_change: Collection[str]) -> None:
    """
    Raises:
        InputError: the run that `written` belongs to was begun with other settings than `config`.
    """
    before = make_config(type(config), read_settings(written), str(written))
    unimportant = {name: getattr(config, name) for name in may_change}
    if different := differences(replace(before, **unimportant), config):
        raise InputError(
            f"{written.parent}: holds a run with {different}; give the same settings, or another --out"
        )


def differences(before: Any, now: Any) -> str:
    """What differs between two configurations of one kind: "lr 0.1 instead of 0.2, ..."; empty if nothing does."""
    found = []
    for field in fields(now):
        old, new = getattr(before, field.name), getattr(now, field.name)
        if old != new:
            found.append(f"{field.name} {old} instead of {new}")
    return ", ".join(found)


def _typed(hint: Any, value: Any, where: str) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _typed(inner[0], value, where)
    if origin in (Union, types.UnionType):
        options = [option for option in inner if option is not type(None)]
        return None if value is None else _typed(options[0], value, where)
    if origin is Literal:
        if value not in inner:
            raise InputError(f"{where}: {value!r}; it must be one of {', '.join(map(str, inner))}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{where}: {value!r}; it must be a list")
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
        if len(kinds) != len(value):
            raise InputError(f"{where}: {value!r}; it must have {len(kinds)} values")
        return tuple(_typed(kind, item, where) for kind, item in zip(kinds, value, strict=True))
    if issubclass(hint, Enum):
        try:
            return hint(value)
        except ValueError:
            choices = ", ".join(str(member.value) for member in hint)
            raise InputError(f"{where}: {value!r}; it must be one of {choices}") from None
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise InputError(f"{where}: {value!r}; it must be a {_KINDS.get(hint, hint.__name__)}")
    return value


_KINDS = {int: "whole number", float: "number", str: "text", bool: "true or false"}


def _toml(value: Any) -> str:
    if isinstance(value, Enum):
        return _toml(value.value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
