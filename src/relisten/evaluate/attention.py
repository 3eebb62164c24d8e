"""How much a model attends to sound while it writes (Echo, figure 2): the share of attention on audio tokens by
decoding step.

A trace holds every token the model saw, so that one forward over it, with the sound encoded anew, gives the
attention of each decoding step. The paper reports for the 7B model less than 5 % after about 25 steps without
re-listening, and 10 to 14 % with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from relisten.audio import Clip
from relisten.errors import InputError
from relisten.evaluate.attention_curve import AttentionCurve, AttentionShare
from relisten.evaluate.results import ResultRow, Run
from relisten.models.base import Family
from relisten.trace import GeneratedSpan, Trace


def measure(family: Family, run: Run, sample: int) -> AttentionCurve:
    """The curve of up to `sample` answers of a run, spread evenly over it, by the model that made them.

    Raises:
        InputError: the run has no answer yet, or another model made it.
    """
    rows = [row for row in run.rows if row.error is None and row.trace is not None and row.trace.generated]
    if not rows:
        raise InputError(f"{run.folder}: holds no answer yet; run relisten eval first")
    picked = [rows[i * len(rows) // sample] for i in range(sample)] if len(rows) > sample else rows
    return AttentionCurve.of(run.config.model, [_share_of(family, row, run.config.silent) for row in picked])


def _share_of(family: Family, row: ResultRow, silent: bool) -> AttentionShare:
    if row.question is None or row.trace is None:
        raise InputError(f"row {row.id!r}: holds no answer")
    clip = row.question.clip()
    if silent:
        clip = Clip(np.zeros_like(clip.samples), clip.name)
    return attention_share(family, row.trace, clip)


def attention_share(family: Family, trace: Trace, clip: Clip) -> AttentionShare:
    """The shares of one answer: one forward of its whole context.

    Args:
        clip: the sound that the trace is about.

    Raises:
        InputError: that is another sound, the trace holds no sampled token, or another model made it.
    """
    ids, queries, begin = _layout(trace)
    if not queries:
        raise InputError(f"trace {trace.id!r}: nothing was sampled ({trace.finish}); leave it out")
    if clip.hash != trace.audio_hash:
        raise InputError(f"trace {trace.id!r}: {clip.name or 'the clip'} is not its sound; give the same file")
    speed = trace.sampling.crop_speed
    sounds = [clip, *(clip.crop(segment.start, segment.end, speed) for segment in trace.segments)]
    expected = sum(family.num_audio_tokens(sound.num_samples) for sound in sounds)
    tokens = torch.tensor(ids, device=family.device)
    heard = tokens == family.audio_id
    if int(heard.sum()) != expected or max(ids) >= family.lm_head.weight.shape[0]:
        raise InputError(
            f"trace {trace.id!r}: has {int(heard.sum())} audio tokens, {family.name} would have {expected}; "
            f"load the model that made it ({trace.model})"
        )
    keys = torch.stack([heard, heard]).float()
    keys[0, begin:] = 0
    keys[1, :begin] = 0
    with torch.inference_mode():
        embeddings = family.embed(tokens)
        embeddings[heard] = torch.cat(family.encode_audio(sounds)).to(embeddings.dtype)
        shares = _forward(family.language_model, embeddings, torch.tensor(queries, device=family.device), keys)
    return AttentionShare(*shares)


def _layout(trace: Trace) -> tuple[list[int], list[int], int]:
    """Token ids of the whole context, for each sampled token the position it was predicted at, and the length of
    the prompt."""
    ids: list[int] = []
    queries: list[int] = []
    for span in trace.spans:
        if isinstance(span, GeneratedSpan):
            queries += range(len(ids) - 1, len(ids) + len(span.ids) - 1)
        ids += span.ids
    return ids, queries, len(trace.spans[0].ids) if trace.spans else 0


def _forward(model: Any, embeddings: Tensor, queries: Tensor, keys: Tensor) -> NDArray[np.float64]:
    """Attention of `queries` (T,) on each row of `keys` (K, n), mean over layers and heads: (K, T).

    Reduced layer by layer, so that never more than one layer's (heads, n, n) weights are held.
    """
    total = torch.zeros(len(keys), len(queries), dtype=torch.float64)

    def add(module: object, arguments: object, output: tuple[Tensor, Tensor]) -> None:
        weights = output[1][0, :, queries].float().mean(0)
        total.add_((keys @ weights.T).double().cpu())

    with _eager(model):
        hooks = [layer.self_attn.register_forward_hook(add) for layer in model.layers]
        try:
            model(inputs_embeds=embeddings[None], use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
    return (total / len(model.layers)).numpy()


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    """Only spelled-out attention hands its weights out."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
