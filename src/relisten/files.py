"""Writing files whole or not at all, with errors that say what to do; a folder for one process alone."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from relisten.errors import InputError

_LOCK: Final = ".lock"
_CHUNK: Final = 1 << 16
_NO_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


@contextlib.contextmanager
def telling(path: Path) -> Iterator[None]:
    """Turns an OSError into an InputError that names `path` and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "free some space"
        elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            remedy = "make it writable, or give another place"
        else:
            remedy = "mend that"
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); what was finished before is kept. "
            f"{remedy[0].upper()}{remedy[1:]} and give the same command again"
        ) from error


def make_folder(path: Path) -> None:
    """Make a folder and those above it; one that is there is fine."""
    with telling(path):
        path.mkdir(parents=True, exist_ok=True)


def check_writable(path: Path, option: str) -> None:
    """Before any work: a result that cannot be kept is work lost. A file that is not there yet is made, empty.

    Args:
        option: what names another file on the command line.

    Raises:
        InputError: it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); give another {option}") from None


@contextlib.contextmanager
def replacing(path: Path, *, binary: bool = False) -> Iterator[IO[Any]]:
    """A file to write, UTF-8 text unless `binary`: left without an error it takes the place of `path`, complete;
    else `path` stays as it was.

    For one process at a time, since it removes what a killed one left: another that still writes is told so.

    Raises:
        InputError: it cannot be written; any OSError inside counts as that.
    """
    for left in path.parent.glob(_partial_name(glob.escape(path.name), "[0-9a-f]" * 8)):
        with contextlib.suppress(OSError):
            left.unlink()
    with _partial(path) as partial:
        with _filling(partial, binary) as file:
            yield file
        partial.replace(path)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there complete, or as it was before. One that holds this text is left alone."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if path.read_text(encoding="utf-8") == text:
            return
    with _partial(path) as partial:
        with _filling(partial) as file:
            file.write(text)
        partial.replace(path)


def write_once(path: Path, text: str) -> bool:
    """Write a file complete unless it is there; returns whether this call wrote it. Of several processes that
    try at once one succeeds."""
    with _partial(path) as partial:
        with _filling(partial) as file:
            file.write(text)
        try:
            os.link(partial, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # A file system without hard links: here two processes that begin in the same instant could race.
            if path.exists():
                return False
            partial.replace(path)
        return True


def lock_folder(folder: Path) -> IO[str]:
    """Make a folder this process's own for as long as the returned file is open, which ends with the process.

    Raises:
        InputError: another process has it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _LOCK).open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); give another folder") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise InputError(f"{folder}: another run is at work here; wait for it, or give another folder") from None
    return file


class LineFile:
    """A file that grows by whole lines, written by this process alone; it appears with its first line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def append(self, line: str) -> None:
        """Add a line. A kill before this returns leaves at most a part of it at the end, never anywhere else.

        Raises:
            InputError: it could not be written whole; the file ends where it ended before.
        """
        data = memoryview(line.encode())
        with telling(self.path):
            if self._file is None:
                self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            end = os.lseek(self._file, 0, os.SEEK_END)
            try:
                while data:
                    data = data[os.write(self._file, data) :]
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, end)
                raise

    def sync(self) -> None:
        """Have the disk hold what was appended, so that a power cut loses nothing older than this."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._file)

    def close(self) -> None:
        if self._file is not None:
            self.sync()
            os.close(self._file)
            self._file = None


def cut_torn_line(path: Path) -> None:
    """Drop what stands behind the last newline of a file whose writer is gone. A whole file is only read."""
    with path.open("rb") as file:
        kept = end = file.seek(0, os.SEEK_END)
        while kept > 0:
            start = max(0, kept - _CHUNK)
            file.seek(start)
            newline = file.read(kept - start).rfind(b"\n")
            kept = start + newline + 1 if newline >= 0 else start
            if newline >= 0:
                break
    if kept < end:
        with telling(path):
            os.truncate(path, kept)


@contextlib.contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """A name beside `path`, for nobody else; nothing is left of it."""
    partial = path.with_name(_partial_name(path.name, secrets.token_hex(4)))
    with telling(path):
        try:
            yield partial
        finally:
            partial.unlink(missing_ok=True)


def _partial_name(name: str, token: str) -> str:
    return f".{name}.{token}.part"


@contextlib.contextmanager
def _filling(path: Path, binary: bool = False) -> Iterator[IO[Any]]:
    """A new file that is on the disk when it is left."""
    with path.open("xb") if binary else path.open("x", encoding="utf-8", newline="\n") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
