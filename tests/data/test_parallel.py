from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from support.processes import children_after_a_kill

from relisten.data.parallel import ordered_map
from relisten.processes import usable_processors

KILLED = """
import multiprocessing, threading, time
from relisten.data.parallel import ordered_map

threading.Thread(target=lambda: list(ordered_map(time.sleep, [60] * 2, 2)), daemon=True).start()
while len(children := multiprocessing.active_children()) < 2:
    time.sleep(0.05)
print(*(child.pid for child in children), flush=True)
time.sleep(60)
"""


def slow_first(number: int) -> tuple[int, int]:
    time.sleep(0.2 if number == 0 else 0)
    return number, os.getpid()


def fails_at_three(number: int) -> int:
    if number == 3:
        raise ValueError("three")
    return number


def test_results_come_in_order_whichever_is_first() -> None:
    found = list(ordered_map(slow_first, range(12), 2))
    assert [number for number, _ in found] == list(range(12))
    assert os.getpid() not in {process for _, process in found}


def test_one_process_is_this_one() -> None:
    assert {process for _, process in ordered_map(slow_first, range(3), 1)} == {os.getpid()}


@pytest.mark.parametrize("processes", [1, 2])
def test_what_is_raised_comes_out_at_its_place(processes: int) -> None:
    results = ordered_map(fails_at_three, range(9), processes)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_no_more_is_taken_than_is_under_way() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(10_000):
            taken += 1
            yield number

    results = ordered_map(abs, items(), 2)
    assert next(results) == 0
    assert taken <= 8
    results.close()  # type: ignore[attr-defined]


def test_there_is_a_processor() -> None:
    assert usable_processors() >= 1


def test_processes_end_with_the_one_that_started_them() -> None:
    before, after = children_after_a_kill(KILLED)
    assert len(before) == 2
    assert not after
