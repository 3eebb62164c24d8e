"""Files that are there whole, or as they were; folders that one process has."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from relisten import files
from relisten.errors import InputError
from relisten.files import LineFile, cut_torn_line, lock_folder, replacing, write_once, write_whole


@pytest.mark.parametrize(
    ("content", "kept"),
    [(b"", b""), (b"torn", b""), (b"a\n", b"a\n"), (b"a\nb", b"a\n"), (b"a\n" + b"x" * 200_000, b"a\n")],
)
def test_cutting_a_torn_line(tmp_path: Path, content: bytes, kept: bytes) -> None:
    path = tmp_path / "lines"
    path.write_bytes(content)
    cut_torn_line(path)
    assert path.read_bytes() == kept


def test_files_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    assert write_once(path, "one")
    assert not write_once(path, "two")
    write_whole(path, "three")
    assert path.read_text() == "three"

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(InputError, match="No space"):
        write_whole(path, "four")
    monkeypatch.undo()
    assert path.read_text() == "three"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(files.os, "link", refuse)
    assert write_once(tmp_path / "file", "one")
    assert not write_once(tmp_path / "file", "two")
    assert (tmp_path / "file").read_text() == "one"


def test_line_files_appear_with_their_first_line(tmp_path: Path) -> None:
    lines = LineFile(tmp_path / "lines")
    lines.sync()
    lines.close()
    assert not lines.path.exists()
    lines.append("a\n")
    lines.close()
    assert lines.path.read_text() == "a\n"


def test_a_stream_replaces_a_file_when_it_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    with replacing(path) as file:
        file.write("after\n")
        assert path.read_text() == "before"
    assert path.read_text() == "after\n"
    with contextlib.suppress(ValueError), replacing(path) as file:
        file.write("half")
        raise ValueError("on the way")
    assert path.read_text() == "after\n"
    with replacing(path, binary=True) as file:
        file.write(b"\0")
    assert path.read_bytes() == b"\0"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_writer_left_goes_with_the_next(tmp_path: Path) -> None:
    path = tmp_path / "[file]"
    code = (
        "import os, pathlib, sys; from relisten.files import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as file: file.write('half'); file.flush(); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 9
    assert not path.exists()
    (left,) = tmp_path.iterdir()
    with replacing(path) as file:
        file.write("whole")
    assert path.read_text() == "whole"
    assert not left.exists()
    slow = replacing(path)
    slow.__enter__().write("begun first")
    with replacing(path) as file:
        file.write("begun last")
    with pytest.raises(InputError, match="cannot be written"):
        slow.__exit__(None, None, None)
    assert path.read_text() == "begun last"


@pytest.mark.parametrize("folder", ["missing", "file/below"])
def test_a_stream_that_cannot_begin_is_told(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"x: cannot be written \("), replacing(tmp_path / folder / "x"):
        pytest.fail("it began")


def test_a_folder_is_one_process_s_own(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with lock_folder(folder), pytest.raises(InputError, match="another run is at work here"):
        lock_folder(folder)
    lock_folder(folder).close()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        lock_folder(tmp_path / "file")
