"""The native engine's rows (answers in the making), and how their new tokens are packed into one step."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import accumulate, takewhile
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from relisten.audio import Clip
from relisten.engines.base import Feed, Look
from relisten.engines.encoding import EncodedAudio
from relisten.models.base import Family
from relisten.models.decoder import Chunk
from relisten.models.text import TextDecoder
from relisten.trace import PromptSpan, Sampling, Timings


@dataclass(eq=False)
class Row:
    """One answer, as the engine's thread sees it. Between two `decode` calls only its stream touches it."""

    prompt: PromptSpan
    clip: Clip  # the one in the prompt
    pending: list[tuple[int, ...] | Clip]  # what the model has not seen yet
    num_pending: int
    sampling: Sampling
    decoder: TextDecoder
    random: np.random.Generator
    slot: int | None = None
    length: int = 0  # tokens in the cache
    heard_prompt: bool = False
    sounds: tuple[EncodedAudio, ...] = ()
    """The sounds of `pending`, once the encoder was asked for them."""
    asked: float = 0.0
    """When they were asked for."""
    feed: Feed | None = None
    future: Future[Any] | None = None
    """Of what is awaited: a span where there is a `feed`, else a look."""
    first: tuple[int, float] | None = None
    """Token and log-prob that a look has drawn and no `decode` has delivered yet."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    passed_over: int = 0
    """How many steps, one after the other, had no room for what is pending."""
    full: bool = False
    closed: bool = False
    timings: Timings = field(default_factory=Timings)

    def begin_again(self, prompt: PromptSpan, pending: list[tuple[int, ...] | Clip], kept: int) -> None:
        """Take another prompt: its first `kept` tokens are in the cache, the others are `pending`."""
        # The length first: the engine's thread may meanwhile ask `held_of`, and must not count as part of the new
        # prompt what the old one left in the cache.
        self.length, self.num_pending = kept, len(prompt.ids) - kept
        self.prompt, self.pending = prompt, pending
        self.heard_prompt, self.first = False, None
        self.random = np.random.default_rng(self.sampling.seed)

    def spend(self, phase: Literal["encode", "prefill", "decode", "listen"], seconds: float) -> None:
        self.timings = replace(self.timings, **{phase: getattr(self.timings, phase) + seconds})


def held_of(row: Row, ids: tuple[int, ...], tail: tuple[int, ...] | Clip) -> int:
    """How many first tokens of another prompt about the same clip `row` has in the cache: 0 if they do not reach
    behind the sound, and never all, since the last one has to be run for the model to go on.

    Args:
        ids: all of that prompt.
        tail: its last part.
    """
    if isinstance(tail, Clip):
        return 0
    held, heard = row.prompt.ids[: row.length], len(ids) - len(tail)
    if held[:heard] != ids[:heard]:  # as a whole, since these are most of a prompt
        return 0
    pairs = zip(held[heard:], ids[heard:-1], strict=False)
    return heard + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


PromptKey = tuple[tuple[int, ...] | int, ...]


def prompt_key(row: Row) -> PromptKey | None:
    """The same for rows with the same prompt (clips by identity); None for a row that has begun."""
    if row.length:
        return None
    return tuple(id(part) if isinstance(part, Clip) else part for part in row.pending)


class Packed(NamedTuple):
    """The new tokens of some rows, one row behind the other; equal prompts stand there once."""

    ids: list[int]
    chunks: list[Chunk]
    audio: list[Tensor]
    """Embeddings of the sounds, in the order of their placeholders."""
    audio_at: list[int]
    """Where those placeholders are in `ids`."""
    copies: list[tuple[int, int, int]]
    """For each row whose prompt another computes: (slot of the other, slot of the row, tokens)."""
    places: list[int]
    """For each row, which of `chunks` ends with the token that its next one is drawn from."""


def pack(rows: Sequence[Row], family: Family) -> Packed:
    """Lay out a step for `rows`, each with a slot and with its sounds encoded."""
    packed = Packed([], [], [], [], [], [])
    firsts: dict[PromptKey, int] = {}
    for row in rows:
        assert row.slot is not None  # for the type checker: only rows with a slot run
        key = prompt_key(row)
        if key in firsts:
            first = firsts[key]
            packed.places.append(first)
            packed.copies.append((packed.chunks[first].slot, row.slot, row.num_pending))
            continue
        if key is not None:
            firsts[key] = len(packed.chunks)
        packed.places.append(len(packed.chunks))
        packed.chunks.append(Chunk(row.slot, row.length, row.num_pending))
        sounds = iter(row.sounds)
        for part in row.pending:
            if isinstance(part, Clip):
                heard = next(sounds).embeddings
                assert heard is not None  # for the type checker: it is encoded
                begin = len(packed.ids) + 1  # behind the begin token
                packed.audio_at.extend(range(begin, begin + len(heard)))
                packed.audio.append(heard)
                packed.ids.extend(family.audio_ids(len(heard)))
            else:
                packed.ids.extend(part)
    return packed


class StateTap:
    """Collects hidden states of one packed step, layer by layer, and makes the looks of some rows of them.

    Args:
        places: the chunks to look at; each holds one prompt from its beginning.
    """

    def __init__(self, packed: Packed, places: Sequence[int], device: torch.device) -> None:
        ends = [*accumulate(chunk.length for chunk in packed.chunks)]
        begins = [end - chunk.length for end, chunk in zip(ends, packed.chunks, strict=True)]
        self._last = torch.tensor([ends[place] - 1 for place in places], device=device)
        sounds = ([at for at in packed.audio_at if begins[place] <= at < ends[place]] for place in places)
        self._sounds = [torch.tensor(sound, device=device) for sound in sounds]
        self._layers: list[Tensor] = []

    def __call__(self, hidden: Tensor) -> None:
        """Take the output of the next layer, (tokens, hidden)."""
        means = [hidden[sound].mean(0, dtype=torch.float32) for sound in self._sounds]
        self._layers.append(torch.stack([hidden[self._last].float(), torch.stack(means)]))

    def looks(self) -> list[Look]:
        """One for each of `places`."""
        both = torch.stack(self._layers, dim=2).cpu().numpy()  # (2, places, layers, hidden)
        return [Look(last, sound) for last, sound in zip(*both, strict=True)]
