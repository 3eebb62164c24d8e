"""Sharing a run folder: who works in it, and who has which row, without a server.

A worker is one process. It holds a lock on `workers/<name>.lock` as long as it lives and touches that file every
few seconds. A claim is a symbolic link `claims/<row>.<generation>` to the name of its worker: made in one step with
what it says, by one process only, on local and network file systems alike. The claim of a worker that died passes
on by making the next generation; nothing is ever removed while a run goes on.

A worker is dead when its file is gone (it left), its lock is free (seen at once on the same machine), or its file
has not been touched for `LEASE` seconds of the observer's own clock (any machine; clocks need not agree). Should
one that was only asleep go on, a row may be answered twice; both answers are the same, and one counts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from relisten.files import make_folder, telling

BEAT: Final = 5.0
LEASE: Final = 180.0
"""Well above the minute for which network file systems may show an old time of change."""


def machine() -> str:
    """A name that two processes share if one kernel runs both, so that they see each other's locks."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:8]
    except OSError:
        boot = platform.system()
    return f"{socket.gethostname()}-{boot}"


class Worker:
    """This process at work in a run folder. A context manager; `on_beat` is called at every heartbeat."""

    def __init__(self, run: Path) -> None:
        self.on_beat: Callable[[], None] | None = None
        self.machine = machine()
        self.name = f"{self.machine}-{os.getpid()}-{secrets.token_hex(3)}"
        self._lock = run / "workers" / f"{self.name}.lock"
        self._file: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="relisten-heartbeat", daemon=True)

    def __enter__(self) -> Worker:
        make_folder(self._lock.parent)
        # Locked before it has the name under which others look whether it is.
        unseen = self._lock.with_suffix(".new")
        with telling(self._lock):
            self._file = os.open(unseen, os.O_RDWR | os.O_CREAT, 0o666)
            with contextlib.suppress(OSError):  # a file system without locks: heartbeats alone decide
                fcntl.flock(self._file, fcntl.LOCK_EX)
            unseen.rename(self._lock)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._lock.unlink()
        if self._file is not None:
            os.close(self._file)

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self._lock)
            if self.on_beat is not None:
                self.on_beat()


class Liveness:
    """Tells which of the other workers of a run folder live."""

    def __init__(self, run: Path, lease: float = LEASE) -> None:
        self._folder = run / "workers"
        self._lease = lease
        self._machine = machine()
        self._dead: set[str] = set()
        self._seen: dict[str, tuple[int, float]] = {}

    def others(self, name: str) -> bool:
        """Whether any worker but `name` may be at work."""
        found = [path.stem for path in self._folder.glob("*.lock")]
        return any(self.alive(other) for other in found if other != name)

    def sweep(self) -> None:
        """Remove what is left of workers that were killed; a worker without its file is a dead one, too."""
        for path in list(self._folder.glob("*.lock")):
            if not self.alive(path.stem):
                with contextlib.suppress(OSError):
                    path.unlink()

    def alive(self, name: str) -> bool:
        """Whether the worker `name` may still be at work."""
        if name in self._dead:
            return False
        dead = self._stale(name) or (name.startswith(f"{self._machine}-") and self._unlocked(name))
        if dead:
            self._dead.add(name)  # a name is used once, so that this stays true
        return not dead

    def _stale(self, name: str) -> bool:
        try:
            touched = (self._folder / f"{name}.lock").stat().st_mtime_ns
        except FileNotFoundError:
            return True
        except OSError:
            touched = 0
        now = time.monotonic()
        before = self._seen.get(name)
        if before is None or before[0] != touched:
            self._seen[name] = (touched, now)
            return False
        return now - before[1] > self._lease

    def _unlocked(self, name: str) -> bool:
        try:
            file = os.open(self._folder / f"{name}.lock", os.O_RDONLY)
        except OSError:
            return False
        try:
            # Shared, so that two who look at once do not take each other for the owner.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(file)
        return True


class Claims:
    """The claims of a run folder, as one worker makes and meets them."""

    def __init__(self, run: Path, worker: str, liveness: Liveness) -> None:
        self._folder = run / "claims"
        self._worker = worker
        self._liveness = liveness
        self._latest: dict[int, int] = {}
        make_folder(self._folder)
        for path in self._folder.iterdir():
            number, _, generation = path.name.partition(".")
            if number.isdigit() and generation.isdigit():
                self._latest[int(number)] = max(int(generation), self._latest.get(int(number), 0))

    def take(self, number: int) -> bool:
        """Claim a row. False where another worker has it that may be alive."""
        while True:
            latest = self._latest.get(number, -1)
            if latest >= 0 and self._liveness.alive(self._owner(number, latest)):
                return False
            with telling(self._folder):
                try:
                    self._path(number, latest + 1).symlink_to(self._worker)
                except FileExistsError:
                    self._latest[number] = latest + 1
                    continue
                except FileNotFoundError:
                    return False  # the folder was removed: another worker has completed the run
            self._latest[number] = latest + 1
            return True

    def inherited(self, number: int) -> bool:
        """Whether a row that this worker claimed was another's before."""
        return self._latest.get(number, 0) > 0

    def clear(self) -> None:
        """Remove all claims of a run that is complete."""
        for path in list(self._folder.iterdir()):
            with contextlib.suppress(OSError):
                path.unlink()
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _owner(self, number: int, generation: int) -> str:
        try:
            return str(self._path(number, generation).readlink())
        except OSError:
            return ""  # removed: another worker has completed the run

    def _path(self, number: int, generation: int) -> Path:
        return self._folder / f"{number:06}.{generation}"
