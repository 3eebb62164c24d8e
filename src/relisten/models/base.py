"""What every model family offers to engines and trainers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from relisten.audio import Clip
from relisten.models.text import TextDecoder
from relisten.models.tower import ChunkCache
from relisten.protocol import Format
from relisten.question import Question
from relisten.trace import PromptSpan


@dataclass(frozen=True)
class Prompt:
    """Runs of token ids and clips, in order.

    The runs hold neither the audio begin and end tokens nor placeholders: a clip of n samples stands for
    `family.audio_ids(family.num_audio_tokens(n))`.
    """

    parts: tuple[tuple[int, ...] | Clip, ...]
    findings: tuple[tuple[int, int], ...] = ()
    """Where in the last run each of the question's findings stands: first token, one past the last."""

    @property
    def clips(self) -> tuple[Clip, ...]:
        return tuple(part for part in self.parts if isinstance(part, Clip))

    def ids(self, family: Family) -> list[int]:
        """All token ids, clips expanded."""
        ids: list[int] = []
        for part in self.parts:
            if isinstance(part, Clip):
                ids += family.audio_ids(family.num_audio_tokens(part.num_samples))
            else:
                ids += part
        return ids

    def span(self, family: Family) -> PromptSpan:
        """What a trace says of this prompt."""
        ids = tuple(self.ids(family))
        last = self.parts[-1]
        before = 0 if isinstance(last, Clip) else len(ids) - len(last)
        return PromptSpan(
            ids,
            sum(family.num_audio_tokens(clip.num_samples) for clip in self.clips),
            tuple((before + start, before + stop) for start, stop in self.findings),
        )


class Family(Protocol):
    """A model with its tokenizer, prompt layout and audio front end. A family is one file."""

    name: str
    eos_ids: frozenset[int]
    """Ids that end a response."""
    end_of_turn_id: int
    """The one of `eos_ids` that a well-formed response ends with."""
    audio_id: int
    """The placeholder that stands for one audio embedding."""
    chunk_seconds: float
    """The audio tower hears chunks of this length, counted from the start of a sound, each on its own."""
    context_size: int
    """Positions that the model was made for, prompt and response together."""
    thinker: Any
    """The transformers module; `audio_tower`, `language_model` and `lm_head` are its parts."""

    @property
    def banned_ids(self) -> tuple[int, ...]:
        """Ids that are never sampled: audio, image and role tokens, and ids without a token."""
        ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def audio_tower(self) -> torch.nn.Module: ...

    @property
    def language_model(self) -> torch.nn.Module: ...

    @property
    def lm_head(self) -> torch.nn.Linear: ...

    def prompt(self, question: Question, clip: Clip, format: Format = Format.INTERLEAVED) -> Prompt:
        """The prompt for a question about `clip`; what depends on the question comes after the sound."""
        ...

    def encode_text(self, text: str) -> list[int]:
        """Ids of text that a user or a data set wrote; never a control token."""
        ...

    def encode_response(self, text: str) -> list[int]:
        """Ids of text that the model itself writes; protocol tags may be single tokens."""
        ...

    def decoder(self) -> TextDecoder:
        """A fresh incremental decoder for one response."""
        ...

    def completing(self, tag: str) -> frozenset[int]:
        """Ids of the tokens that may complete `tag`, whichever tokens it began with."""
        ...

    def num_audio_tokens(self, num_samples: int) -> int:
        """Embeddings that a clip of `num_samples` samples becomes; 0 for one too short to be heard."""
        ...

    def audio_ids(self, num_tokens: int) -> list[int]:
        """Begin token, `num_tokens` placeholders, end token."""
        ...

    def encode_audio(self, clips: Sequence[Clip], cache: ChunkCache | None = None) -> list[Tensor]:
        """For each clip its (n, hidden) embeddings, n = `num_audio_tokens`. Outside of inference mode they are
        differentiable in the weights; inside of it, chunks that are in `cache` are not encoded again."""
        ...

    def embed(self, ids: Tensor) -> Tensor:
        """(..., hidden) embeddings of token ids of any shape."""
        ...

    def save(self, folder: str | Path) -> None:
        """Write the model as a checkpoint that transformers loads, too."""
        ...
