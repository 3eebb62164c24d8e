"""An event loop in a thread of its own, so that synchronous calls work from anywhere, notebooks included."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from relisten.errors import EngineError

T = TypeVar("T")


class BackgroundLoop:
    """Runs coroutines in a thread of its own. The thread ends on `close`, when this object is collected, or when
    the process exits.

    Args:
        owner: whose loop it is, as errors call it.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._loop = asyncio.new_event_loop()
        self._closing = threading.Lock()  # nothing may start once all that runs was cancelled
        # The thread refers to the loop only, so that this object can be collected.
        self._thread = threading.Thread(target=_serve, args=(self._loop,), name=f"relisten-{owner}", daemon=True)
        self._thread.start()
        self._finalizer = weakref.finalize(self, _end_soon, self._loop)
        self._finalizer.atexit = False  # a daemon thread ends with the process

    @property
    def inside(self) -> bool:
        """Whether the caller runs in the loop's own thread, where waiting for the loop would stop it for ever."""
        return threading.current_thread() is self._thread

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine, from any thread.

        Raises:
            EngineError: the loop was closed.
        """
        with self._closing:
            if self._finalizer.alive:
                return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        raise EngineError(f"the {self._owner} was closed")

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine.

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
        """Cancel what is running and end the thread; called from inside, that happens after the call."""
        with self._closing:
            self._finalizer()
        if not self.inside:
            self._thread.join()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _end_soon(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.run_coroutine_threadsafe(_end(loop), loop)


async def _end(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    loop.call_soon(loop.stop)  # after the callbacks that tell those who wait for these tasks
