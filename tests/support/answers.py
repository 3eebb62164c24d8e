"""Sampled answers of a small model, with listens wherever a test wants them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from relisten.audio import Clip
from relisten.engines.native import NativeEngine
from relisten.models import Family
from relisten.protocol import Finish, Format, Segment
from relisten.question import Question
from relisten.trace import Sampling, Span, Trace


def sampled(
    family: Family,
    asked: Sequence[tuple[Question, Clip]],
    listens: Sequence[int],
    tokens: int = 5,
    crop_speed: float = 1.0,
) -> list[Trace]:
    """For each question an answer that listens as often as told, whatever the model writes."""

    async def one(engine: NativeEngine, index: int) -> Trace:
        question, clip = asked[index]
        sampling = Sampling(temperature=1.0, seed=index, crop_speed=crop_speed)
        stream = engine.open(question, clip, Format.INTERLEAVED, sampling)
        spans: list[Span] = [stream.prompt]
        for listen in range(listens[index] + 1):
            left = tokens + (index + listen) % 4

            def feed(piece: str, end_of_turn: bool) -> bool:
                nonlocal left
                left -= 1
                return left == 0

            spans.append(await stream.decode(feed))
            if listen < listens[index]:
                heard = stream.listen(Segment(0.3 * listen, 0.3 * listen + 0.4 + 0.2 * (index % 3)))
                assert heard is not None
                spans.append(heard)
        stream.close()
        return Trace(
            question.text, question.choices, tuple(spans), Finish.LENGTH, Format.INTERLEAVED, id=question.id,
            sampling=sampling,
        )  # fmt: skip

    async def all_of_them() -> list[Trace]:
        with NativeEngine(family) as engine:
            return list(await asyncio.gather(*(one(engine, index) for index in range(len(asked)))))

    return asyncio.run(all_of_them())
