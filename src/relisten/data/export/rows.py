"""Our own JSON lines (see `relisten.data.examples`), one file a split: `train.jsonl`, `validation.jsonl`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from relisten.data.examples import Example, example_row
from relisten.data.export.base import ExportFormat, ExportOptions, Sounds, SplitWriter
from relisten.jsonl import dump_row

ROW_FILES: Final = "{split}.jsonl"


class RowWriter:
    """One JSONL file; `row` makes an example into an object."""

    def __init__(self, folder: Path, split: str, row: Callable[[Example], Mapping[str, Any]]) -> None:
        self._path = folder / ROW_FILES.format(split=split)
        self._part = self._path.with_name(f".{self._path.name}.part")
        self._row = row
        self._file = self._part.open("w", encoding="utf-8", newline="\n")

    def add(self, example: Example) -> None:
        self._file.write(dump_row(self._row(example)))

    def finish(self) -> None:
        self._file.close()

    def close(self) -> None:
        self._part.replace(self._path)

    def discard(self) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)


def _open(folder: Path, split: str, options: ExportOptions) -> SplitWriter:
    sounds = Sounds(folder, options)

    def row(example: Example) -> Mapping[str, Any]:
        path = Path(sounds.path_of(example))
        return example_row(replace(example, question=replace(example.question, audio=path)), folder.resolve())

    return RowWriter(folder, split, row)


JSONL: Final = ExportFormat("jsonl", "our own rows; paths relative to the folder", _open, ROW_FILES)
