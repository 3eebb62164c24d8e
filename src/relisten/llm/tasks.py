"""Many requests side by side, and not more than an endpoint can be kept busy with."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Final, TypeVar

T = TypeVar("T")
R = TypeVar("R")
WINDOW: Final = 4
"""Items under way for each request that may be: a slow one does not hold up those behind it."""


async def in_order(items: Iterable[T], work: Callable[[T], Awaitable[R]], width: int) -> AsyncIterator[R]:
    """`work` of every item, `width` of them side by side, in the order of the items; these are read as needed."""
    running: deque[asyncio.Task[R]] = deque()
    source = iter(items)

    async def call(item: T) -> R:
        return await work(item)

    try:
        while True:
            while len(running) < width:
                try:
                    item = next(source)
                except StopIteration:
                    break
                running.append(asyncio.create_task(call(item)))
            if not running:
                return
            yield await running[0]
            running.popleft()
    finally:
        for task in running:
            task.cancel()
