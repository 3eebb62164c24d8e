"""Work side by side."""

from __future__ import annotations

import asyncio
from typing import Any

from relisten.llm.tasks import in_order


def test_results_have_the_order_of_the_items_whatever_comes_first() -> None:
    async def work(number: int) -> int:
        await asyncio.sleep(0.02 if number % 3 == 0 else 0)
        return number

    async def numbers() -> list[int]:
        return [number async for number in in_order(range(30), work, 7)]

    assert asyncio.run(numbers()) == list(range(30))


def test_items_are_read_as_they_are_needed() -> None:
    read = 0

    def source() -> Any:
        nonlocal read
        for number in range(1000):
            read += 1
            yield number

    async def few() -> None:
        async def work(number: int) -> int:
            return number

        stream = in_order(source(), work, 8)
        for _ in range(3):
            await anext(stream)
        await stream.aclose()

    asyncio.run(few())
    assert read <= 12
