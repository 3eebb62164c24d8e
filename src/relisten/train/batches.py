"""From questions and written responses to the tensors of one training step.

A response is laid out as inference would have produced it: `protocol.split_at_listens` says where a crop is
inserted, its audio tokens follow the token that completes `</seg>`, and only what the model itself samples (its
text and the end-of-turn token) is learned. Prompt and inserted sound have no loss.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from relisten.audio import Clip
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.models.tower import Sounds
from relisten.protocol import Format, Segment, split_at_listens
from relisten.question import Question
from relisten.train.forward import Batch, Crops, Group


@dataclass(frozen=True)
class Target:
    """A question about a clip and the response to learn.

    `chooses` is False where the response's segments are given from outside and not to be foreseen: their tags
    have no loss then. `ends` is False where the response is no whole turn: no end-of-turn token is learned.
    `given` are parts of the response, as (first, end) characters, that cannot be known and have no loss.
    `crop_speed` is what its crops are played at.
    """

    question: Question
    response: str
    chooses: bool = True
    ends: bool = True
    given: tuple[tuple[int, int], ...] = ()
    crop_speed: float = 1.0


@dataclass(frozen=True)
class Branch:
    """Token ids of what follows a row's prefix; `weights[i]` is the loss weight of token i, 0 for none."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    segments: tuple[Segment, ...]
    """What is listened to, in order; their placeholders are in `ids`."""
    crops: tuple[Clip, ...]
    crop_starts: tuple[int, ...]
    """Index in `ids` of each crop's first placeholder."""
    crop_speed: float = 1.0


_ANSWER = re.compile("<answer>(.*?)(?:</answer>|$)", re.DOTALL)
_SEGMENT = re.compile("<seg>.*?(?:</seg>|$)", re.DOTALL)


class Batcher:
    """Lays out batches for one model.

    Args:
        family: tokenizer, prompt layout and mel front end.
        answer_weight: loss weight of the tokens between `<answer>` and `</answer>`.
        heard_weight: of those that follow an inserted crop, thus tell what is heard; other sampled tokens have 1.
        groups: branches are sorted by length into so many groups, each padded to its own longest.
    """

    def __init__(
        self, family: Qwen2_5Omni, answer_weight: float = 4.0, heard_weight: float = 1.0, groups: int = 3
    ) -> None:
        self.family = family
        self.answer_weight = answer_weight
        self.heard_weight = heard_weight
        self.groups = groups

    def batch(self, clips: Sequence[Clip], targets: Sequence[Sequence[Target]], format: Format) -> Batch:
        """One step's tensors: `targets[i]` are asked about `clips[i]`. Clips must be equally long."""
        branches, rows = [], []
        for row, (clip, asked) in enumerate(zip(clips, targets, strict=True)):
            for target in asked:
                branches.append(self.branch(clip, target, format))
                rows.append(row)
        parts = self.family.prompt(targets[0][0].question, clips[0], format).parts
        assert isinstance(parts[0], tuple)
        heard = self.family.num_audio_tokens(clips[0].num_samples)
        prefix = [*parts[0], *self.family.audio_ids(heard)]
        begin = prefix.index(self.family.audio_id)

        order = np.argsort([len(branch.ids) for branch in branches], kind="stable")
        groups, slots = [], {}
        base = 0
        for members in np.array_split(order, min(self.groups, len(order))):
            length = -(-max(len(branches[i].ids) for i in members) // 8) * 8
            ids = torch.zeros(len(members), length, dtype=torch.int64)
            for place, i in enumerate(members):
                ids[place, : len(branches[i].ids)] = torch.tensor(branches[i].ids)
                slots[int(i)] = base + place * length
            groups.append(Group(torch.tensor([rows[i] for i in members]), ids))
            base += ids.numel()
        target_ids, target_slots, weights = [], [], []
        for i, branch in enumerate(branches):
            for place, weight in enumerate(branch.weights):
                if weight:
                    target_ids.append(branch.ids[place])
                    target_slots.append(slots[i] + place - 1)
                    weights.append(weight)
        return Batch(
            self.sounds(clips),
            torch.tensor(prefix),
            slice(begin, begin + heard),
            tuple(groups),
            self._crops(branches, rows, slots),
            torch.tensor(target_ids),
            torch.tensor(target_slots),
            torch.tensor(weights, dtype=torch.float32),
        )

    def branch(self, clip: Clip, target: Target, format: Format) -> Branch:
        """What follows the prefix of `clip`: the rest of the prompt, then the response with its crops."""
        family = self.family
        head = family.prompt(target.question, clip, format).parts[-1]
        assert isinstance(head, tuple)
        ids, weights = list(head), [0.0] * len(head)
        segments, crops, starts, begun = [], [], [], 0
        for part in split_at_listens(target.response, clip.duration, format=format):
            if isinstance(part, Segment):
                crop = clip.crop(part.start, part.end, target.crop_speed)
                inserted = family.audio_ids(family.num_audio_tokens(crop.num_samples))
                segments.append(part)
                crops.append(crop)
                starts.append(len(ids) + 1)
                ids += inserted
                weights += [0.0] * len(inserted)
            else:
                plain = self.heard_weight if crops else 1.0
                for text, known in _pieces(part, begun, target.given):
                    written = family.encode_response(text)
                    ids += written
                    weights += (
                        self._weights(text, written, plain, target.chooses) if known else [0.0] * len(written)
                    )
                begun += len(part)
        if target.ends:
            ids.append(family.end_of_turn_id)
            weights.append(1.0)
        cut = tuple(segments), tuple(crops), tuple(starts)
        return Branch(tuple(ids), tuple(weights), *cut, target.crop_speed)

    def sounds(self, clips: Sequence[Clip]) -> Sounds:
        """Mel features of clips, padded to the longest."""
        features, lengths = self.family.mel(clips)
        mel = features.new_zeros(len(clips), features.shape[0], int(lengths.max()))
        for place, part in enumerate(torch.split(features, lengths.tolist(), dim=1)):
            mel[place, :, : part.shape[1]] = part
        return Sounds(mel, lengths)

    def _crops(self, branches: Sequence[Branch], rows: Sequence[int], slots: dict[int, int]) -> tuple[Crops, ...]:
        found = [
            (crop, slots[i] + start, (rows[i], segment.start, segment.end, branch.crop_speed))
            for i, branch in enumerate(branches)
            for segment, crop, start in zip(branch.segments, branch.crops, branch.crop_starts, strict=True)
        ]
        if not found:
            return ()
        order = np.argsort([crop.num_samples for crop, *_ in found], kind="stable")
        crops = []
        for members in np.array_split(order, min(self.groups, len(order))):
            chosen = [found[i] for i in members]
            counts = [self.family.num_audio_tokens(crop.num_samples) for crop, *_ in chosen]
            places = [start + np.arange(count) for (_, start, _), count in zip(chosen, counts, strict=True)]
            crops.append(
                Crops(
                    self.sounds([crop for crop, *_ in chosen]),
                    torch.from_numpy(np.concatenate(places)),
                    tuple(cut for *_, cut in chosen),
                )
            )
        return tuple(crops)

    def _weights(self, text: str, ids: Sequence[int], plain: float, chooses: bool) -> list[float]:
        """Of the tokens `ids` of `text`; a tag may be one token or several."""
        answers = [match.span(1) for match in _ANSWER.finditer(text)] if self.answer_weight != plain else []
        segments = [] if chooses else [match.span() for match in _SEGMENT.finditer(text)]
        if not answers and not segments:
            return [plain] * len(ids)
        decoder, begin, weights = self.family.decoder(), 0, []
        for token in ids:
            if any(first <= begin < end for first, end in segments):
                weights.append(0.0)
            else:
                inside = any(first <= begin < end for first, end in answers)
                weights.append(self.answer_weight if inside else plain)
            begin += len(decoder.push(token))
        return weights


def _pieces(text: str, begun: int, given: Sequence[tuple[int, int]]) -> list[tuple[str, bool]]:
    """`text`, which starts at character `begun` of a response, cut at given parts: (piece, is it learned)"""
    edges = sorted({min(max(edge - begun, 0), len(text)) for span in given for edge in span} | {0, len(text)})
    return [(text[first:end], not any(a <= begun + first < b for a, b in given)) for first, end in pairwise(edges)]
