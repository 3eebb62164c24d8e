"""The loss of whole sequences by transformers' own modules of a Thinker, for clips of any length.

`train.forward` is a faster special case for many short answers about one short clip. Here every sequence is
computed from its first token. Memory is saved: logits exist only where something is learned, and only for
`LOGITS_AT_ONCE` of those positions at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from relisten.audio import Clip
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.train.sft.sequences import TrainingSequence
from relisten.train.sizes import LOGITS_AT_ONCE


class SequenceLoss(nn.Module):
    """A thinker with its loss on top: one module, so that a sharded model is gathered by calling it.

    Args:
        packed: all sequences in one row, each attending to itself alone; else one row each, padded on the right.
        hears_trained: whether gradients flow into the audio tower.
    """

    def __init__(self, family: Qwen2_5Omni, packed: bool = True, hears_trained: bool = True) -> None:
        super().__init__()
        self.thinker = family.thinker
        self._family = family
        self._packed = packed
        self._hears_trained = hears_trained

    def forward(self, sequences: Sequence[TrainingSequence]) -> Tensor:
        """Summed cross-entropy, each token times its weight: a float32 scalar."""
        rows = [[*range(len(sequences))]] if self._packed else [[i] for i in range(len(sequences))]
        ids, weights, positions = self._laid_out(sequences, rows)
        states = self._states(ids, positions, [clip for laid in sequences for clip in laid.clips])
        # A position predicts the token behind it; the first token of a sequence is never learned.
        learned = weights[:, 1:] > 0
        return self._loss(states[:, :-1][learned], ids[:, 1:][learned], weights[:, 1:][learned])

    def _laid_out(
        self, sequences: Sequence[TrainingSequence], rows: list[list[int]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, loss weights and positions, each (rows, longest)."""
        longest = max(sum(len(sequences[i].ids) for i in row) for row in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.int64)
        weights = torch.zeros(len(rows), longest)
        positions = torch.arange(longest).repeat(len(rows), 1)
        for place, row in enumerate(rows):
            first = 0
            for i in row:
                end = first + len(sequences[i].ids)
                ids[place, first:end] = torch.tensor(sequences[i].ids)
                weights[place, first:end] = torch.tensor(sequences[i].weights)
                positions[place, first:end] = torch.arange(end - first)
                first = end
        device = self._family.device
        return ids.to(device), weights.to(device), positions.to(device)

    def _states(self, ids: Tensor, positions: Tensor, clips: list[Clip]) -> Tensor:
        family = self._family
        with nullcontext() if self._hears_trained else torch.no_grad():
            heard = torch.cat(family.encode_audio(clips))
        embeddings = family.embed(ids)
        spots = (ids == family.audio_id)[..., None]
        embeddings = embeddings.masked_scatter(spots, heard.to(embeddings.dtype))
        # The three axes are equal without images; the fourth tells the model where sequences begin. In a row that
        # holds one sequence, padding comes last and causal attention never looks there.
        axes = positions.expand(4 if self._packed else 3, -1, -1)
        states: Tensor = family.language_model(
            inputs_embeds=embeddings, position_ids=axes, use_cache=False
        ).last_hidden_state
        return states

    def _loss(self, states: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        def part(states: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
            logits = self._family.lm_head(states)
            return (F.cross_entropy(logits.float(), targets, reduction="none") * weights).sum()

        parts = zip(*(torch.split(t, LOGITS_AT_ONCE) for t in (states, targets, weights)), strict=True)
        return torch.stack([checkpoint(part, *chunk, use_reentrant=False) for chunk in parts]).sum()
