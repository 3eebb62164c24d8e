"""The training forward of a Thinker: the stock module's weights, laid out for many short answers about one clip.

Equal to the stock forward (tests compare them), but shaped for speed on CPUs:

* Rows that share a prefix (system turn and clip) compute it once. A branch (question and response) attends to
  its row's prefix and to itself; its positions go on where the prefix ended, as if it stood there alone.
* Clips and crops pass the audio tower as one dense padded batch with a key mask, not one chunk at a time.
* Attention is two matrix products, not the fused kernel (`models.tower.attend`).

Only sound of at most one tower chunk (2 x n_window mel frames) is supported: longer audio raises `InputError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relisten.errors import InputError
from relisten.models.qwen2_5_omni import AUDIO_TOWER, LANGUAGE_MODEL
from relisten.models.tower import Sounds, attend, encode_frames, existing, linear, pool


@dataclass(frozen=True)
class Crops:
    """Crops of similar length, and where their audio tokens stand among the branches' positions."""

    sounds: Sounds
    slots: Tensor
    """(audio tokens of all these crops,) int64."""
    cuts: tuple[tuple[int, float, float, float], ...]
    """For each crop the row it is cut from, its start and end in seconds, and the speed it is played at."""


@dataclass(frozen=True)
class Group:
    """B branches of similar length, padded on the right to L."""

    row: Tensor
    """(B,) int64: the row whose prefix each branch follows."""
    ids: Tensor
    """(B, L) int64; placeholders where crops stand."""


@dataclass(frozen=True)
class Batch:
    """Rows (clips) and the branches (question and response) that ask about them.

    All rows have the same prefix ids, thus equally many audio tokens. Positions of branches are counted through
    all groups, (B, L) flattened one after the other; `slots` are such positions.
    """

    clips: Sounds
    """One sound a row."""
    prefix_ids: Tensor
    """(P,) int64; the clip's placeholders included."""
    prefix_audio: slice
    """Where those stand."""
    groups: tuple[Group, ...]
    crops: tuple[Crops, ...]
    targets: Tensor
    """(T,) int64: the token ids that are learned."""
    target_slots: Tensor
    """(T,) int64: the positions that predict them."""
    weights: Tensor
    """(T,) float32."""

    @property
    def num_tokens(self) -> int:
        """Positions the language model computes, padding included."""
        prefixes = len(self.clips.lengths) * len(self.prefix_ids)
        return prefixes + sum(group.ids.numel() for group in self.groups)


def encode_batch(tower: Any, batch: Batch, dtype: torch.dtype = torch.float32) -> list[tuple[Tensor, Tensor]]:
    """What `encode_frames` gives for the batch's clips, then for each of its groups of crops."""
    parts = (batch.clips, *(crops.sounds for crops in batch.crops))
    return [encode_frames(tower, sounds, dtype) for sounds in parts]


def loss(
    thinker: Any,
    batch: Batch,
    dtype: torch.dtype = torch.float32,
    frames: Sequence[tuple[Tensor, Tensor]] | None = None,
) -> tuple[Tensor, Tensor]:
    """Weighted sum of the cross-entropies of a batch, and the sum of its weights (both scalars, float32).

    `dtype` is what the matrix products run in; the residual stream, the norms and the loss stay float32.
    `frames` is what `encode_batch` gives, where the caller has it already.
    """
    states = hidden_states(thinker, batch, dtype, frames)
    logits = linear(thinker.lm_head, states[batch.target_slots].to(dtype))
    each = F.cross_entropy(logits.float(), batch.targets, reduction="none")
    return (each * batch.weights).sum(), batch.weights.sum()


def hidden_states(
    thinker: Any,
    batch: Batch,
    dtype: torch.dtype = torch.float32,
    frames: Sequence[tuple[Tensor, Tensor]] | None = None,
) -> Tensor:
    """States of all branches' positions, (positions, hidden) float32, after the last norm."""
    model, tower = thinker.get_submodule(LANGUAGE_MODEL), thinker.get_submodule(AUDIO_TOWER)
    whole, *cut = frames or encode_batch(tower, batch, dtype)
    heard, counts = pool(tower, *whole, dtype)
    if int(counts.min()) != int(counts.max()):
        raise InputError("the clips of one batch differ in audio tokens; group clips of equal length")
    embed = model.embed_tokens.weight
    prefix = F.embedding(batch.prefix_ids, embed).expand(len(counts), -1, -1)
    place = batch.prefix_audio
    prefix = torch.cat([prefix[:, : place.start], heard, prefix[:, place.stop :]], dim=1)
    branches = F.embedding(torch.cat([group.ids.flatten() for group in batch.groups]), embed)
    for crops, part in zip(batch.crops, cut, strict=True):
        again, counts = pool(tower, *part, dtype)
        branches = branches.index_copy(0, crops.slots, again[existing(again.shape[1], counts)])
    return decode(model, prefix, branches, batch.groups, dtype)


def decode(
    model: Any,
    prefix: Tensor,
    branches: Tensor,
    groups: tuple[Group, ...],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The language model over rows' prefixes (R, P, d) and the positions of all branches (N, d).

    Returns the branches' states (N, d) after the last norm.
    """
    rows, p, width = prefix.shape
    longest = max(group.ids.shape[1] for group in groups)
    cos, sin = _rotary(model, p + longest, dtype, prefix.device)
    blocks = [_Block(None, rows, p, cos[:p], sin[:p], _causal(p, 0, dtype, prefix.device))]
    for group in groups:
        n, length = group.ids.shape
        here = slice(p, p + length)
        mask = _causal(length, p, dtype, prefix.device)
        blocks.append(_Block(group.row, n, length, cos[here], sin[here], mask))
    x = torch.cat([prefix.reshape(-1, width), branches])
    for layer in model.layers:
        x = _decoder_layer(layer, x, blocks, dtype)
    return _rms_norm(model.norm, x[rows * p :], torch.float32)


@dataclass(frozen=True)
class _Block:
    """`count` sequences of one length whose attention is computed at once: the prefixes, or a group of branches."""

    row: Tensor | None
    count: int
    length: int
    cos: Tensor
    sin: Tensor
    mask: Tensor


def _decoder_layer(layer: Any, x: Tensor, blocks: list[_Block], dtype: torch.dtype) -> Tensor:
    attention = layer.self_attn
    sizes = [block.count * block.length for block in blocks]
    h = _rms_norm(layer.input_layernorm, x, dtype)

    def heads(projection: nn.Linear, rotate: bool, groups: int = 1) -> list[Tensor]:
        split = []
        for block, flat in zip(blocks, torch.split(linear(projection, h), sizes), strict=True):
            part = flat.view(block.count, block.length, -1, attention.head_dim).transpose(1, 2)
            part = _rotate(part, block.cos, block.sin) if rotate else part
            split.append(part.repeat_interleave(groups, dim=1) if groups > 1 else part)
        return split

    shared = attention.num_key_value_groups
    queries = heads(attention.q_proj, True)
    keys = heads(attention.k_proj, True, shared)
    values = heads(attention.v_proj, False, shared)
    mixed = []
    for block, q, k, v in zip(blocks, queries, keys, values, strict=True):
        if block.row is not None:
            k = torch.cat([keys[0][block.row], k], dim=2)
            v = torch.cat([values[0][block.row], v], dim=2)
        mixed.append(attend(q, k, v, block.mask).transpose(1, 2).reshape(block.count * block.length, -1))
    x = x + linear(attention.o_proj, torch.cat(mixed))
    h = _rms_norm(layer.post_attention_layernorm, x, dtype)
    mlp = layer.mlp
    return x + linear(mlp.down_proj, F.silu(linear(mlp.gate_proj, h)) * linear(mlp.up_proj, h))


def _causal(length: int, past: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(length, past + length) additive mask: position i sees the past and 0 .. i."""
    hidden = torch.ones(length, past + length, dtype=torch.bool, device=device).triu(past + 1)
    return torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill(hidden, float("-inf"))


def _rotary(model: Any, length: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin (length, head_dim). Without images the model's three position axes are equal."""
    positions = torch.arange(length, dtype=torch.float32, device=device)
    angles = torch.outer(positions, model.rotary_emb.inv_freq.float()).repeat(1, 2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def _rms_norm(norm: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.variance_epsilon)
    normed: Tensor = x * scale * norm.weight
    return normed.to(dtype)
