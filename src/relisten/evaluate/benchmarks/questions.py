"""A questions file of the user's own: JSONL rows with id, audio (relative to the file), question, choices, answer.

Further keys become breakdowns (`find_breakdowns`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from relisten.errors import InputError
from relisten.evaluate.benchmarks.base import BadRow, Official, find_audio, find_file
from relisten.evaluate.scoring import Rule
from relisten.question import Question, read_questions

_FILE: Final = "questions.jsonl"
_MOST_VALUES: Final = 40
_WHICH_CLIP: Final = ("clip", "source", "hash", "duration")
"""What `relisten data compose` says of a clip: its groups are those of single sounds."""


class Questions:
    """See `Benchmark`. `--data` is the JSONL file, or a folder with a `questions.jsonl`."""

    name = "questions"
    about = "a JSONL file of your own (id, audio, question, choices, answer; further keys become breakdowns)"
    breakdowns: tuple[str, ...] = ()
    rule = Rule.STRICT
    official: Official | None = None

    def rows(self, data: Path | None, audio: Path | None = None) -> Iterator[Question | BadRow]:
        return read_rows(data, audio, self.name)


def read_rows(data: Path | None, audio: Path | None, benchmark: str) -> Iterator[Question | BadRow]:
    """See `Benchmark.rows`; `benchmark` is what errors name.

    Raises:
        InputError: there is no such data.
    """
    if data is not None and (data / "manifest.jsonl").is_file() and not (data / _FILE).is_file():
        raise InputError(
            f"{benchmark}: {data} holds clips and no questions; make them by "
            f"`relisten data compose {data / 'manifest.jsonl'} --out {data / _FILE}`"
        )
    path = find_file(data, (_FILE,), benchmark)
    for number, row in enumerate(read_questions(path), 1):
        if not isinstance(row, Question):
            yield BadRow(f"(row {number})", str(row))
        elif audio is not None and isinstance(row.audio, Path):
            # Paths come joined to the file's folder; one that is absolute stays as it is.
            relative = row.audio.relative_to(path.parent) if row.audio.is_relative_to(path.parent) else row.audio
            yield replace(row, audio=find_audio(str(relative), path, audio))
        else:
            yield row


def find_breakdowns(rows: Iterable[Question | BadRow]) -> tuple[str, ...]:
    """The metadata keys by which it makes sense to break scores down: a text, number or truth value in every row
    that has it, few different ones, and more than which clip it is."""
    values: dict[str, set[str]] = {}
    counts: dict[str, int] = {}
    unfit: set[str] = set()
    for row in rows:
        if isinstance(row, Question):
            for key, value in row.metadata.items():
                if isinstance(value, (str, int)):
                    values.setdefault(key, set()).add(str(value))
                    counts[key] = counts.get(key, 0) + 1
                elif value is not None:
                    unfit.add(key)
    return tuple(
        key
        for key, found in values.items()
        if key not in unfit and key not in _WHICH_CLIP and 2 <= len(found) <= min(_MOST_VALUES, counts[key] // 2)
    )
