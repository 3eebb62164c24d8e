"""Runs that are killed: nothing is lost, nothing is done twice, and the answers are those of an undisturbed run."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from support.questions import write_questions

from relisten.evaluate.results import TRACES, read_run
from relisten.trace import Timings

SCRIPT = Path(__file__).parents[1] / "support" / "scripted_run.py"
KILLS = 20


def start(data: Path, out: Path, seconds: float, *further: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(SCRIPT), str(data), str(out), str(seconds), *further]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes], timeout: float = 120) -> None:
    _, errors = process.communicate(timeout=timeout)
    assert process.returncode == 0, errors.decode()


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def contents(out: Path) -> list[dict[str, object]]:
    """Everything about every answer but how long it took."""
    run = read_run(out)
    assert run.problems == ()
    found = []
    for row in run.rows:
        assert row.trace is not None, row.id
        trace = row.trace.to_json() | {"timings": Timings()}
        found.append({"id": row.id, "trace": trace, "outcomes": row.outcomes})
    return found


def lines(out: Path) -> Counter[str]:
    """How often each row stands in the traces files; every line must be whole."""
    texts = [line for path in out.glob(TRACES) for line in path.read_text(encoding="utf-8").splitlines()]
    return Counter(json.loads(line)["id"] for line in texts)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_questions(tmp_path / "data", 600)


@pytest.fixture
def undisturbed(data: Path, tmp_path: Path) -> list[dict[str, object]]:
    finish(start(data, tmp_path / "undisturbed", 0))
    return contents(tmp_path / "undisturbed")


def test_killed_at_twenty_random_moments(data: Path, undisturbed: list[dict[str, object]], tmp_path: Path) -> None:
    out, chance = tmp_path / "killed", random.Random(5)
    answered = 0
    for _ in range(KILLS):
        process = start(data, out, 0.02)
        # From before the folder is there to well into the run: start-up takes some tenths of a second.
        time.sleep(chance.uniform(0.2, 1.5))
        kill(process)
        before, answered = answered, _finished(out)
        assert answered >= before
    assert 0 < answered < 600, "the kills must fall into the run; change the times"
    finish(start(data, out, 0))
    assert contents(out) == undisturbed
    assert set(lines(out).values()) == {1}


def test_killed_in_the_middle_of_a_line(data: Path, undisturbed: list[dict[str, object]], tmp_path: Path) -> None:
    out = tmp_path / "torn"
    for number in (1, 2, 17):
        process = start(data, out, 0, str(number))
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    assert any(not path.read_bytes().endswith(b"\n") for path in out.glob(TRACES))
    finish(start(data, out, 0))
    assert contents(out) == undisturbed
    assert set(lines(out).values()) == {1}  # the torn lines were cut: every line left is whole


def test_several_processes_share_a_run_and_some_are_killed(
    data: Path, undisturbed: list[dict[str, object]], tmp_path: Path
) -> None:
    out, chance = tmp_path / "shared", random.Random(6)
    workers = [start(data, out, 0.01) for _ in range(3)]
    for _ in range(4):
        time.sleep(chance.uniform(0.3, 0.9))
        victim = chance.randrange(len(workers))
        if workers[victim].poll() is None:
            kill(workers[victim])
            workers[victim] = start(data, out, 0.01)
    for worker in workers:
        finish(worker)
    assert contents(out) == undisturbed
    assert set(lines(out).values()) == {1}
    assert len(list(out.glob(TRACES))) > 1
    assert not list(out.glob("workers/*.lock"))


def _finished(out: Path) -> int:
    return read_run(out).finished if (out / "config.json").exists() else 0
