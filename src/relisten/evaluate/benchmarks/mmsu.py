"""MMSU: 5,000 questions about spoken language in 47 tasks (arXiv 2506.04779).

Its script reads one letter from each response, and so does the rule `letter`; the prediction file gets the letter
of the choice that was given.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from relisten.evaluate.benchmarks.base import BadRow, Keys, Official, as_question, find_file, read_metadata
from relisten.evaluate.scoring import Rule
from relisten.question import Question

_KEYS = Keys(answer="answer_gt", choices=("choice_a", "choice_b", "choice_c", "choice_d"))


class Mmsu:
    """See `Benchmark`. Metadata `question/mmsu.jsonl`, sounds relative to the folder above it."""

    name = "mmsu"
    about = "MMSU, from question/mmsu.jsonl and its audio folder"
    breakdowns: tuple[str, ...] = ("category", "sub-category", "task_name")
    rule = Rule.LETTER
    official: Official | None = Official("response", lines=True, letters=True)

    def rows(self, data: Path | None, audio: Path | None = None) -> Iterator[Question | BadRow]:
        path = find_file(data, ("question/mmsu.jsonl", "mmsu.jsonl"), self.name)
        if audio is None and path.parent.name == "question":
            audio = path.parent.parent
        for number, row in read_metadata(path):
            yield as_question(row, number, _KEYS, path, audio)
