"""From questions and written responses to the tensors of one training step.

A response is laid out as inference would have produced it: `protocol.split_at_listens` says where a crop is
inserted, its audio tokens follow the token that completes `</seg>`, and only what the model itself samples (its
text and the end-of-turn token) is learned. Prompt and inserted sound have no loss.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
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

    `chooses` is False where the model could not know which segments the response names: their tags have no loss
    then. `ends` is False where the response stops within a turn: no end-of-turn token is learned. `given` are parts
    of the response, as (first, end) characters, that the model could not know; they have no loss. `crop_speed` is
    the speed at which its crops are played.
    """

    question: Question
    response: str
    chooses: bool = True
    ends: bool = True
    given: tuple[tuple[int, int], ...] = ()
    crop_speed: float = 1.0


@dataclass(frozen=True)
class Branch:
    """The token ids behind a row's prefix (system turn and clip); `weights[i]` is the loss weight of token i."""

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


def evenly(members: list[int], groups: int) -> list[list[int]]:
    """At most `groups` groups; where they cannot be equally large, the first ones have one member more."""
    return [part.tolist() for part in np.array_split(members, min(groups, len(members)))]


class Batcher:
    """Lays out batches for one model.

    Args:
        family: tokenizer, prompt layout and mel front end.
        answer_weight: loss weight of the tokens between `<answer>` and `</answer>`.
        heard_weight: of those that follow an inserted crop and so tell what is heard; other sampled tokens have 1.
        groups: branches, and likewise crops, are sorted by length into at most so many groups, each padded to its
            own longest.
        divide: makes the groups of what is sorted; results differ in their last bits alone.
    """

    def __init__(
        self,
        family: Qwen2_5Omni,
        answer_weight: float = 4.0,
        heard_weight: float = 1.0,
        groups: int = 3,
        divide: Callable[[list[int], int], list[list[int]]] = evenly,
    ) -> None:
        self.family = family
        self.answer_weight = answer_weight
        self.heard_weight = heard_weight
        self.groups = groups
        self._divide = divide

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
        return self.lay_out(clips, prefix, slice(begin, begin + heard), branches, rows)

    def lay_out(
        self,
        clips: Sequence[Clip],
        prefix: Sequence[int],
        audio: slice,
        branches: Sequence[Branch],
        rows: Sequence[int],
    ) -> Batch:
        """The tensors of clips and of branches about them, in groups of similar length.

        Args:
            prefix: ids up to the end of the clip; the same for every clip.
            audio: where the clip's placeholders stand in it.
            rows: for each branch, which of the clips it follows.
        """
        groups, starts, base = [], [0] * len(branches), 0
        for members in self._by_size([len(branch.ids) for branch in branches]):
            length = -(-max(len(branches[i].ids) for i in members) // 8) * 8
            ids = torch.zeros(len(members), length, dtype=torch.int64)
            for place, i in enumerate(members):
                ids[place, : len(branches[i].ids)] = torch.tensor(branches[i].ids)
                starts[i] = base + place * length
            groups.append(Group(torch.tensor([rows[i] for i in members]), ids))
            base += ids.numel()
        learned = [
            (branch.ids[place], start + place - 1, weight)
            for branch, start in zip(branches, starts, strict=True)
            for place, weight in enumerate(branch.weights)
            if weight
        ]
        return Batch(
            self.sounds(clips),
            torch.tensor(prefix),
            audio,
            tuple(groups),
            tuple(self._crops(branches, rows, starts)),
            torch.tensor([token for token, _, _ in learned], dtype=torch.int64),
            torch.tensor([slot for _, slot, _ in learned], dtype=torch.int64),
            torch.tensor([weight for *_, weight in learned], dtype=torch.float32),
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

    def _crops(self, branches: Sequence[Branch], rows: Sequence[int], starts: Sequence[int]) -> Iterator[Crops]:
        """The crops of all branches, in groups of similar length; branches begin at the positions `starts`."""
        found = [
            (crop, start + place, (row, segment.start, segment.end, branch.crop_speed))
            for branch, row, start in zip(branches, rows, starts, strict=True)
            for segment, crop, place in zip(branch.segments, branch.crops, branch.crop_starts, strict=True)
        ]
        for members in self._by_size([crop.num_samples for crop, *_ in found]):
            chosen = [found[i] for i in members]
            counts = [self.family.num_audio_tokens(crop.num_samples) for crop, *_ in chosen]
            places = [torch.arange(first, first + n) for (_, first, _), n in zip(chosen, counts, strict=True)]
            cuts = tuple(cut for *_, cut in chosen)
            yield Crops(self.sounds([crop for crop, *_ in chosen]), torch.cat(places), cuts)

    def _by_size(self, sizes: Sequence[int]) -> list[list[int]]:
        """The places in `sizes`, from the smallest to the largest, in groups."""
        return self._divide(sorted(range(len(sizes)), key=lambda i: sizes[i]), self.groups) if sizes else []

    def _weights(self, text: str, ids: Sequence[int], plain: float, chooses: bool) -> list[float]:
        """Loss weights of `ids`, the tokens of `text`; a tag may be one token or several."""
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
