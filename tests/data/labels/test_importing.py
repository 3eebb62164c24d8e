"""An import that was stopped goes on without reading sounds again; none writes over what it reads."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cli import data

from relisten.data.labels import FORMATS, ImportOptions, LabelProblem, import_labels
from relisten.data.manifest import ClipRecord, read_manifest, write_manifest
from relisten.errors import InputError

NAMES = tuple(f"{letter}_0.wav" for letter in "abcd")


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.tsv"
    rows = [f"{Path(name).stem}\t1\t2\tDog" for name in NAMES]
    path.write_text("\n".join(["segment_id\tstart_time_seconds\tend_time_seconds\tlabel", *rows]))
    return path


def clips(labels: Path, audio: Path, measures: Path, stop_after: int | None = None) -> list[ClipRecord]:
    items = import_labels(FORMATS["audioset"], labels, audio, {}, ImportOptions(measures=measures))
    found = list(itertools.islice(items, stop_after))
    items.close()  # type: ignore[attr-defined]
    assert not [item for item in found if isinstance(item, LabelProblem)]
    return [item for item in found if isinstance(item, ClipRecord)]


def spoil(path: Path, *, unseen: bool) -> None:
    """Silence in place of the sound; `unseen`: so that size and time of change stay as they were."""
    before = path.stat()
    path.write_bytes(path.read_bytes()[:44] + bytes(before.st_size - 44))
    if unseen:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_was_read_is_not_read_again(labels: Path, sounds: Callable[..., Path], tmp_path: Path) -> None:
    audio, measures = sounds(*NAMES), tmp_path / "out" / "manifest.jsonl.measures"
    whole = clips(labels, audio, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    assert clips(labels, audio, measures, stop_after=2) == whole[:2]
    assert measures.exists()
    spoil(audio / NAMES[0], unseen=True)
    assert clips(labels, audio, measures) == whole
    assert not measures.exists()


def test_names_of_files_need_not_be_utf_8(labels: Path, sounds: Callable[..., Path], tmp_path: Path) -> None:
    audio = sounds(*NAMES, "unlabelled.wav")
    folder = audio / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    for name in (NAMES[0], "unlabelled.wav"):
        (audio / name).rename(folder / name)
    clips(labels, audio, tmp_path / "measures", stop_after=1)
    found = clips(labels, audio, tmp_path / "measures")
    write_manifest(tmp_path / "m.jsonl", found)
    assert list(read_manifest(tmp_path / "m.jsonl")) == found
    assert found[0].audio == folder / NAMES[0]


def test_a_sound_that_changed_is_read_again(labels: Path, sounds: Callable[..., Path], tmp_path: Path) -> None:
    audio, measures = sounds(*NAMES), tmp_path / "measures"
    first, second = clips(labels, audio, measures, stop_after=2)
    spoil(audio / NAMES[0], unseen=False)
    again = clips(labels, audio, measures)
    assert again[0].hash != first.hash
    assert again[1] == second


def test_a_file_of_measures_that_is_none_is_refused(
    labels: Path, sounds: Callable[..., Path], tmp_path: Path
) -> None:
    measures = tmp_path / "measures"
    measures.write_text("not a database, but something else that lies there")
    with pytest.raises(InputError, match="measures: cannot be used"):
        clips(labels, sounds(*NAMES), measures)


def test_a_manifest_in_the_folder_is_written_over_only_where_it_is_not_read(
    labels: Path, sounds: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, rest = tmp_path / "m.jsonl", ("--audio", sounds(*NAMES), "--processes", 1)
    for _ in range(2):
        assert data(capsys, "import", "audioset", tmp_path, "--out", out, *rest)[0] == 0
    before = out.read_bytes()
    code, _, told = data(capsys, "import", "scenes", tmp_path, "--out", out, *rest)
    assert (code, told) == (2, f"relisten: {out}: is the input; give another file\n")
    assert out.read_bytes() == before
    assert data(capsys, "import", "scenes", tmp_path, "--out", tmp_path / "again.jsonl", *rest)[0] == 0
