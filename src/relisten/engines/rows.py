"""The native engine's answers in the making, and how what they have to add becomes one packed step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor

from relisten.audio import Clip
from relisten.engines.base import Feed
from relisten.models.base import Family, TextDecoder
from relisten.models.decoder import Chunk
from relisten.trace import GeneratedSpan, PromptSpan, Sampling, Timings


@dataclass(eq=False)
class Row:
    """One answer, as the engine's thread sees it. Between two `decode` calls only its stream touches it."""

    prompt: PromptSpan
    pending: list[tuple[int, ...] | Clip]  # what the model has not seen yet
    num_pending: int
    sampling: Sampling
    decoder: TextDecoder
    random: np.random.Generator
    slot: int | None = None
    length: int = 0  # tokens in the cache
    heard_prompt: bool = False
    feed: Feed | None = None
    future: Future[GeneratedSpan] | None = None
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    full: bool = False
    closed: bool = False
    timings: Timings = field(default_factory=Timings)

    def spend(self, phase: Literal["encode", "prefill", "decode", "listen"], seconds: float) -> None:
        self.timings = replace(self.timings, **{phase: getattr(self.timings, phase) + seconds})


PromptKey = tuple[tuple[int, ...] | int, ...]


def prompt_key(row: Row) -> PromptKey | None:
    """What a row has to hear before its first token, clips by identity; None for one that has begun."""
    if row.length:
        return None
    return tuple(id(part) if isinstance(part, Clip) else part for part in row.pending)


class Packed(NamedTuple):
    """The new tokens of some rows, one row behind the other; of equal prompts the first alone."""

    ids: list[int]
    chunks: list[Chunk]
    audio: list[Tensor]
    """Embeddings of the sounds, in the order of their placeholders."""
    audio_at: list[int]
    """Where in `ids` those stand."""
    copies: list[tuple[int, int, int]]
    """(slot of the first row, slot of one with an equal prompt, tokens)"""
    places: list[int]
    """Of each row the chunk behind which its next token is drawn."""


def pack(rows: Sequence[Row], sounds: Mapping[int, Tensor], family: Family) -> Packed:
    """Lay out a step for `rows`, each with a slot; `sounds` are embeddings of their new clips, by identity."""
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
        for part in row.pending:
            if isinstance(part, Clip):
                sound = sounds[id(part)]
                begin = len(packed.ids) + 1  # behind the begin token
                packed.audio_at.extend(range(begin, begin + len(sound)))
                packed.audio.append(sound)
                packed.ids.extend(family.audio_ids(len(sound)))
            else:
                packed.ids.extend(part)
    return packed
