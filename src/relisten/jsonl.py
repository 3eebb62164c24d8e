"""JSON-lines files: one object a line, streamed in and out, bad lines told apart from good ones."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from relisten.errors import InputError
from relisten.files import make_folder, replacing

T = TypeVar("T")


def read_rows(path: str | Path) -> Iterator[tuple[str, dict[str, Any]] | InputError]:
    """The rows of a file, in order, each with where it stands ("clips.jsonl:12"); blank lines are passed over.

    A line that is not an object comes out as the `InputError` that says why, so that it never stops the others.

    Raises:
        InputError: the file itself cannot be read; at once, before any row is asked for.
    """
    rows = _rows(Path(path))
    next(rows)
    return rows


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]] | InputError]:
    """What comes first is no row, but says that the file is open: from there on it is closed with the iterator."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    with file:
        yield "", {}
        for number, line in enumerate(file, 1):
            if line.strip():
                yield parse_row(line, f"{path}:{number}")


def read_parsed(path: str | Path, parse: Callable[[dict[str, Any], Path, str], T]) -> Iterator[T | InputError]:
    """What `parse(row, folder of the file, where)` makes of every row, in order.

    A bad row comes out as the `InputError` that says file, line, value and remedy; the others are not affected.

    Raises:
        InputError: the file itself cannot be read; at once.
    """
    folder = Path(path).parent
    return (_parsed(row, folder, parse) for row in read_rows(path))


def _parsed(
    row: tuple[str, dict[str, Any]] | InputError, folder: Path, parse: Callable[[dict[str, Any], Path, str], T]
) -> T | InputError:
    if isinstance(row, InputError):
        return row
    where, content = row
    try:
        return parse(content, folder, where)
    except InputError as error:
        return error


def parse_row(line: bytes, where: str) -> tuple[str, dict[str, Any]] | InputError:
    """One line as an object, or the error that names `where`."""
    try:
        row = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except UnicodeDecodeError as error:
        return InputError(f"{where}: is not UTF-8 text ({error.reason}); save the file as UTF-8")
    except (ValueError, RecursionError) as error:
        return InputError(f"{where}: is not JSON ({error}); write one object a line")
    if not isinstance(row, dict):
        return InputError(f"{where}: got {type(row).__name__}; write one object a line")
    return where, row


def check_limit(limit: int | None) -> None:
    """For whoever takes only the first `limit` rows.

    Raises:
        InputError: it leaves nothing.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit {limit}: it must be at least 1")


def is_finite(row: Mapping[str, Any]) -> bool:
    """Whether every number in a row is finite, as `dump_row` wants them."""
    try:
        json.dumps(row, allow_nan=False)
    except ValueError:
        return False
    return True


def dump_json(value: object, *, indent: int | None = None, allow_nan: bool = True) -> str:
    """A value as JSON text; what is not ASCII stays readable. Half characters that UTF-8 cannot hold are written as
    escapes.

    Raises:
        ValueError: for a number that is not finite, unless `allow_nan`.
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=allow_nan)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value, indent=indent, allow_nan=allow_nan)
    return text


def dump_row(row: Mapping[str, Any], *, allow_nan: bool = False) -> str:
    """One row as text, with its line end, by `dump_json`.

    Raises:
        ValueError: for a number that is not finite, unless `allow_nan`.
    """
    return dump_json(row, allow_nan=allow_nan) + "\n"


def write_rows(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows as they come and return how many; the file appears under its name once it is whole.

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(path)
    make_folder(path.parent)
    count = 0
    with replacing(path) as file:
        for row in rows:
            file.write(dump_row(row))
            count += 1
    return count


def relative_to(path: Path, folder: Path) -> str:
    """`path` as it reads from `folder`, with forward slashes, so that a set can be moved as a whole."""
    return Path(os.path.relpath(path, folder)).as_posix()
