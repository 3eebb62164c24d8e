"""Statistics of a manifest or a file of questions, as numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from relisten.data.examples import Example, parse_example
from relisten.data.manifest import ClipRecord, parse_record
from relisten.data.measures import ClipMeasures, ExampleMeasures
from relisten.errors import InputError
from relisten.jsonl import read_parsed


class FileStatistics:
    """Everything measured about one file; rows are fed in one at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clips = ClipMeasures()
        self.examples = ExampleMeasures()
        self.bad: list[InputError] = []
        """The first bad rows."""
        self.num_bad = 0

    def read(self) -> Iterator[None]:
        """Take in the file; yields after each row, for a progress bar.

        Raises:
            InputError: the file cannot be read, or holds no good row.
        """
        for item in read_parsed(self.path, _parse_line):
            if isinstance(item, InputError):
                self.num_bad += 1
                if len(self.bad) < _SHOWN:
                    self.bad.append(item)
            elif isinstance(item, ClipRecord):
                self.clips.add(item)
            else:
                self.examples.add(item)
            yield
        if not (self.clips.clips or self.examples.questions):
            reason = f"; the first: {self.bad[0]}" if self.bad else ""
            raise InputError(f"{self.path}: holds no good row{reason}")

    def to_json(self) -> dict[str, Any]:
        """Numbers by name; a file of questions has "questions", a manifest "clips"."""
        found = self.examples.to_json() if self.examples.questions else self.clips.to_json()
        return {"file": str(self.path), **found, "bad_rows": self.num_bad}


_SHOWN: Final = 20


def _parse_line(row: dict[str, Any], folder: Path, where: str) -> ClipRecord | Example:
    return (parse_example if "question" in row else parse_record)(row, folder, where)
