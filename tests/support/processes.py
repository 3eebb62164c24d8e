"""What becomes of the processes that a killed program had started."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path


def children_after_a_kill(program: str) -> tuple[list[int], list[int]]:
    """Run Python that prints the ids of its children and then goes on; kill it without a chance to tidy up.

    Returns:
        The children that ran before, and those that still run half a minute later.
    """
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        children = [int(pid) for pid in parent.stdout.readline().split()]
        before = [pid for pid in children if running(pid)]
        parent.kill()
    until = time.monotonic() + 30
    while any(map(running, before)) and time.monotonic() < until:
        time.sleep(0.1)
    return before, [pid for pid in before if running(pid)]


def running(pid: int) -> bool:
    """Is there such a process, and has it not ended? Where nobody waits for an orphan, it stays as a zombie."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
