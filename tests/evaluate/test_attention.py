"""Attention shares equal those that transformers itself hands out, and name what does not belong together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.sounds import noise_clip

from relisten.errors import InputError
from relisten.evaluate.attention import attention_share
from relisten.evaluate.attention_curve import FILE, SETTLED, AttentionCurve, AttentionShare
from relisten.models import Family
from relisten.protocol import Finish, Format, Segment
from relisten.question import Question
from relisten.trace import GeneratedSpan, ListenSpan, PromptSpan, Trace

CLIP = noise_clip(3.0)
SEGMENT = Segment(0.5, 1.5)


def trace(family: Family, before: int = 6, after: int = 5) -> Trace:
    """An answer of `before` tokens, a listen, and `after` tokens."""
    prompt = family.prompt(Question("How many?", audio=CLIP), CLIP)
    inserted = family.num_audio_tokens(CLIP.crop(SEGMENT.start, SEGMENT.end).num_samples)
    ids = tuple(family.encode_response("so I listen, and there are two of them in the end of it all"))
    return Trace(
        question="How many?",
        choices=(),
        spans=(
            PromptSpan(tuple(prompt.ids(family)), family.num_audio_tokens(CLIP.num_samples)),
            GeneratedSpan(ids[:before], (0.0,) * before, ""),
            ListenSpan(SEGMENT, tuple(family.audio_ids(inserted)), inserted),
            GeneratedSpan(ids[:after], (0.0,) * after, ""),
        ),
        finish=Finish.ANSWER,
        format=Format.INTERLEAVED,
        id="x",
        audio_hash=CLIP.hash,
        duration=CLIP.duration,
    )


def test_shares_are_those_of_a_plain_forward(untrained: Family) -> None:
    asked = trace(untrained)
    found = attention_share(untrained, asked, CLIP)
    ids = torch.tensor(asked.token_ids)
    heard = ids == untrained.audio_id
    model = untrained.language_model
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        embeddings = untrained.embed(ids).clone()
        sounds = untrained.encode_audio([CLIP, CLIP.crop(SEGMENT.start, SEGMENT.end)])
        embeddings[heard] = torch.cat(sounds)
        layers = model(inputs_embeds=embeddings[None], use_cache=False, output_attentions=True).attentions
    model.set_attn_implementation(before)
    mean = torch.stack(layers).mean((0, 2))[0]
    prompt = len(asked.spans[0].ids)
    listen = slice(prompt + 6, prompt + 6 + len(asked.spans[2].ids))
    positions = [*range(prompt - 1, prompt + 5), *range(listen.stop - 1, listen.stop + 4)]
    clip = mean[positions, :prompt][:, heard[:prompt]].sum(1)
    again = mean[positions, listen][:, heard[listen]].sum(1)
    np.testing.assert_allclose(found.clip, clip.numpy(), atol=1e-5)
    np.testing.assert_allclose(found.again, again.numpy(), atol=1e-5)
    assert (found.again[:6] == 0).all()
    assert (found.again[6:] > 0).all()
    assert (found.total < 1).all()


def test_the_model_is_left_as_it_was(untrained: Family) -> None:
    def state() -> tuple[str, int]:
        model = untrained.language_model
        return model.config._attn_implementation, sum(len(x.self_attn._forward_hooks) for x in model.layers)

    attention_share(untrained, trace(untrained), CLIP)  # transformers puts hooks of its own at the first call
    before = state()
    attention_share(untrained, trace(untrained), CLIP)
    assert state() == before


def test_another_sound_another_model_and_an_empty_trace_are_named(untrained: Family) -> None:
    asked = trace(untrained)
    with pytest.raises(InputError, match="is not its sound"):
        attention_share(untrained, asked, noise_clip(3.0, seed=1))
    shorter = replace(asked, spans=(PromptSpan((1, 2, 3), 0), *asked.spans[1:]))
    with pytest.raises(InputError, match="load the model that made it"):
        attention_share(untrained, shorter, CLIP)
    with pytest.raises(InputError, match="nothing was sampled"):
        attention_share(untrained, replace(asked, spans=asked.spans[:1]), CLIP)


def test_curve_survives_its_file_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    assert AttentionCurve.read(tmp_path) is None
    curve = AttentionCurve.of("m", [AttentionShare(np.full(30, 0.25), np.full(30, 0.125))])
    curve.write(tmp_path)
    assert AttentionCurve.read(tmp_path) == curve
    for content in ("{", "[]", '{"a": 1}'):
        (tmp_path / FILE).write_text(content)
        with pytest.raises(InputError, match="measure again"):
            AttentionCurve.read(tmp_path)


def test_curve_counts_the_answers_that_reach_a_step() -> None:
    def share(steps: int, value: float) -> AttentionShare:
        return AttentionShare(np.full(steps, value), np.full(steps, value / 2))

    curve = AttentionCurve.of("m", [share(2, 0.2), share(SETTLED + 3, 0.4)], max_steps=4)
    assert curve.counts == (2, 2, 1, 1)
    assert curve.clip == pytest.approx((0.3, 0.3, 0.4, 0.4))
    assert curve.again == pytest.approx((0.15, 0.15, 0.2, 0.2))
    assert curve.settled == pytest.approx((0.6,))
    empty = AttentionCurve.of("m", [])
    assert (empty.answers, empty.counts, empty.settled) == (0, (), ())
