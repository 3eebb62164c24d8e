"""MMAU-Pro: 5,305 questions, some long, some about several sounds, some open.

Asked are the questions about one sound. Scored are those with choices; open ones and those that test whether
instructions are followed are answered and left unscored, since they need a judge. The benchmark's own script takes
for every answer the choice that lies nearest to it in an embedding, so that nothing is ever unparsed; that number
is not computed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from relisten.errors import InputError
from relisten.evaluate.benchmarks.base import BadRow, Keys, Official, as_question, find_file, read_metadata
from relisten.evaluate.scoring import Rule
from relisten.question import Question


class MmauPro:
    """See `Benchmark`. Metadata `test.parquet` (needs pyarrow), or the same rows as `test.jsonl`."""

    name = "mmau_pro"
    about = "MMAU-Pro, from test.parquet or test.jsonl and its data folder; questions about one sound"
    breakdowns: tuple[str, ...] = ("category", "length_type")
    rule = Rule.LETTER
    official: Official | None = Official("model_output", lines=True)

    def rows(self, data: Path | None, audio: Path | None = None) -> Iterator[Question | BadRow]:
        path = find_file(data, ("test.jsonl", "test.json", "test.parquet"), self.name)
        for number, row in _parquet(path) if path.suffix == ".parquet" else read_metadata(path):
            question = as_question(row, number, Keys(), path, audio)
            if isinstance(question, Question) and len(question.choices) < 2:
                question = replace(question, choices=(), answer=None)
            yield question


def _parquet(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise InputError(
            f"{path}: reading parquet needs pyarrow; `pip install pyarrow`, or save the rows as test.jsonl"
        ) from None
    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, arrow.ArrowInvalid) as error:
        raise InputError(f"{path}: cannot be read as parquet ({error}); copy it again") from None
    yield from enumerate(rows, 1)
