"""A questions file of the user's own: JSONL rows with id, audio (relative to the file), question, choices, answer.

Every further key whose values are few becomes a breakdown.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from relisten.evaluate.benchmarks.base import BadRow, Official, find_file
from relisten.question import Question, read_questions


class Questions:
    """See `Benchmark`. `--data` is the JSONL file, or a folder with a `questions.jsonl`."""

    name = "questions"
    about = "a JSONL file of your own (id, audio, question, choices, answer; further keys become breakdowns)"
    needs_data = True
    breakdowns: tuple[str, ...] = ()
    official: Official | None = None

    def rows(self, data: Path | None, limit: int | None = None) -> Iterator[Question | BadRow]:
        path = find_file(data, ("questions.jsonl",), self.name)
        for number, row in enumerate(islice(read_questions(path), limit), 1):
            yield row if isinstance(row, Question) else BadRow(f"(row {number})", str(row))
