"""How fast and how far: requests a minute, dollars, and the switch that ends a run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from relisten.errors import InputError
from relisten.llm.errors import BudgetReachedError, StopRunError


@dataclass
class Charge:
    """Set aside for one request; `cost` is what it came to in the end."""

    cost: float = 0.0


class Budget:
    """Dollars spent, set aside and allowed; shared by all endpoints of a run.

    A request starts only if the most it could cost still fits, so that the limit holds whatever comes back. It is
    also the switch of the run: once closed, no request starts and no wait goes on; those under way end as usual.

    Raises:
        InputError: a limit that is not above 0.
    """

    def __init__(self, limit: float | None = None, spent: float = 0.0) -> None:
        if limit is not None and not limit > 0:
            raise InputError(f"budget {limit:g}: give dollars above 0")
        self.limit = limit
        self.spent = spent
        self._aside = 0.0
        self._under_way = 0
        self._changed = asyncio.Condition()
        self._closed = asyncio.Event()
        self._reason = ""

    @property
    def closed(self) -> str:
        """Why no further request starts; "" while they do."""
        return self._reason

    def close(self, reason: str) -> None:
        """Start nothing any more. The first reason is kept."""
        if not self._reason:
            self._reason = reason
            self._closed.set()

    async def sleep(self, seconds: float) -> None:
        """Sleep, but not past the run's end.

        Raises:
            StopRunError: the run was closed meanwhile, or before.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        except TimeoutError:
            return
        raise StopRunError(self._reason)

    @asynccontextmanager
    async def charge(self, most: float) -> AsyncIterator[Charge]:
        """Set `most` dollars aside; on leaving, what was written into the charge is spent instead.

        Waits while requests under way may yet turn out cheaper than what is set aside for them.

        Raises:
            StopRunError: the run was closed.
            BudgetReachedError: `most` does not fit any more.
        """
        async with self._changed:
            while not self._reason and not self._fits(most):
                if self._under_way == 0:
                    raise BudgetReachedError(
                        f"budget of ${self.limit:.2f} reached: ${self.spent:.4f} spent, and the next request could "
                        f"cost ${most:.4f}; raise the budget and run again, or allow shorter replies (max_tokens)"
                    )
                await self._changed.wait()
            if self._reason:
                raise StopRunError(self._reason)
            self._aside += most
            self._under_way += 1
        charge = Charge()
        try:
            yield charge
        finally:
            self._under_way -= 1
            self._aside = self._aside - most if self._under_way else 0.0  # no rounding error stays behind
            self.spent += charge.cost
            async with self._changed:
                self._changed.notify_all()

    def _fits(self, most: float) -> bool:
        return self.limit is None or self.spent + self._aside + most <= self.limit


class Pace:
    """Lets requests through evenly, at most `per_minute` of them (None: at once), and none while held."""

    def __init__(self, per_minute: float | None, budget: Budget) -> None:
        self._interval = 60 / per_minute if per_minute else 0.0
        self._budget = budget
        self._next = 0.0
        self._held_until = 0.0

    async def wait(self) -> None:
        """Return when the next request may go out.

        Raises:
            StopRunError: the run was closed meanwhile.
        """
        clock = asyncio.get_running_loop().time
        slot = max(clock(), self._next)
        self._next = slot + self._interval
        # The endpoint may ask for a pause while this one sleeps.
        while (left := max(slot, self._held_until) - clock()) > 0:
            await self._budget.sleep(left)

    def hold(self, seconds: float) -> None:
        """Let nothing through for so long: the endpoint asked for it."""
        self._held_until = max(self._held_until, asyncio.get_running_loop().time() + seconds)
