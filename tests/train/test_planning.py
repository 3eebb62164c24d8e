"""A step is the same whoever computes it, and nobody computes more at once than the budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relisten.train.planning import computed_tokens, divide, even_parts, members_of_step, steps_of_epoch


def test_an_epoch_sees_every_example_once_and_the_next_in_another_order() -> None:
    epochs = [[members_of_step(23, 5, 1, step + 5 * epoch) for step in range(5)] for epoch in range(2)]
    assert steps_of_epoch(23, 5) == 5
    orders = [np.concatenate(steps).tolist() for steps in epochs]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(23))
    assert orders[0] != orders[1]


@given(count=st.integers(0, 70), most=st.integers(1, 20))
def test_no_part_is_much_smaller_than_another(count: int, most: int) -> None:
    parts = even_parts(range(count), most)
    assert [member for part in parts for member in part] == [*range(count)]
    sizes = [len(part) for part in parts]
    assert len(sizes) == -(-count // most)
    assert not sizes or max(sizes) <= min(most, min(sizes) + 1)


def test_nine_groups_in_updates_of_eight_are_four_and_five() -> None:
    assert [len(part) for part in even_parts("abcdefghi", 8)] == [4, 5]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=30),
    processes=st.integers(1, 4),
    budget=st.integers(50, 200),
    packed=st.booleans(),
)
def test_every_member_is_computed_once_within_the_budget(
    lengths: list[int], processes: int, budget: int, packed: bool
) -> None:
    parts = divide(range(len(lengths)), np.array(lengths), processes, budget, packed)
    assert len(parts) == processes
    assert len({len(passes) for passes in parts}) == 1
    groups = [group for passes in parts for group in passes]
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert all(computed_tokens([lengths[i] for i in group], packed) <= budget for group in groups)


@pytest.mark.parametrize(("packed", "apart"), [(True, 20), (False, 40)])
def test_processes_get_like_work_at_the_same_time(packed: bool, apart: int) -> None:
    lengths = np.array([10, 10, 20, 20, 40, 40, 5, 5])
    first, second = divide(range(8), lengths, 2, 80, packed)
    for mine, other in zip(first, second, strict=True):
        sizes = [computed_tokens([int(lengths[i]) for i in part], packed) for part in (mine, other)]
        assert abs(sizes[0] - sizes[1]) <= apart
