"""STAR-Bench: perception of pitch, loudness, time and space, and reasoning over them.

Read is `meta_info/foundation_perception_nonspatial.json`, or the file that `--data` names. Questions about several
sounds cannot be asked here and come out as failed rows; spatial ones are left out unless their file is named, since
they need both channels and models here hear one. The benchmark's own figure is the mean over sub-categories: the
macro average of that breakdown.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from relisten.evaluate.benchmarks.base import BadRow, Keys, Official, as_question, find_file, read_metadata
from relisten.evaluate.scoring import Rule
from relisten.question import Question

_KEYS = Keys(audio="audio_paths", choices="options")


class StarBench:
    """See `Benchmark`. Sounds are relative to the folder that holds `meta_info`."""

    name = "star_bench"
    about = "STAR-Bench, from its meta_info folder; perception that needs one channel"
    breakdowns: tuple[str, ...] = ("category", "sub-category")
    rule = Rule.LETTER
    official: Official | None = None

    def rows(self, data: Path | None, audio: Path | None = None) -> Iterator[Question | BadRow]:
        path = find_file(data, ("meta_info/foundation_perception_nonspatial.json",), self.name)
        if audio is None and path.parent.name == "meta_info":
            audio = path.parent.parent
        for number, row in read_metadata(path):
            yield as_question(row, number, _KEYS, path, audio)
