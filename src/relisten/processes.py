"""The processors there are to use, and processes that end with the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time


def usable_processors() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with_parent() -> None:
    """Have this process end within a second of the one that started it, however that one ends.

    A killed process cannot tell its children; left alone they would work on and write beside those of the next one.
    """
    started = multiprocessing.parent_process()
    parent = os.getppid() if started is None else started.pid

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
