"""The way of Echo's released code on transformers' own modules, re-created from its description.

One answer at a time. Every turn sends the whole text again with all its sounds, each padded to 300 s by
`WhisperFeatureExtractor`; within a turn the model's own key-value cache is used.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import WhisperFeatureExtractor

from relisten.audio import SAMPLE_RATE, Clip
from relisten.models.base import Family
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.trace import ListenSpan, Trace

PADDED_SECONDS = 300
"""Qwen2.5-Omni's own setting, whatever the checkpoint at hand says."""


class Replayed(NamedTuple):
    """An answer that was written again."""

    seconds: float
    logprobs: list[float]
    """Of the tokens it samples, as this way computes them."""


class Stock:
    def __init__(self, family: Family) -> None:
        assert isinstance(family, Qwen2_5Omni)
        self._family = family
        self._extractor = WhisperFeatureExtractor.from_pretrained(family.source.folder, chunk_length=PADDED_SECONDS)

    def features(self, sounds: Sequence[Clip]) -> dict[str, Any]:
        """What the model's forward takes for the sounds."""
        found = self._extractor(
            [sound.samples for sound in sounds],
            sampling_rate=SAMPLE_RATE,
            padding="max_length",
            return_attention_mask=True,
            return_tensors="pt",
        )
        return {
            "input_features": found["input_features"].to(self._family.device, self._family.dtype),
            "feature_attention_mask": found["attention_mask"].to(self._family.device),
        }

    def forward(self, ids: Sequence[int], features: dict[str, Any], use_cache: bool = False) -> Any:
        """A turn's first step: everything before its first token."""
        tokens = torch.tensor([[*ids]], device=self._family.device)
        return self._family.thinker(
            input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=use_cache, **features
        )

    @torch.inference_mode()
    def replay(self, trace: Trace, clip: Clip) -> Replayed:
        """Write the answer of `trace` this way, the same tokens and the same crops."""
        began = time.perf_counter()
        sounds, sampled_from = [clip], []
        prompt, *rest = trace.spans
        ids = list(prompt.ids)
        for span in rest:
            if isinstance(span, ListenSpan):
                sounds.append(clip.crop(span.segment.start, span.segment.end))
                ids += span.ids
                continue
            out = self.forward(ids, self.features(sounds), use_cache=True)
            for place, token in enumerate(span.ids[:-1], start=len(ids)):
                sampled_from.append(self._sample(out.logits))
                out = self._family.thinker(
                    input_ids=torch.tensor([[token]], device=self._family.device),
                    attention_mask=torch.ones(1, place + 1, dtype=torch.int64, device=self._family.device),
                    position_ids=torch.full((3, 1, 1), place, device=self._family.device),
                    past_key_values=out.past_key_values,
                    use_cache=True,
                )
            sampled_from.append(self._sample(out.logits))
            ids += span.ids
        seconds = time.perf_counter() - began
        logprobs = torch.stack(sampled_from).log_softmax(-1)
        written = torch.tensor([[token] for span in trace.generated for token in span.ids], device=logprobs.device)
        return Replayed(seconds, logprobs.gather(1, written)[:, 0].tolist())

    def _sample(self, logits: torch.Tensor) -> torch.Tensor:
        """The last token's logits, behind what it costs to draw from them."""
        last = logits[0, -1].clone()  # a view would keep those of the whole prompt
        last.softmax(-1).multinomial(1)
        return last


def spread(traces: Sequence[Trace], count: int) -> list[int]:
    """Places of so many of the answers, evenly spread over what they cost this way: by listens, then tokens."""
    order = sorted(range(len(traces)), key=lambda place: (len(traces[place].listens), len(traces[place].logprobs)))
    count = min(count, len(order))
    return [order[(2 * number + 1) * len(order) // (2 * count)] for number in range(count)]


def counts(traces: Sequence[Trace]) -> dict[str, float]:
    """Tokens that were sampled and listens, of an answer in the mean."""
    return {
        "tokens": statistics.fmean(len(trace.logprobs) for trace in traces),
        "listens": statistics.fmean(len(trace.listens) for trace in traces),
    }
