"""What every label format has in common: the interface, findings, text files, rows grouped by clip."""

from __future__ import annotations

import csv
import json
import math
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from relisten.data.manifest import LabelledEvent, Music, Turn
from relisten.errors import InputError
from relisten.jsonl import read_rows

T = TypeVar("T")
_CHUNK: Final = 1 << 16


@dataclass(frozen=True)
class LabelProblem:
    """Something wrong in a label file; `bad` where it had to be left out, else it was only noticed."""

    where: str
    """File and line, as in "train.tsv:12"."""
    message: str
    bad: bool = True

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


@dataclass(frozen=True)
class Placed(Generic[T]):
    """A label and where it stands."""

    where: str
    item: T


@dataclass(frozen=True)
class Labelled:
    """What a label file says about one clip; times are not yet checked against the sound."""

    where: str
    clip: str
    """What the label file calls the sound; its id in the manifest."""
    names: tuple[str, ...] = ()
    """File names or stems to look for, the likeliest first; (`clip`,) if empty."""
    events: tuple[Placed[LabelledEvent], ...] | None = None
    turns: tuple[Placed[Turn], ...] | None = None
    music: Music | None = None
    source: str = ""
    label_set: str = ""
    resolution: float | None = None
    split: str = ""
    complete: bool = True
    """False where a row about this clip was bad and left out."""
    metadata: Mapping[str, Any] = field(default_factory=dict)


Reader = Callable[[Sequence[Path], Mapping[str, str]], Iterator[Labelled | LabelProblem]]
"""Reads label files, given the names of labels that are written as codes."""


@dataclass(frozen=True)
class LabelFormat:
    """One format that can be imported."""

    read: Reader
    endings: tuple[str, ...]
    """Of the files that are read in a folder."""
    about: str
    """What the labels look like, for people."""
    resolution: float
    """How exact its times usually are, in seconds."""
    label_set: str = ""

    def files_of(self, labels: Path) -> list[Path]:
        """The label file itself, or the files with one of the endings under a folder, sorted.

        Raises:
            InputError: there is none.
        """
        if labels.is_dir():
            tree = labels.rglob("*")
            found = sorted(path for path in tree if path.suffix.lower() in self.endings and path.is_file())
            if not found:
                raise InputError(
                    f"{labels}: holds no {' or '.join(self.endings)} file; name the folder with the labels"
                )
            return found
        if not labels.exists():
            raise InputError(f"{labels}: no such file; check the path")
        return [labels]


def read_lines(path: Path) -> Iterator[tuple[str, str] | LabelProblem]:
    """Lines that are not blank, each with where it stands; a line that is not UTF-8 is a finding.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    with file:
        for number, raw in enumerate(file, 1):
            where = f"{path}:{number}"
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                yield LabelProblem(where, f"is not UTF-8 text ({error.reason}); save the file as UTF-8")
                continue
            if line.strip():
                yield where, line


def read_text(path: Path) -> str | LabelProblem:
    """A small file as a whole."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        return LabelProblem(str(path), f"cannot be read ({error.strerror}); check its permissions")
    except UnicodeDecodeError as error:
        return LabelProblem(str(path), f"is not UTF-8 text ({error.reason}); save the file as UTF-8")


def read_table(
    path: Path, columns: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[str, dict[str, str]] | LabelProblem]:
    """Rows of a tab-separated table by column, cells stripped; a first line without known names is a row itself.

    Args:
        columns: column -> the names it may have in a header; their order is that of a table without one.
    """
    order: list[str | None] = []
    for line in read_lines(path):
        if isinstance(line, LabelProblem):
            yield line
            continue
        where, text = line
        cells = [cell.strip() for cell in next(csv.reader([text], delimiter="\t", quoting=csv.QUOTE_NONE))]
        if not order:
            known = {name: column for column, names in columns.items() for name in (column, *names)}
            named: list[str | None] = [known.get(cell.lower()) for cell in cells]
            order = named if any(named) else list(columns)
            if any(named):
                missing = [column for column in columns if column not in named]
                if missing:
                    raise InputError(f"{where}: the header {cells} has no {', '.join(missing)}; add the column")
                continue
        if len(cells) > len(order):
            yield LabelProblem(
                where, f"has {len(cells)} cells where {len(order)} are expected; separate them by tabs"
            )
            continue
        row = dict.fromkeys(columns, "")
        row.update({column: cell for column, cell in zip(order, cells, strict=False) if column is not None})
        yield where, row


def read_objects(path: Path) -> Iterator[tuple[str, dict[str, Any]] | LabelProblem]:
    """The objects of a JSON file, one at a time, with their lines; the file is one list, or has one object a line.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            listed = file.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    if listed:
        yield from _list_objects(path)
        return
    for row in read_rows(path):
        if isinstance(row, InputError):
            where, _, message = str(row).partition(": ")
            yield LabelProblem(where, message)
        else:
            yield row


def _list_objects(path: Path) -> Iterator[tuple[str, dict[str, Any]] | LabelProblem]:
    """The objects of one JSON list; only one of them is held at a time. What follows a broken one is lost."""
    decoder = json.JSONDecoder()
    number, buffer = 1, ""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        opened = False
        while True:
            chunk = file.read(_CHUNK)
            buffer += chunk
            while True:
                trimmed = buffer.lstrip(" \t\r\n,")
                number += buffer[: len(buffer) - len(trimmed)].count("\n")
                buffer = trimmed
                if not opened and buffer.startswith("["):
                    opened, buffer = True, buffer[1:]
                    continue
                if buffer.startswith("]"):
                    return
                try:
                    item, end = decoder.raw_decode(buffer)
                except (ValueError, RecursionError):
                    break  # the rest of it is in the next chunk, or it is broken
                if isinstance(item, dict):
                    yield f"{path}:{number}", item
                else:
                    yield LabelProblem(f"{path}:{number}", f"got {type(item).__name__}; the list must hold objects")
                number += buffer[:end].count("\n")
                buffer = buffer[end:]
            if not chunk:
                yield LabelProblem(f"{path}:{number}", "is cut off or not JSON from here on; copy the file again")
                return


@dataclass
class Grouped(Generic[T]):
    """Rows that belong to one clip, gathered from anywhere in a file without holding the file in memory.

    Rows go to a temporary database on disk and come back clip by clip, in the order of each clip's first row.
    Use it as a context manager; it holds one clip's rows at a time.
    """

    _database: sqlite3.Connection = field(init=False)
    _folder: tempfile.TemporaryDirectory[str] = field(init=False)

    def __enter__(self) -> Grouped[T]:
        self._folder = tempfile.TemporaryDirectory(prefix="relisten-")
        self._database = sqlite3.connect(Path(self._folder.name) / "rows.sqlite", isolation_level=None)
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE rows (clip TEXT, number INTEGER PRIMARY KEY, place TEXT, row BLOB)")
        self._database.execute("BEGIN")
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()
        self._folder.cleanup()

    def add(self, clip: str, where: str, row: T) -> None:
        """Keep one row of plain values (what JSON can hold)."""
        self._database.execute(
            "INSERT INTO rows (clip, place, row) VALUES (?, ?, ?)", (clip, where, json.dumps(row))
        )

    def clips(self) -> Iterator[tuple[str, list[Placed[T]]]]:
        """Each clip with its rows."""
        self._database.execute("CREATE INDEX by_clip ON rows (clip, number)")
        rows = self._database.execute(
            "SELECT rows.clip, place, row FROM rows"
            " JOIN (SELECT clip, MIN(number) AS first FROM rows GROUP BY clip) AS firsts ON rows.clip = firsts.clip"
            " ORDER BY first, number"
        )
        current: str | None = None
        held: list[Placed[T]] = []
        for clip, where, row in rows:
            if clip != current and current is not None:
                yield current, held
                held = []
            current = clip
            held.append(Placed(where, json.loads(row)))
        if current is not None:
            yield current, held


def seconds(text: str) -> float | None:
    """A time in seconds written with a point or a decimal comma; None if it is none."""
    try:
        value = float(text.replace(",", ".", 1))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def stem(name: str) -> str:
    """A file's name without folders and without its ending."""
    return Path(name.replace("\\", "/")).stem


def no_times(where: str, values: Iterable[str]) -> LabelProblem:
    """The finding for a row whose times are no numbers."""
    return LabelProblem(where, f"times {', '.join(map(repr, values))} are not seconds; write them as 1.25")
