"""Work spread over processes, with results in order and memory bounded."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

from relisten.processes import end_with_parent

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(function: Callable[[T], R], items: Iterable[T], processes: int) -> Iterator[R]:
    """`function` of every item, in the items' order; no more than a few items a process are under way at once.

    With one process everything happens here. What the function raises is raised here, at its item's place.
    """
    if processes <= 1:
        yield from map(function, items)
        return
    # A forked child would inherit the locks of whatever threads torch or a progress bar runs here.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=spawn, initializer=end_with_parent)
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= 4 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
