"""Answers that listen wherever a test wants it, and what a plain forward makes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from support.sounds import noise_question

from relisten.audio import Clip
from relisten.engines.base import Engine
from relisten.engines.drive import answer
from relisten.engines.native import NativeEngine
from relisten.models import Family
from relisten.protocol import Finish, Format, Segment
from relisten.question import Question
from relisten.trace import Sampling, Span, Trace

TOLERANCE = 1e-4  # of float32 log-probs, sums in another order


def pause_after(count: int, seen: list[str] | None = None) -> Callable[[str, bool], bool]:
    """A feed that takes so many tokens, their text into `seen`."""
    left = count

    def feed(piece: str, end_of_turn: bool) -> bool:
        nonlocal left
        left -= 1
        if seen is not None:
            seen.append(piece)
        return left == 0

    return feed


async def begin_together(engine: NativeEngine, asked: list[Question], samplings: list[Sampling]) -> list[Trace]:
    """Answers whose first steps are the same steps."""
    with engine.together():
        tasks = [
            asyncio.ensure_future(answer(engine, one, sampling=sampling))
            for one, sampling in zip(asked, samplings, strict=True)
        ]
        await asyncio.sleep(0)
    return await asyncio.gather(*tasks)


async def listening(
    engine: Engine, question: Question, sampling: Sampling, index: int, listens: int, tokens: int = 5
) -> Trace:
    """An answer that listens as often as told, whatever the model writes; `index` decides when and to what."""
    stream = engine.open(question, question.clip(), Format.INTERLEAVED, sampling)
    spans: list[Span] = [stream.prompt]
    for listen in range(listens + 1):
        spans.append(await stream.decode(pause_after(tokens + (index + listen) % 4)))
        if listen < listens:
            heard = stream.listen(Segment(0.3 * listen, 0.3 * listen + 0.4 + 0.2 * (index % 3)))
            assert heard is not None
            spans.append(heard)
    stream.close()
    return Trace(
        question.text, question.choices, tuple(spans), Finish.LENGTH, Format.INTERLEAVED, id=question.id,
        sampling=sampling,
    )  # fmt: skip


async def noise_answer(engine: NativeEngine, index: int, sampling: Sampling) -> Trace:
    """Answer `index` of many that differ in their clip and in how often they listen."""
    return await listening(engine, noise_question(index), sampling, index, listens=index % 5)


def sampled(
    family: Family,
    asked: Sequence[tuple[Question, Clip]],
    listens: Sequence[int],
    tokens: int = 5,
    crop_speed: float = 1.0,
) -> list[Trace]:
    """For each question an answer of the native engine that listens as often as told."""

    async def all_of_them() -> list[Trace]:
        with NativeEngine(family) as engine:
            works = []
            for index, ((question, clip), often) in enumerate(zip(asked, listens, strict=True)):
                sampling = Sampling(temperature=1.0, seed=index, crop_speed=crop_speed)
                works.append(listening(engine, replace(question, audio=clip), sampling, index, often, tokens))
            return list(await asyncio.gather(*works))

    return asyncio.run(all_of_them())


@torch.no_grad()
def plain_logits(family: Family, trace: Trace, clip: Clip) -> torch.Tensor:
    """(sampled tokens, vocabulary): what each was drawn from, by transformers' own forward over all at once."""
    ids = torch.tensor(trace.token_ids)
    embeddings = family.embed(ids).clone()
    sounds = [clip, *(clip.crop(s.start, s.end) for s in trace.segments)]
    embeddings[ids == family.audio_id] = torch.cat(family.encode_audio(sounds))
    hidden = family.language_model(
        inputs_embeds=embeddings[None], position_ids=torch.arange(len(ids)).expand(3, 1, -1), use_cache=False
    ).last_hidden_state
    logits: torch.Tensor = family.lm_head(hidden)[0]
    return logits[torch.tensor(trace.loss_mask).nonzero()[:, 0] - 1]


def plain_logprobs(family: Family, trace: Trace, clip: Clip) -> list[float]:
    """Of the sampled tokens."""
    sampled = torch.tensor([id_ for span in trace.generated for id_ in span.ids])
    logprobs = plain_logits(family, trace, clip).log_softmax(-1)
    found: list[float] = logprobs[torch.arange(len(sampled)), sampled].tolist()
    return found
