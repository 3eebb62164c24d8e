"""Runs the jobs of a reproduction, as many at once as there are processors; the same call goes on after a kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from relisten.errors import InputError, RelistenError
from relisten.files import lock_folder, write_whole
from relisten.reproduce.jobs import Job, list_jobs
from relisten.reproduce.plan import Plan

_POLL: Final = 0.5
_TAIL: Final = 12  # lines of a log that are told


class JobError(RelistenError, RuntimeError):
    """A job failed; what others did is kept, and the same command goes on."""


@dataclass(frozen=True)
class State:
    """How far a reproduction is."""

    done: int
    total: int
    running: tuple[tuple[str, str], ...]
    """Name of each job that runs, and how far it is, in words."""


def reproduce(
    plan: Plan, folder: Path, workers: int, on_state: Callable[[State], None] = lambda state: None
) -> None:
    """Do all jobs of `plan` in `folder` that are not done.

    Raises:
        InputError: accelerate is not installed, the folder holds another plan or cannot be written, or another
            process is at work in it.
        JobError: a job failed.
    """
    if workers < 1:
        raise InputError(f"workers {workers}: give 1 or more")
    if find_spec("accelerate") is None:  # it would be missed an hour later
        raise InputError('training needs accelerate: pip install "relisten[train]"')
    with lock_folder(folder):
        _keep_plan(plan, folder)
        _Runner(list_jobs(plan), folder, workers, on_state).go()


class _Runner:
    def __init__(self, jobs: list[Job], folder: Path, workers: int, on_state: Callable[[State], None]) -> None:
        self._jobs = jobs
        self._folder = folder
        self._workers = workers
        self._on_state = on_state
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def go(self) -> None:
        by_name = {job.name: job for job in self._jobs}
        try:
            while True:
                for name, process in list(self._running.items()):
                    if process.poll() is not None:
                        del self._running[name]
                        if not by_name[name].done(self._folder):
                            raise JobError(self._told(name, process.returncode))
                # A process may live on a little when its job is done.
                ended = (job for job in self._jobs if job.name not in self._running)
                done = {job.name for job in ended if job.done(self._folder)}
                self._tell(len(done))
                if len(done) == len(self._jobs):
                    return
                self._start([job for job in self._jobs if job.name not in done and set(job.needs) <= done])
                time.sleep(_POLL)
        finally:
            for process in self._running.values():
                process.terminate()
            for process in self._running.values():
                process.wait()

    def _start(self, ready: list[Job]) -> None:
        for job in ready:
            free = self._workers - len(self._running)
            if job.name in self._running:
                continue
            if any(job.wide for job in self._jobs if job.name in self._running) or (job.wide and self._running):
                return
            if free < 1:
                return
            logs = self._folder / "logs"
            logs.mkdir(exist_ok=True)
            command = [sys.executable, "-m", "relisten.reproduce", str(self._folder), job.name]
            with (logs / f"{job.name}.log").open("ab") as log:
                self._running[job.name] = subprocess.Popen(
                    [*command, str(self._workers if job.wide else 1)],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                )  # fmt: skip

    def _tell(self, done: int) -> None:
        running = tuple((job.name, self._how_far(job)) for job in self._jobs if job.name in self._running)
        self._on_state(State(done, len(self._jobs), running))

    def _how_far(self, job: Job) -> str:
        if job.counted is None:
            return ""
        path, total = self._folder / job.counted[0], job.counted[1]
        rows = path.read_bytes().count(b"\n") if path.exists() else 0
        return f"{min(rows, total)} of {total}"

    def _told(self, name: str, status: int) -> str:
        log = self._folder / "logs" / f"{name}.log"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:]
        return f"{name} failed (exit status {status}); the end of {log}:\n" + "\n".join(lines)


def _keep_plan(plan: Plan, folder: Path) -> None:
    path = folder / "plan.json"
    if not path.exists():
        if any(each.name[0] != "." for each in folder.iterdir()):
            raise InputError(f"{folder}: holds other files and no reproduction; give a new folder as --out")
        write_whole(path, json.dumps(plan.to_json(), indent=1) + "\n")
        return
    held = json.loads(path.read_text(encoding="utf-8"))
    now = plan.to_json()
    for name in ("budget", "start", "scenes"):
        if held[name] != now[name]:
            raise InputError(f"{folder}: was begun with another {name}; give the same, or another --out")
    # Further arms and seeds may be added, and some be left out: jobs that are done stay done.
    write_whole(path, json.dumps(now, indent=1) + "\n")
