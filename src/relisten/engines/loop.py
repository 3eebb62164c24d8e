"""An event loop in a thread of its own, so that synchronous calls work from anywhere, notebooks included."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from relisten.errors import EngineError

T = TypeVar("T")


class BackgroundLoop:
    """Runs coroutines in a thread of its own, which ends with the process if nobody closes it.

    Args:
        owner: whose loop it is, as errors call it.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._loop = asyncio.new_event_loop()
        self._closed = False
        self._closing = threading.Lock()  # nothing may start behind what is cancelled
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"relisten-{owner}", daemon=True)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """
        Raises:
            EngineError: the loop was closed.
        """
        with self._closing:
            if not self._closed:
                return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        raise EngineError(f"the {self._owner} was closed")

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """
        Raises:
            EngineError: the loop was closed, before or meanwhile.
        """
        task = self.start(work)
        try:
            return self.result(task)
        except BaseException:
            task.cancel()
            raise

    def result(self, task: Future[T]) -> T:
        """What came of a task that was started here and that nobody but `close` cancels.

        Raises:
            EngineError: the loop was closed meanwhile.
        """
        try:
            return task.result()
        except CancelledError:
            raise EngineError(f"the {self._owner} was closed") from None

    def close(self) -> None:
        """Cancel what is running and end the thread."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
