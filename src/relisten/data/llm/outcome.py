"""The folder of a run: rows by what became of them, written as they come, whole under their names at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

from relisten.data.examples import example_row
from relisten.data.llm.pipeline import ClipResult
from relisten.files import make_folder, replacing, write_whole
from relisten.jsonl import dump_json, dump_row

FILES: Final = ("sft", "rl", "discarded", "failed", "captions")


class OutcomeFolder:
    """Takes results and writes `sft.jsonl`, `rl.jsonl`, `discarded.jsonl`, `failed.jsonl` and `captions.jsonl`.

    Until the folder is closed the rows stand in hidden files, so that files of an earlier run stay whole.

    Raises:
        InputError: the folder cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.rows: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.clips = 0
        make_folder(self.path)
        with ExitStack() as opened:
            files = {name: opened.enter_context(replacing(self.path / f"{name}.jsonl")) for name in FILES}
            self._open = opened.pop_all()
        self._files: dict[str, IO[str]] = files

    def add(self, result: ClipResult) -> None:
        """Write what became of one clip; a clip that only waits for the next run leaves no row."""
        if result.stopped:
            return
        self.clips += 1
        for name, examples in (("sft", result.sft), ("rl", result.rl)):
            for example in examples:
                self._write(name, example_row(example, self.path))
        for item in result.discarded:
            self.reasons[item.reason] += 1
            self._write("discarded", {name: value for name, value in asdict(item).items() if value})
        if result.error:
            self._write("failed", {"clip": result.clip, "error": result.error})
        if result.captions is not None and result.record is not None:
            record = result.record
            self._write("captions", {"clip": record.id, "hash": record.hash, **asdict(result.captions)})

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """A JSON file of the folder, whole or not at all."""
        write_whole(self.path / name, dump_json(content, indent=2) + "\n")

    def __enter__(self) -> OutcomeFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def _write(self, name: str, row: Mapping[str, Any]) -> None:
        self.rows[name] += 1
        self._files[name].write(dump_row(row))
