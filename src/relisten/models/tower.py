"""The audio tower of Qwen-style checkpoints as one dense forward, for training and for answering.

The stock module's weights and its result (tests compare them), without what makes it slow for short sounds: one
attention call for each chunk of each sound, and index arithmetic that costs as much as a small layer.

The tower hears chunks of 2 x `n_window` mel frames, each as if it stood alone. So chunks are what is computed here,
and what `ChunkCache` keeps.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relisten.errors import InputError


@dataclass(frozen=True)
class Sounds:
    """Mel features of several sounds, padded to one length: `mel` (N, n_mels, F) float32, `lengths` (N,) int64."""

    mel: Tensor
    lengths: Tensor


def encode_frames(tower: Any, sounds: Sounds, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """States before pooling, one for two mel frames: (N, longest, d_model) in the weights' dtype, and their number
    (N,). `dtype` is what the matrix products run in; None for the weights' own.

    Raises:
        InputError: a sound is longer than one chunk.
    """
    if sounds.mel.shape[-1] > 2 * tower.n_window:
        raise InputError(
            f"{sounds.mel.shape[-1]} mel frames; this forward takes at most one chunk of {2 * tower.n_window}"
        )
    stream = tower.conv1.weight.dtype
    dtype = dtype or stream
    exists = existing(sounds.mel.shape[-1], sounds.lengths)
    x = F.gelu(_conv(tower.conv1, sounds.mel.to(dtype))) * exists[:, None]
    x = F.gelu(_conv(tower.conv2, x)).transpose(1, 2).to(stream)
    x = x + tower.positional_embedding.positional_embedding[: x.shape[1]].to(stream)
    lengths = (sounds.lengths - 1) // 2 + 1
    keys = existing(x.shape[1], lengths)
    mask = None
    if not keys.all():
        mask = torch.zeros(keys.shape, dtype=dtype, device=x.device).masked_fill(~keys, float("-inf"))
        mask = mask[:, None, None]
    for layer in tower.layers:
        x = _layer(layer, x, mask, dtype)
    return x, lengths


def pool(tower: Any, states: Tensor, lengths: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """Audio tokens from states: (N, longest // 2, output_dim) in the states' dtype, and how many of them exist."""
    pairs = states.shape[1] // 2
    pooled = (states[:, 0 : 2 * pairs : 2] + states[:, 1 : 2 * pairs : 2]) / 2
    return linear(tower.proj, layer_norm(tower.ln_post, pooled, dtype)).to(states.dtype), lengths // 2


class ChunkCache:
    """States of chunks that were encoded before, by their mel features: what is equal to the bit is not encoded
    again, and nothing else ever is reused. Forgets what was not used for longest beyond `limit` bytes.

    Equal crops have equal features: answers to one question often go back to one place. And a chunk of a crop has
    the features of a chunk of its clip if all of this holds:

    * the crop begins on the clip's grid of chunks;
    * the chunk is not at an edge of the crop, since no features hear beyond a crop (`models.mel`), or that edge is
      the clip's own;
    * crop and clip floor their values at the same level, or the chunk does not reach down to either floor.

    The weights must not change while it holds anything: `clear` it then. Threads may share it.
    """

    def __init__(self, limit: int = 1 << 25) -> None:
        self._limit = limit
        self._states: OrderedDict[bytes, Tensor] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()
        self.found = 0
        """Chunks that needed no encoding."""
        self.made = 0
        """Chunks that did."""

    @staticmethod
    def key(mel: Tensor) -> bytes:
        """The key of a chunk, which must be in the memory of the host."""
        return hashlib.blake2b(mel.contiguous().numpy().data, digest_size=16).digest()

    def get(self, key: bytes) -> Tensor | None:
        with self._lock:
            states = self._states.get(key)
            if states is None:
                self.made += 1
            else:
                self.found += 1
                self._states.move_to_end(key)
            return states

    def put(self, key: bytes, states: Tensor) -> None:
        with self._lock:
            if key in self._states:
                return
            self._states[key] = states
            self._size += states.nbytes
            while self._size > self._limit:
                _, oldest = self._states.popitem(last=False)
                self._size -= oldest.nbytes

    def clear(self) -> None:
        with self._lock:
            self._states.clear()
            self._size = 0


def encode_features(
    tower: Any,
    features: Tensor,
    lengths: Sequence[int],
    cache: ChunkCache | None = None,
) -> list[Tensor]:
    """Audio tokens of sounds of any length, without gradient.

    On a CPU every chunk is computed alone: batching gains nothing there, and so the result of a chunk is the same
    to the bit whatever is encoded beside it. Elsewhere all chunks are one batch.

    Args:
        features: (n_mels, sum of lengths), the sounds one after another.
        lengths: mel frames of each.

    Returns:
        For each sound (audio tokens, output_dim) in the weights' dtype.
    """
    chunks = _split(features, lengths, 2 * tower.n_window)
    flat = [chunk for sound in chunks for chunk in sound]
    keys: list[bytes] = []
    if cache is not None:  # one copy to the host, not one for each chunk
        keys = [
            cache.key(chunk) for sound in _split(features.cpu(), lengths, 2 * tower.n_window) for chunk in sound
        ]
    states: list[Tensor | None] = [cache.get(key) for key in keys] if cache is not None else [None] * len(flat)
    missing = [i for i, known in enumerate(states) if known is None]
    groups = [[i] for i in missing] if features.device.type == "cpu" or not missing else [missing]
    for group in groups:
        for i, made in zip(group, encode_chunks(tower, [flat[i] for i in group]), strict=True):
            states[i] = made
            if cache is not None:
                # What is made together shares memory, which would stay for the sake of one chunk.
                cache.put(keys[i], made if len(group) == 1 else made.clone())
    encoded, first = [], 0
    for sound in chunks:
        whole = torch.cat([s for s in states[first : first + len(sound)] if s is not None])
        first += len(sound)
        encoded.append(pool(tower, whole[None], torch.tensor([len(whole)]))[0][0])
    return encoded


def _split(features: Tensor, lengths: Sequence[int], chunk: int) -> list[tuple[Tensor, ...]]:
    """The chunks of each sound."""
    return [torch.split(sound, chunk, dim=1) for sound in torch.split(features, [*lengths], dim=1)]


def encode_chunks(tower: Any, chunks: Sequence[Tensor]) -> list[Tensor]:
    """The states of each chunk, without padding."""
    lengths = torch.tensor([chunk.shape[1] for chunk in chunks], device=chunks[0].device)
    longest = max(chunk.shape[1] for chunk in chunks)
    mel = torch.stack([F.pad(chunk, (0, longest - chunk.shape[1])) for chunk in chunks])
    states, counts = encode_frames(tower, Sounds(mel, lengths))
    return [row[:count] for row, count in zip(states, counts.tolist(), strict=True)]


def _layer(layer: Any, x: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    attention = layer.self_attn
    n, length, width = x.shape
    h = layer_norm(layer.self_attn_layer_norm, x, dtype)
    q, k, v = (
        linear(projection, h).view(n, length, attention.num_heads, -1).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    # The fused kernel is slow to learn through (`attend`), but in half precision it keeps the scores in float32.
    mixed = attend(q, k, v, mask) if torch.is_grad_enabled() else F.scaled_dot_product_attention(q, k, v, mask)
    mixed = mixed.transpose(1, 2).reshape(n, length, width)
    x = x + linear(attention.out_proj, mixed)
    h = layer_norm(layer.final_layer_norm, x, dtype)
    return x + linear(layer.fc2, F.gelu(linear(layer.fc1, h)))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention spelled out as two matrix products: on CPUs its backward runs in half the time of the fused one."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return torch.matmul((scores if mask is None else scores + mask).softmax(-1), v)


def existing(length: int, lengths: Tensor) -> Tensor:
    """(N, length) bool: which positions of right-padded rows are real."""
    return torch.arange(length, device=lengths.device) < lengths[:, None]


def layer_norm(norm: Any, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    normed = F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    return normed if dtype is None else normed.to(dtype)


def linear(module: Any, x: Tensor) -> Tensor:
    """A linear layer in the dtype of `x`; called as a module where that is its own, so that adapters count."""
    if module.weight.dtype == x.dtype:
        return module(x)  # type: ignore[no-any-return]
    return F.linear(x, module.weight.to(x.dtype), None if module.bias is None else module.bias.to(x.dtype))


def _conv(conv: Any, x: Tensor) -> Tensor:
    bias = None if conv.bias is None else conv.bias.to(x.dtype)
    return F.conv1d(x, conv.weight.to(x.dtype), bias, conv.stride, conv.padding)
