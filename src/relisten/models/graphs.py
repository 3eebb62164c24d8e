"""Decoding steps that are recorded once and repeated: CUDA graphs.

A step of single tokens is a thousand small kernels, which a processor launches more slowly than a GPU runs them.
Recorded they are one launch. A recording is of fixed sizes and fixed places in memory, so steps are filled up to a
few sizes, what differs between steps stands in one tensor, and recordings are dropped when the cache or the weights
have moved.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relisten.models.decoder import Chunk, KVCache, PackedDecoder, divide

_LENGTHS = 256
"""Tokens that are looked at are filled up to a multiple of this; more than 2,048 by an eighth at most."""

_PLAIN_STEP = 12
"""What a layer of a step that is not recorded takes to launch, in calls of attention; by arithmetic."""

Step = Callable[[], Tensor]


@dataclass(frozen=True)
class _Recording:
    inputs: Tensor
    """(3, rows): ids, slots, positions."""
    again: Step
    used: tuple[Tensor, ...]
    """What is read at its place in memory and nobody else may keep."""


class StepGraphs:
    """Steps of one decoder.

    Args:
        decoder: what runs the model.
        embed: (rows,) ids to (rows, hidden) embeddings.
        device: where both are.
        max_rows: rows there are at most.
        max_length: tokens a row has at most.
    """

    def __init__(
        self,
        decoder: PackedDecoder,
        embed: Callable[[Tensor], Tensor],
        device: torch.device,
        max_rows: int,
        max_length: int,
    ) -> None:
        self._decoder = decoder
        self._embed = embed
        self._device = device
        self._max_rows = max_rows
        self._max_length = max_length
        self._recordings: dict[tuple[int, int], _Recording | None] = {}
        """By rows and longest; None where memory was short, until the cache or the weights move."""
        self._version = 0  # of the cache
        self._weights: list[int] = []  # where they are
        self._weights_may_have_moved = True
        self._off = False
        # Its own: the capture stream of PyTorch belongs to the process, and to one card.
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool: Any = None

    def forget(self) -> None:
        """Nothing runs: weights may change, and move, before the next step."""
        self._weights_may_have_moved = True

    def step(self, ids: Sequence[int], chunks: Sequence[Chunk], open_rows: int, cache: KVCache) -> Tensor | None:
        """A step by a recording, which is made if there is none of that size.

        Args:
            ids: a token for each chunk.
            chunks: as `PackedDecoder` takes them.
            open_rows: slots that rows hold, these and others.
            cache: grown if need be.

        Returns:
            float32 logits (len(chunks), vocabulary); None for a step that is none of a recording's: several tokens
            for a row, rows that had better attend by themselves, or steps cannot be recorded.
        """
        if self._off or any(chunk.length > 1 for chunk in chunks):
            return None
        singles = [(chunk, place) for place, chunk in enumerate(chunks)]
        if divide(singles, self._device, calls=_PLAIN_STEP)[1]:
            return None
        rows = min(1 << (open_rows - 1).bit_length(), self._max_rows)
        longest = min(_filled_up(max(chunk.end for chunk in chunks)), self._max_length)
        cache.reserve(rows + 1, longest)
        self._drop_stale(cache)
        # Rows that sit out leave their keys and values in a slot that no row holds.
        numbers = [[0] * rows, [rows] * rows, [0] * rows]
        for id_, chunk in zip(ids, chunks, strict=True):
            for numbers_of_one, number in zip(numbers, (id_, chunk.slot, chunk.start), strict=True):
                numbers_of_one[chunk.slot] = number
        inputs = torch.tensor(numbers, device=self._device)
        if (rows, longest) not in self._recordings:
            try:
                self._recordings[rows, longest] = self._record(inputs, longest, cache)
            except torch.OutOfMemoryError:
                self._recordings[rows, longest] = None
            except RuntimeError as error:
                self._off = True
                self._drop()
                warnings.warn(f"decoding goes on without CUDA graphs ({error})", RuntimeWarning, stacklevel=2)
                return None
        recording = self._recordings[rows, longest]
        if recording is None:
            return None
        recording.inputs.copy_(inputs)
        return recording.again()[[chunk.slot for chunk in chunks]]

    def _drop(self) -> None:
        self._recordings.clear()
        self._pool = None  # a pool whose last recording is gone takes no other

    def _drop_stale(self, cache: KVCache) -> None:
        moved = cache.version != self._version
        if self._weights_may_have_moved:
            places = [weight.data_ptr() for weight in self._decoder.weights()]
            moved = moved or places != self._weights
            self._weights, self._weights_may_have_moved = places, False
        if moved:
            self._version = cache.version
            self._drop()

    def _record(self, inputs: Tensor, longest: int, cache: KVCache) -> _Recording:
        """Raises RuntimeError where steps cannot be recorded, or a recording does not give what the step gave."""
        inputs = inputs.clone()
        tables = self._decoder.rotations(longest)
        ids, slots, positions = inputs

        def step() -> Tensor:
            return self._decoder.step(self._embed(ids), slots, positions, longest, cache)

        expected = step()  # the first run also chooses kernels and makes their workspaces
        if self._pool is None and self._stream is not None:
            self._pool = torch.cuda.graph_pool_handle()
        again = record(step, self._stream, self._pool)
        again().fill_(math.nan)  # what a recording leaves as it was must not pass for what it gave
        if not torch.allclose(again(), expected, rtol=1e-2, atol=1e-2, equal_nan=True):
            raise RuntimeError("a recorded step gave other numbers than the step itself")
        return _Recording(inputs, again, tables)


def record(step: Step, stream: torch.cuda.Stream | None, pool: Any) -> Step:
    """What runs `step` again, from the same places in memory to the same places, without Python in between.

    Args:
        stream: a GPU's, to record on.
        pool: of memory, shared by recordings that never run side by side.

    Raises:
        RuntimeError: there is no such thing here, or for this step.
    """
    if stream is None:
        raise RuntimeError("there are none without a GPU")
    graph = torch.cuda.CUDAGraph()
    # The outer one of both, since a recording that fails may leave its own stream behind. Other threads may use the
    # GPU meanwhile.
    with (
        torch.cuda.stream(stream),
        torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
    ):
        result = step()

    def again() -> Tensor:
        graph.replay()
        return result

    return again


def _filled_up(length: int) -> int:
    grain = max(_LENGTHS, (1 << length.bit_length()) // 16)
    return -(-length // grain) * grain
