"""Log-probs of the sampled tokens of traces under a model in training, in the context that they were sampled in.

Ids are those of the trace, never text tokenised again. A token is scored from the same context that it was sampled
in: the question's clip, crops at their own length, and every token before it. Two ways through the model:

* `train.forward` for sound that fits one chunk of the audio tower: answers about one clip share its prefix.
* transformers' own modules, for sound of any length, and with adapters or gradient checkpointing: whole sequences
  one after the other in a row, each attending to itself alone.

Either way a clip is encoded once for all answers about it, and where the audio tower is frozen, once a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from relisten.audio import SAMPLE_RATE, Clip
from relisten.errors import InputError
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.protocol import Finish, Format
from relisten.question import Question
from relisten.trace import PromptSpan, Trace
from relisten.train import forward
from relisten.train.batches import Batcher, Branch

_LOGITS_AT_ONCE: Final = 1 << 25
"""Most logits kept for the backward pass; more of them are computed again there, part by part."""


@dataclass(frozen=True, eq=False)
class Laid:
    """A trace laid out for a model.

    `branch.weights` are the part of the trace's loss mask that follows the prefix.
    """

    prefix: tuple[int, ...]
    """Ids up to the end of the question's clip, its placeholders included."""
    audio: slice
    """Where in `prefix` the placeholders are."""
    clip: Clip
    branch: Branch

    @property
    def num_sampled(self) -> int:
        return sum(map(bool, self.branch.weights))


def lay_out(trace: Trace, clip: Clip, family: Qwen2_5Omni) -> Laid:
    """The trace of an answer about `clip`, ready to be scored.

    Raises:
        InputError: the trace is of a failed answer, or was made by a model that counts audio tokens or lays out
            prompts differently.
    """
    if not trace.spans or not isinstance(trace.spans[0], PromptSpan):
        raise InputError(f"answer {trace.id!r}: its trace has no prompt ({trace.error}); leave failed answers out")
    prompt, *rest = trace.spans
    assert isinstance(prompt, PromptSpan)
    heard = family.num_audio_tokens(clip.num_samples)
    begin = prompt.ids.index(family.audio_id) if family.audio_id in prompt.ids else 0
    audio = slice(begin, begin + heard)
    if prompt.ids.count(family.audio_id) != heard or set(prompt.ids[audio]) != {family.audio_id}:
        raise InputError(
            f"answer {trace.id!r}: its prompt has {prompt.ids.count(family.audio_id)} audio tokens, this model "
            f"hears {heard} in that clip; score traces with the model that made them"
        )
    end = audio.stop + 1
    ids, weights = list(prompt.ids[end:]), [0.0] * (len(prompt.ids) - end)
    crops, starts = [], []
    for span in rest:
        if isinstance(span, PromptSpan):
            raise InputError(f"answer {trace.id!r}: its trace has two prompts; give one that relisten wrote")
        sampled = 0.0
        if segment := getattr(span, "segment", None):
            crops.append(clip.crop(segment.start, segment.end, trace.sampling.crop_speed))
            starts.append(len(ids) + 1)
        else:
            sampled = 1.0
        ids += span.ids
        weights += [sampled] * len(span.ids)
    heard_again = trace.segments, tuple(crops), tuple(starts), trace.sampling.crop_speed
    branch = Branch(tuple(ids), tuple(weights), *heard_again)
    return Laid(prompt.ids[:end], audio, clip, branch)


class Scores(NamedTuple):
    """Of T sampled tokens, float32, in the order of the answers; with gradient where the model is in training."""

    logprobs: Tensor
    """(T,) under the whole distribution at temperature 1, as in a trace."""
    entropies: Tensor
    """(T,) of the distributions they were drawn from, in nats."""


@dataclass(frozen=True, eq=False)
class Part:
    """Answers that go through the model at once; made by `Scorer.split`."""

    members: tuple[int, ...]
    """The places of these answers in the list that was split."""
    laid: tuple[Laid, ...]
    batch: forward.Batch | None
    """None where transformers' modules score this part."""
    heard: tuple[Any, ...] | None
    """The encoded clips and crops, where the audio tower is frozen."""

    @property
    def num_sampled(self) -> int:
        return sum(laid.num_sampled for laid in self.laid)


class Scorer:
    """Scores answers under a model, a part of them at a time.

    Args:
        family: the model, or the reference: anything with the same tokenizer and audio front end.
        dtype: of matrix products; weights keep theirs.
        budget: positions computed at once, not counting padding; an answer that is longer is scored alone.
        hears_trained: whether gradients flow into the audio tower; if not, `split` encodes sound once.
        shared: use the shared-prefix forward on CPUs, where clips and crops are short enough; it ignores adapters.
        gathered: gathers the weights of a model that is divided among processes (`parallel.Gathered`). Every
            process must then score equally many parts; sound is encoded whenever a part is scored.
    """

    def __init__(
        self,
        family: Qwen2_5Omni,
        *,
        dtype: torch.dtype = torch.float32,
        budget: int = 16384,
        hears_trained: bool = False,
        shared: bool = True,
        gathered: Callable[[Callable[[], Scores]], Scores] | None = None,
    ) -> None:
        self._family = family
        self._dtype = dtype
        self._budget = budget
        self._hears_trained = hears_trained
        self._shared = shared and gathered is None
        self._gathered = gathered
        self._batcher = Batcher(family, divide=_equal_groups)

    def split(self, laid: Sequence[Laid]) -> list[Part]:
        """Divide answers into parts within the budget; those about one clip stay side by side."""
        # By first appearance, so that the same answers are divided the same way in every process.
        seen: dict[int, int] = {}
        for one in laid:
            seen.setdefault(id(one.clip), len(seen))
        fitting = [self._fits(one) for one in laid]
        order = sorted(
            range(len(laid)),
            key=lambda i: (fitting[i], len(laid[i].prefix), laid[i].prefix, seen[id(laid[i].clip)]),
        )
        groups: list[list[int]] = []
        cost = 0
        for i in order:
            one = laid[i]
            fits = fitting[i]
            last = laid[groups[-1][-1]] if groups else None
            same_clip = last is not None and last.clip is one.clip
            extra = len(one.branch.ids) + (0 if fits and same_clip else len(one.prefix))
            joins = last is not None and fits == fitting[groups[-1][-1]] and (not fits or last.prefix == one.prefix)
            if not joins or cost + extra > self._budget:
                groups.append([])
                cost, extra = 0, len(one.branch.ids) + len(one.prefix)
            groups[-1].append(i)
            cost += extra
        return [self._part(group, [laid[i] for i in group]) for group in groups]

    def __call__(self, part: Part) -> Scores:
        """Score one part; its tokens come in the order of `part.members`."""
        if part.batch is not None:
            return self._by_prefix(part, part.batch)
        with self._autocast():
            return self._by_stock(part) if self._gathered is None else self._gathered(partial(self._by_stock, part))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._family.device.type, self._dtype, enabled=self._dtype is not torch.float32)

    def _fits(self, laid: Laid) -> bool:
        """Whether the shared-prefix forward takes this answer: the audio tower sees its clip as one chunk, and each
        crop, which may be longer than the clip where it is played slowly."""
        longest = max(sound.num_samples for sound in (laid.clip, *laid.branch.crops))
        frames = self._family.mel.num_frames(longest)
        on_cpu = self._family.device.type == "cpu"
        tower: Any = self._family.audio_tower
        return self._shared and on_cpu and frames <= 2 * int(tower.n_window)

    def _part(self, members: Sequence[int], laid: Sequence[Laid]) -> Part:
        batch = _shared_batch(self._batcher, laid) if self._fits(laid[0]) else None
        heard: tuple[Any, ...] | None = None
        if not self._hears_trained and self._gathered is None:
            with torch.no_grad():
                heard = self._hear(batch, laid)
        return Part(tuple(members), tuple(laid), batch, heard)

    def _hear(self, batch: forward.Batch | None, laid: Sequence[Laid]) -> tuple[Any, ...]:
        if batch is not None:
            return tuple(forward.encode_batch(self._family.audio_tower, batch, self._dtype))
        clips = list({id(one.clip): one.clip for one in laid}.values())
        with self._autocast():
            return tuple(self._family.encode_audio([*clips, *(crop for one in laid for crop in one.branch.crops)]))

    def _by_prefix(self, part: Part, batch: forward.Batch) -> Scores:
        thinker = self._family.thinker
        states = forward.hidden_states(thinker, batch, self._dtype, part.heard)
        weight = thinker.lm_head.weight.to(self._dtype)
        return _scores(lambda x: F.linear(x, weight), states[batch.target_slots].to(self._dtype), batch.targets)

    def _by_stock(self, part: Part) -> Scores:
        family, laid = self._family, part.laid
        device = family.device
        with nullcontext() if self._hears_trained else torch.no_grad():
            heard = self._hear(None, laid) if part.heard is None else part.heard
        clips = list(dict.fromkeys(id(one.clip) for one in laid))
        crops = iter(heard[len(clips) :])
        sounds: list[Tensor] = []
        ids: list[int] = []
        positions: list[int] = []
        targets: list[int] = []
        for one in laid:
            sounds += [heard[clips.index(id(one.clip))], *(next(crops) for _ in one.branch.crops)]
            first = len(ids) + len(one.prefix)
            ids += [*one.prefix, *one.branch.ids]
            positions += range(len(one.prefix) + len(one.branch.ids))
            targets += [first + i for i, weight in enumerate(one.branch.weights) if weight]
        tokens = torch.tensor(ids, device=device)
        at = torch.tensor(targets, dtype=torch.int64, device=device)
        spots = (tokens == family.audio_id)[:, None]
        embeddings = family.embed(tokens)
        embeddings = embeddings.masked_scatter(spots, torch.cat(sounds).to(embeddings.dtype))
        # Three axes of equal positions, and a fourth that tells the model where sequences begin.
        axes = torch.tensor(positions, device=device).expand(4, 1, -1)
        states = family.language_model(
            inputs_embeds=embeddings[None], position_ids=axes, use_cache=False
        ).last_hidden_state[0]
        return _scores(family.lm_head, states[at - 1], tokens[at])


def nothing_learned(family: Qwen2_5Omni) -> Laid:
    """A second of silence and no sampled token, for a process that has no part left while others have."""
    clip = Clip(np.zeros(SAMPLE_RATE, np.float32))
    prompt = family.prompt(Question("?"), clip, Format.TEXT).span(family)
    return lay_out(Trace("?", (), (prompt,), Finish.NO_ANSWER, Format.TEXT), clip, family)


def scored(scorer: Scorer, parts: Sequence[Part]) -> list[Tensor]:
    """Log-probs of each part, without gradient."""
    with torch.no_grad():
        return [scorer(part).logprobs for part in parts]


def _shared_batch(batcher: Batcher, laid: Sequence[Laid]) -> forward.Batch:
    """Answers with the same prefix ids, each clip once."""
    clips = {id(one.clip): one.clip for one in laid}
    place = {key: row for row, key in enumerate(clips)}
    rows = [place[id(one.clip)] for one in laid]
    branches = [one.branch for one in laid]
    return batcher.lay_out(list(clips.values()), laid[0].prefix, laid[0].audio, branches, rows)


def _equal_groups(members: list[int], groups: int) -> list[list[int]]:
    """Groups of equal size, but for the last. `batches.evenly` would change a run's numbers in their last bits."""
    size = -(-len(members) // groups)
    return [members[first : first + size] for first in range(0, len(members), size)]


def _scores(head: Any, states: Tensor, targets: Tensor) -> Scores:
    """Scores from the states (T, hidden) that predict the targets (T,), logits being held for some at a time."""
    vocabulary = head(states[:1]).shape[-1] if len(states) else 1
    some = max(1, _LOGITS_AT_ONCE // vocabulary)
    pieces = zip(torch.split(states, some), torch.split(targets, some), strict=True)
    parts = [partial(_score, head, *piece) for piece in pieces]
    if len(parts) == 1:
        return Scores(*parts[0]())
    keeps = torch.is_grad_enabled()
    found = [checkpoint(part, use_reentrant=False) if keeps else part() for part in parts]
    return Scores(*(torch.cat(column) for column in zip(*found, strict=True)))


def _score(head: Any, states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logits = head(states).float()
    everything = logits.log_softmax(-1)
    chosen = -F.nll_loss(everything, targets, reduction="none")
    return chosen, -(everything.exp() * everything).sum(-1)
