"""Rows of a JSON-lines file by name, without holding the file in memory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from relisten.errors import InputError
from relisten.jsonl import parse_row


class RowIndex:
    """Finds rows by the values of some keys ("id", "hash"); of rows with the same value the first one counts.

    Holds one number a value; a row is read when it is asked for.

    Raises:
        InputError: the file cannot be read.
    """

    def __init__(self, path: str | Path, keys: Iterable[str]) -> None:
        self.path = Path(path)
        self._places: dict[str, tuple[int, int]] = {}
        keys = tuple(keys)
        try:
            self._file = self.path.open("rb")
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror}); check the path") from None
        offset = 0
        for number, line in enumerate(self._file, 1):
            row = parse_row(line, "") if line.strip() else None
            if isinstance(row, tuple):
                for key in keys:
                    if isinstance(value := row[1].get(key), (str, int)) and value != "":
                        self._places.setdefault(f"{key} {value}", (offset, number))
            offset += len(line)

    def find(self, **values: str) -> tuple[str, dict[str, Any]] | None:
        """The row that has any of these values (tried in this order), and where it stands; None: there is none."""
        for key, value in values.items():
            place = self._places.get(f"{key} {value}")
            if value and place is not None:
                self._file.seek(place[0])
                row = parse_row(self._file.readline(), f"{self.path}:{place[1]}")
                return None if isinstance(row, InputError) else row
        return None

    def __enter__(self) -> RowIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
