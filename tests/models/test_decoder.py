"""The cache of keys and values grows as far as it must, and survives where it cannot."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from relisten.models.decoder import KVCache


def shapes(cache: KVCache) -> set[tuple[int, ...]]:
    return {tuple(tensor.shape) for tensor in (*cache.keys, *cache.values)}


def test_a_cache_doubles_up_to_what_can_be_needed() -> None:
    cache = KVCache(2, torch.empty(0, 2, 0, 4), max_slots=6, max_capacity=40)
    grown = []
    for slots, capacity in ((1, 10), (3, 11), (3, 12), (4, 21), (7, 41)):
        cache.reserve(slots, capacity)
        grown.append((cache.num_slots, cache.capacity))
        assert shapes(cache) == {(cache.num_slots, 2, cache.capacity, 4)}
    assert grown == [(1, 10), (3, 20), (3, 20), (6, 40), (7, 41)]


@pytest.mark.parametrize("layer", range(6))
def test_a_cache_that_ran_out_of_memory_goes_on(layer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and values of three layers; the growth of one of the six fails."""
    cache = KVCache(3, torch.empty(0, 2, 0, 4), max_slots=64, max_capacity=64)
    cache.reserve(2, 16)
    for tensor in (*cache.keys, *cache.values):
        tensor[:] = 1
    left = layer
    new_zeros = Tensor.new_zeros

    def scarce(tensor: Tensor, *shape: int) -> Tensor:
        nonlocal left
        left -= 1
        if left < 0:
            raise MemoryError
        return new_zeros(tensor, *shape)

    with monkeypatch.context() as patched:
        patched.setattr(Tensor, "new_zeros", scarce)
        with pytest.raises(MemoryError):
            cache.reserve(2, 17)
        cache.reserve(2, 16)  # needs nothing new
    assert cache.capacity == 16
    cache.reserve(3, 17)
    assert cache.num_slots >= 3
    assert cache.capacity == 32
    assert all((tensor[:2, :, :16] == 1).all() for tensor in (*cache.keys, *cache.values))
    assert all(tensor.sum() == 2 * 2 * 16 * 4 for tensor in (*cache.keys, *cache.values))
    cache.reserve(33, 33)
    assert shapes(cache) == {(33, 2, 64, 4)}
