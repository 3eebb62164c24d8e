"""MMAR: 1,000 questions of deep reasoning over sound, music, speech and their mixtures (arXiv 2505.13032)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from relisten.evaluate.benchmarks.base import BadRow, Keys, Official, as_question, find_file, read_metadata
from relisten.evaluate.scoring import Rule
from relisten.question import Question


class Mmar:
    """See `Benchmark`. Metadata `MMAR-meta.jsonl`, sounds under `audio/`.

    Rows carry `thinking`, `cue` and `rubric`, too: `relisten.evaluate.rubrics` judges by them.
    """

    name = "mmar"
    about = "MMAR, from MMAR-meta.jsonl and its audio folder"
    breakdowns: tuple[str, ...] = ("modality", "category", "sub-category")
    rule = Rule.OFFICIAL
    official: Official | None = Official("answer_prediction", lines=True, thinking_key="thinking_prediction")

    def rows(self, data: Path | None, audio: Path | None = None) -> Iterator[Question | BadRow]:
        path = find_file(data, ("MMAR-meta.jsonl", "MMAR-meta.json"), self.name)
        for number, row in read_metadata(path):
            yield as_question(row, number, Keys(), path, audio)
