from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from relisten.audio import Clip, write_clip
from relisten.data.labels import FORMATS, ImportOptions, LabelProblem, import_labels
from relisten.data.manifest import ClipRecord

Imported = tuple[list[ClipRecord], list[LabelProblem]]
Run = Callable[..., Imported]


@pytest.fixture
def sounds(tmp_path: Path) -> Callable[..., Path]:
    """Writes noise clips of some seconds under the given names and returns their folder."""

    def write(*names: str, seconds: float = 10.0) -> Path:
        rng = np.random.default_rng(0)
        for name in names:
            path = tmp_path / "audio" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            samples = (0.1 * rng.standard_normal(int(seconds * 16_000))).astype(np.float32)
            write_clip(path, Clip.from_samples(samples))
        return tmp_path / "audio"

    return write


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Imports a label file given as text, or a path, and returns clips and findings."""

    def run(
        format: str, labels: str | Path, audio: Path, *, name: str = "labels.txt", **options: object
    ) -> Imported:
        names = options.pop("names", {})
        if isinstance(labels, str):
            path = tmp_path / name
            path.write_text(labels, encoding="utf-8")
        else:
            path = labels
        found = list(import_labels(FORMATS[format], path, audio, names, ImportOptions(**options)))  # type: ignore[arg-type]
        clips = [item for item in found if isinstance(item, ClipRecord)]
        return clips, [item for item in found if isinstance(item, LabelProblem)]

    return run
