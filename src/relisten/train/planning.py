"""Which examples make a step, and which of them a process computes at once. Pure arithmetic on lengths.

What a step holds depends on the seed and on the set alone; the number of processes only changes how it is divided.
So the same run on more processes is the same run, up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


def steps_of_epoch(count: int, batch_size: int) -> int:
    """Steps that see `count` examples once; the last one may be smaller."""
    return -(-count // batch_size)


def members_of_step(count: int, batch_size: int, seed: int, step: int) -> NDArray[np.int64]:
    """Indices of the examples of a step; every epoch has an order of its own."""
    epoch, place = divmod(step, steps_of_epoch(count, batch_size))
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return order[place * batch_size : (place + 1) * batch_size]


def even_parts(members: Sequence[T], most: int) -> list[Sequence[T]]:
    """As few parts as possible of at most `most` members, in order; their sizes differ by one at most."""
    count = -(-len(members) // most)
    return [members[len(members) * part // count : len(members) * (part + 1) // count] for part in range(count)]


def computed_tokens(lengths: Sequence[int], packed: bool) -> int:
    """Positions computed for sequences that go through the model together, padding included."""
    if not lengths:
        return 0
    return sum(lengths) if packed else len(lengths) * max(lengths)


def divide(
    members: Sequence[int], lengths: NDArray[np.int64], processes: int, budget: int, packed: bool
) -> list[list[list[int]]]:
    """Divide a step among processes, each of which goes through the model equally often.

    Args:
        members: the step's examples.
        lengths: tokens of every example of the set.
        budget: positions a process computes at once; no example is longer.
        packed: several sequences share a row; else each has a row of its own, padded to the longest.

    Returns:
        `[process][pass]` lists of examples; a list is empty where there are fewer examples than passes.
    """
    order = sorted(members, key=lambda i: (-lengths[i], i))
    groups = _packed(order, lengths, processes, budget) if packed else _padded(order, lengths, processes, budget)
    groups.sort(key=lambda group: -computed_tokens([int(lengths[i]) for i in group], packed))
    passes = len(groups) // processes
    # Neighbours in size run at the same time, so that no process waits long for another.
    return [[groups[turn * processes + process] for turn in range(passes)] for process in range(processes)]


def _packed(order: list[int], lengths: NDArray[np.int64], processes: int, budget: int) -> list[list[int]]:
    """Longest first, each into the emptiest group, in as few groups as the budget allows."""
    passes = max(1, math.ceil(sum(int(lengths[i]) for i in order) / (processes * budget)))
    while True:
        groups: list[list[int]] = [[] for _ in range(processes * passes)]
        sizes = [0] * len(groups)
        for i in order:
            place = sizes.index(min(sizes))
            groups[place].append(i)
            sizes[place] += int(lengths[i])
        if max(sizes) <= budget or max(map(len, groups)) <= 1:
            return groups
        passes += 1


def _padded(order: list[int], lengths: NDArray[np.int64], processes: int, budget: int) -> list[list[int]]:
    """Neighbours in length share a group; then the largest are halved until all processes have equally many."""
    groups: list[list[int]] = [[]]
    for i in order:
        if groups[-1] and (len(groups[-1]) + 1) * int(lengths[groups[-1][0]]) > budget:
            groups.append([])
        groups[-1].append(i)
    wanted = processes * math.ceil(len(groups) / processes)
    while len(groups) < wanted:
        largest = max(groups, key=lambda g: (len(g) > 1, computed_tokens([int(lengths[i]) for i in g], False)))
        groups.remove(largest)
        half = -(-len(largest) // 2)
        groups += [largest[:half], largest[half:]]
    return groups
