"""The language model of Qwen-style checkpoints over rows of different lengths, with a slot KV cache.

transformers' own forward wants a rectangle: every row as long as the longest, every step the same number of
tokens a row. Answers that listen while others decode are not a rectangle, so the same modules (and so the same
weights, whatever a trainer does to them) are called here on packed tokens: linear layers see all new tokens of
all rows at once, attention sees each row with its own past.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, scaled_dot_product_attention

from relisten.errors import InputError

_CALL, _CALL_CUDA = 256, 16_384
"""What one call of attention costs beside its keys and values, in tokens that it could have read meanwhile. With
echo-tiny on a CPU anything from 64 to 512 does; on a GPU by arithmetic: 10 us of launch, 2 kB a token of a 7B at
3 TB/s."""


@dataclass(frozen=True)
class Chunk:
    """New tokens of one row: `length` of them behind the `start` tokens that slot `slot` already holds."""

    slot: int
    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length


class KVCache:
    """Keys and values of many rows: one (slots, kv_heads, capacity, head_dim) pair a layer, grown on demand.

    Args:
        empty: (0, kv_heads, 0, head_dim), what to begin with.
        max_slots: rows up to which the cache doubles ahead of need; beyond, it grows to just what is asked.
        max_capacity: the same for tokens per row.
    """

    def __init__(self, num_layers: int, empty: Tensor, max_slots: int, max_capacity: int) -> None:
        self.keys = [empty] * num_layers
        self.values = [empty] * num_layers
        self._max_slots = max_slots
        self._max_capacity = max_capacity
        self.version = 0
        """Grows when a tensor takes the place of another."""

    @property
    def num_slots(self) -> int:
        return min(tensor.shape[0] for tensor in (*self.keys, *self.values))

    @property
    def capacity(self) -> int:
        return min(tensor.shape[2] for tensor in (*self.keys, *self.values))

    def reserve(self, num_slots: int, capacity: int) -> None:
        """Make room for that many rows of that many tokens; grows by doubling, keeps what is there.

        If memory runs out some layers stay smaller than others: nothing is lost, and the next call goes on.
        """
        num_slots = _grown(self.num_slots, num_slots, self._max_slots)
        capacity = _grown(self.capacity, capacity, self._max_capacity)
        for tensors in (self.keys, self.values):
            for layer, old in enumerate(tensors):
                slots, kv_heads, tokens, head_dim = old.shape
                if slots >= num_slots and tokens >= capacity:
                    continue
                # Zeros, since slots that sit out a step still pass through attention and must stay finite.
                new = old.new_zeros(max(slots, num_slots), kv_heads, max(tokens, capacity), head_dim)
                new[:slots, :, :tokens] = old
                tensors[layer] = new
                self.version += 1

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of one row over another."""
        for tensor in (*self.keys, *self.values):
            tensor[target, :, :length] = tensor[source, :, :length]

    def clear(self, slot: int, length: int) -> None:
        """Overwrite the first `length` tokens of a row with zeros. Needed where values are not finite: attention
        multiplies what the slot's next row has masked by 0, and NaN times 0 is NaN."""
        for tensor in (*self.keys, *self.values):
            tensor[slot, :, :length] = 0


def _grown(size: int, needed: int, limit: int) -> int:
    return size if needed <= size else max(needed, min(2 * size, limit))


class PackedDecoder:
    """Runs a language model on packed rows.

    Args:
        language_model: the text model of a transformers Qwen2.5-Omni thinker (or one with the same layer names).
        lm_head: its output layer.

    Raises:
        InputError: the checkpoint uses sliding-window attention, which is not supported.
    """

    def __init__(self, language_model: Any, lm_head: Any) -> None:
        self._model = language_model
        self._lm_head = lm_head
        attention = self._model.layers[0].self_attn
        if any(layer.self_attn.sliding_window is not None for layer in self._model.layers):
            raise InputError("the checkpoint uses sliding-window attention; set use_sliding_window to false")
        self._head_dim: int = attention.head_dim
        self._kv_heads: int = attention.num_key_value_heads
        self._scale: float = attention.scaling
        weight = self._model.embed_tokens.weight
        self._cos = self._sin = torch.empty(0, self._head_dim, dtype=weight.dtype, device=weight.device)

    def weights(self) -> Iterator[Tensor]:
        yield from self._model.parameters()
        yield from self._lm_head.parameters()

    def new_cache(self, max_slots: int = sys.maxsize, max_capacity: int = sys.maxsize) -> KVCache:
        """An empty cache; see `KVCache` for the limits."""
        empty = self._model.embed_tokens.weight.new_empty(0, self._kv_heads, 0, self._head_dim)
        return KVCache(len(self._model.layers), empty, max_slots, max_capacity)

    def __call__(
        self,
        embeddings: Tensor,
        chunks: Sequence[Chunk],
        cache: KVCache,
        watch: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """Run new tokens through the model and keep their keys and values.

        Args:
            embeddings: (sum of chunk lengths, hidden), the chunks one after another.
            chunks: at most one for a slot; every one of length 1 or more.
            cache: reserved for every chunk's slot and end.
            watch: called with the output of each layer in order, (sum of chunk lengths, hidden).

        Returns:
            float32 logits behind the last token of each chunk, (len(chunks), vocabulary).
        """
        return self._run(embeddings, _Plan.of(chunks, embeddings), cache, watch)

    def step(self, embeddings: Tensor, slots: Tensor, positions: Tensor, longest: int, cache: KVCache) -> Tensor:
        """Run one new token for each of the first slots. All that differs from one such step to the next stands in
        tensors, so that a step can be recorded and repeated (`models.graphs`).

        Args:
            embeddings: (rows, hidden).
            slots: (rows,) where keys and values go: n for row n, another for a row that sits out.
            positions: (rows,) tokens that each row already has.
            longest: tokens that are looked at; more than any of `positions`.
            cache: reserved for them all.

        Returns:
            float32 logits, (rows, vocabulary).
        """
        return self._run(embeddings, _Plan.of_rows(slots, positions, longest, embeddings), cache, None)

    def _run(
        self, embeddings: Tensor, plan: _Plan, cache: KVCache, watch: Callable[[Tensor], None] | None
    ) -> Tensor:
        cos, sin = self.rotations(plan.longest)
        cos, sin = cos[plan.positions][:, None], sin[plan.positions][:, None]
        hidden = embeddings
        for layer, block in enumerate(self._model.layers):
            attention = block.self_attn
            x = _normed(block.input_layernorm, hidden)
            query = attention.q_proj(x).unflatten(-1, (-1, self._head_dim))
            key = attention.k_proj(x).unflatten(-1, (-1, self._head_dim))
            value = attention.v_proj(x).unflatten(-1, (-1, self._head_dim))
            query = _rotated(query, cos, sin)
            cache.keys[layer][plan.slots, :, plan.positions] = _rotated(key, cos, sin)
            cache.values[layer][plan.slots, :, plan.positions] = value
            mixed = self._attend(query, cache.keys[layer], cache.values[layer], plan)
            hidden = hidden + attention.o_proj(mixed.flatten(1))
            hidden = hidden + block.mlp(_normed(block.post_attention_layernorm, hidden))
            if watch is not None:
                watch(hidden)
        last = hidden if plan.in_order else hidden[plan.last]
        logits: Tensor = self._lm_head(_normed(self._model.norm, last))
        return logits.float()

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, plan: _Plan) -> Tensor:
        """(tokens, heads, head_dim) -> the same shape: single-token rows of like length at once, all else one by
        one."""
        if plan.in_order:
            return self._attend_slots(query, keys, values, plan)
        mixed = torch.empty_like(query)
        if plan.single_rows:
            # Slots that sit out this step get a zero query whose result is not read.
            slots = query.new_zeros(plan.single_rows, *query.shape[1:])
            slots[plan.single_slots] = query[plan.single_tokens]
            mixed[plan.single_tokens] = self._attend_slots(slots, keys, values, plan)[plan.single_slots]
        for chunk, offset in plan.apart:
            mixed[offset] = scaled_dot_product_attention(
                query[offset].view(1, self._kv_heads, -1, self._head_dim),
                keys[chunk.slot, :, : chunk.end][None],
                values[chunk.slot, :, : chunk.end][None],
                scale=self._scale,
            ).flatten(0, 2)
        for chunk, offset, mask in plan.long:
            span = slice(offset, offset + chunk.length)
            past = keys[chunk.slot, :, : chunk.end], values[chunk.slot, :, : chunk.end]
            if query.is_cuda:
                # With a mask or in float32 only kernels that know no groups are fast there, and need little memory.
                groups = query.shape[1] // self._kv_heads
                past = past[0].repeat_interleave(groups, 0), past[1].repeat_interleave(groups, 0)
            mixed[span] = scaled_dot_product_attention(
                query[span].transpose(0, 1)[None],
                past[0][None],
                past[1][None],
                attn_mask=mask,
                is_causal=mask is None,
                scale=self._scale,
                enable_gqa=not query.is_cuda,
            )[0].transpose(0, 1)
        return mixed

    def _attend_slots(self, query: Tensor, keys: Tensor, values: Tensor, plan: _Plan) -> Tensor:
        """(single_rows, heads, head_dim), a token of each of the first slots -> the same shape."""
        # A lone query attends to its whole past, so heads that share keys can stand side by side as queries.
        return scaled_dot_product_attention(
            query.view(plan.single_rows, self._kv_heads, -1, self._head_dim),
            keys[: plan.single_rows, :, : plan.single_longest],
            values[: plan.single_rows, :, : plan.single_longest],
            attn_mask=plan.single_mask,
            scale=self._scale,
        ).flatten(1, 2)

    def rotations(self, length: int) -> tuple[Tensor, Tensor]:
        """Rotary cosines and sines of positions 0 .. `length` for `_rotated`, (>= length, head_dim) each.

        With sound and text alone the three mRoPE axes count alike, so a position is one number.
        """
        if self._cos.shape[0] < length:
            size = max(length, 2 * self._cos.shape[0], 256)
            positions = torch.arange(size, device=self._cos.device).expand(3, 1, -1)
            cos, sin = self._model.rotary_emb(self._cos, positions)
            first, second = sin[0].chunk(2, dim=-1)
            self._cos, self._sin = cos[0], torch.cat((-first, second), dim=-1)
        return self._cos, self._sin


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions of (tokens, heads, head_dim); `sin` has its first half negated, which spares turning x
    around in several kernels."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def _normed(norm: Any, x: Tensor) -> Tensor:
    """A layer's RMS norm as one kernel."""
    return rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)


@dataclass
class _Plan:
    """Index tensors of one packed step, made once and used by every layer."""

    slots: Tensor
    positions: Tensor
    longest: int
    in_order: bool = False
    """Token n is of slot n, and all attend at once: no token is put anywhere else."""
    last: Tensor | None = None
    """Which tokens are the last of their chunks."""
    long: Sequence[tuple[Chunk, int, Tensor | None]] = ()
    """Chunks of several tokens, where they begin, and what they may see."""
    apart: Sequence[tuple[Chunk, int]] = ()
    """Single tokens that attend by themselves."""
    single_rows: int = 0
    """Slots that the other single tokens attend in, all at once; 0 without such tokens."""
    single_longest: int = 0
    single_tokens: Tensor | None = None
    single_slots: Tensor | None = None
    single_mask: Tensor | None = None

    @classmethod
    def of(cls, chunks: Sequence[Chunk], like: Tensor) -> _Plan:
        """`like` has the device and the dtype of queries."""
        device = like.device
        slots: list[int] = []
        positions: list[int] = []
        last: list[int] = []
        singles: list[tuple[Chunk, int]] = []
        long: list[tuple[Chunk, int, Tensor | None]] = []
        for chunk in chunks:
            offset = len(slots)
            slots += [chunk.slot] * chunk.length
            positions += range(chunk.start, chunk.end)
            last.append(len(slots) - 1)
            if chunk.length == 1:
                singles.append((chunk, offset))
            else:
                long.append((chunk, offset, _causal(chunk, like)))
        together, apart = divide(singles, device)

        def tensor(numbers: Sequence[int]) -> Tensor:
            return torch.tensor(numbers, device=device)

        longest = max(chunk.end for chunk in chunks)
        if not long and not apart and slots == [*range(len(slots))]:
            return cls.of_rows(tensor(slots), tensor(positions), longest, like)
        plan = cls(tensor(slots), tensor(positions), longest, last=tensor(last), long=long, apart=apart)
        if together:
            plan.single_tokens = tensor([offset for _, offset in together])
            plan.single_slots = tensor([chunk.slot for chunk, _ in together])
            plan.single_rows = max(chunk.slot for chunk, _ in together) + 1
            plan.single_longest = max(chunk.end for chunk, _ in together)
            ends = torch.ones(plan.single_rows, dtype=torch.long, device=device)
            ends[plan.single_slots] = tensor([chunk.end for chunk, _ in together])
            plan.single_mask = _seen(ends, plan.single_longest, like)
        return plan

    @classmethod
    def of_rows(cls, slots: Tensor, positions: Tensor, longest: int, like: Tensor) -> _Plan:
        """A token for each of the first slots; see `PackedDecoder.step`."""
        return cls(
            slots,
            positions,
            longest,
            in_order=True,
            single_rows=len(slots),
            single_longest=longest,
            single_mask=_seen(positions + 1, longest, like),
        )


def _seen(ends: Tensor, longest: int, like: Tensor) -> Tensor:
    """(rows, 1, 1, longest) mask of what each row's single token sees: everything before its end."""
    return _mask((torch.arange(longest, device=ends.device) < ends[:, None])[:, None, None, :], like)


def divide(
    singles: Sequence[tuple[Chunk, int]], device: torch.device, calls: int = 0
) -> tuple[Sequence[tuple[Chunk, int]], Sequence[tuple[Chunk, int]]]:
    """Single-token rows that attend together, and those that had better do so alone.

    Together, every slot costs as much as the longest row. One answer about ten minutes of sound would make all
    others pay for its length, and a few rows that go on would pay for all that wait.

    Args:
        calls: what it costs beside to have any attend alone, in calls of attention.
    """
    if not singles:
        return (), ()
    call = _CALL if device.type == "cpu" else _CALL_CUDA
    ordered = sorted(singles, key=lambda single: -single[0].end)
    slots = max(chunk.slot for chunk, _ in singles) + 1
    alone, best, count = calls * call, slots * ordered[0][0].end, 0
    for apart, (chunk, _) in enumerate(ordered, 1):
        alone += chunk.end + call
        rest = slots * ordered[apart][0].end if apart < len(ordered) else 0
        if alone + rest < best:
            best, count = alone + rest, apart
    return ordered[count:], ordered[:count]


def _causal(chunk: Chunk, like: Tensor) -> Tensor | None:
    """(length, end) mask of what each new token sees; None where plain causal attention says the same."""
    if chunk.start == 0:
        return None
    columns = torch.arange(chunk.end, device=like.device)
    return _mask(columns <= torch.arange(chunk.start, chunk.end, device=like.device)[:, None], like)


def _mask(seen: Tensor, like: Tensor) -> Tensor:
    """What is added to the scores: 0 where a key is seen. Of booleans every layer would make it anew."""
    return torch.zeros_like(seen, dtype=like.dtype).masked_fill_(~seen, -torch.inf)
