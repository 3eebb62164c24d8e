"""MMAU: questions about sound, music and speech at three difficulties (arXiv 2410.19168).

The 1,000 of test-mini have public answers. The 9,000 of test have not: what the model answers is written in the
format that the benchmark's own site takes (`predictions.json` in the run folder), and scored here as far as
references are known.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from relisten.evaluate.benchmarks.base import BadRow, Keys, Official, as_question, find_file, read_metadata
from relisten.evaluate.scoring import Rule
from relisten.question import Question


class Mmau:
    """See `Benchmark`. Metadata `mmau-test.json` or `mmau-test-mini.json`; sounds as `audio_id` says."""

    breakdowns: tuple[str, ...] = ("task", "difficulty", "sub-category")
    rule = Rule.OFFICIAL
    official: Official | None = Official("model_output", lines=False)

    def __init__(self, name: str, file: str, about: str) -> None:
        self.name = name
        self.about = about
        self._file = file

    def rows(self, data: Path | None, audio: Path | None = None) -> Iterator[Question | BadRow]:
        path = find_file(data, (self._file,), self.name)
        for number, row in read_metadata(path):
            yield as_question(row, number, Keys(audio="audio_id"), path, audio)


MMAU_MINI = Mmau(
    "mmau_mini", "mmau-test-mini.json", "MMAU test-mini, from mmau-test-mini.json and its audio folder"
)
MMAU = Mmau("mmau", "mmau-test.json", "MMAU test, from mmau-test.json; writes the file to hand in")
