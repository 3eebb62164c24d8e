"""PyTorch engine: many answers decode side by side in one process, and listen while others go on.

A crop costs its own tokens and nothing else: everything before it stays in the KV cache. Several answers to one
question that begin in the same step cost one prompt. `engines.worker` does the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import numpy as np

from relisten.audio import Clip
from relisten.engines.base import Feed, Look
from relisten.engines.options import checked_context
from relisten.engines.prompting import checked_prompt
from relisten.engines.rows import Row, held_of
from relisten.engines.threads import fitting_threads
from relisten.engines.worker import Worker
from relisten.errors import InputError
from relisten.models.base import Family
from relisten.protocol import Format, Segment
from relisten.question import Question
from relisten.trace import GeneratedSpan, ListenSpan, PromptSpan, Sampling, Timings

MAX_ROWS = 64


class NativeEngine:
    """Decodes with the PyTorch modules of a family, on its device and in its precision.

    Args:
        family: the model. While rows are open nobody else may change its weights.
        name: what traces call the model; None takes the family's name.
        max_rows: answers decoded at once; more wait their turn.
        max_context: tokens a row may have; None takes what the checkpoint allows.
        lockstep: take a step only when every answer that is open has said what it wants next. With `together`,
            answers then come out the same to the bit however threads are scheduled. An answer that is left open
            and not read stops all others.
        encode_beside: encode sound in a thread of its own beside decoding (CPU only; the same to the bit); None:
            if `threads` leaves a processor unused.
        threads: processors that an operation takes (CPU only); None: what PyTorch would take, and one for a model
            as small as echo-tiny, which is faster so. Other threads of the process keep what they take.
        graphs: run steps in which every row adds one token as CUDA graphs; None: on a GPU.
        align: widen what is listened to again to the audio tower's grid of chunks (2 s for Qwen2.5-Omni-7B), whose
            inner chunks are then known from the clip and not encoded again; it pays for crops of 10 s and more. The
            trace has the widened segment. Crops at another speed than 1 stay as they are: they share no
            chunk with the clip.
    """

    def __init__(
        self,
        family: Family,
        *,
        name: str | None = None,
        max_rows: int = MAX_ROWS,
        max_context: int | None = None,
        lockstep: bool = False,
        encode_beside: bool | None = None,
        threads: int | None = None,
        graphs: bool | None = None,
        align: bool = False,
    ) -> None:
        if max_rows < 1:
            raise InputError(f"max rows {max_rows}: it must be at least 1")
        if threads is not None and threads < 1:
            raise InputError(f"threads {threads}: it must be at least 1")
        self._family = family
        self.model = name or family.name
        self.max_rows = max_rows
        self._context = checked_context(max_context, family.context_size)
        self._grid = family.chunk_seconds if align else None
        self._worker = Worker(
            family, max_rows, self._context, lockstep, encode_beside, threads or fitting_threads(family), graphs
        )
        self._finalizer = weakref.finalize(self, self._worker.stop)

    def open(self, question: Question, clip: Clip, format: Format, sampling: Sampling) -> NativeStream:
        """See `Engine.open`."""
        family = self._family
        prompt, span = checked_prompt(family, self.model, question, clip, format, self._context)
        row = Row(
            prompt=span,
            clip=clip,
            pending=list(prompt.parts),
            num_pending=len(span.ids),
            sampling=sampling,
            decoder=family.decoder(),
            random=np.random.default_rng(sampling.seed),
        )
        return NativeStream(self._worker, family, row, clip, format, self._context, self._grid)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Nothing is decoded inside: what is asked to decode there begins side by side when the block ends. Clip
        objects that these answers share are then encoded once, and equal prompts computed once. Without this, an
        answer that begins later still copies what open answers about the same clip object have computed. When
        several `together` blocks overlap, decoding starts when the last one ends."""
        self._worker.hold()
        try:
            yield
        finally:
            self._worker.let_go()

    @property
    def open_rows(self) -> int:
        """Answers that hold a slot or wait for one; a closed one may count until the step in hand is done."""
        return self._worker.open_rows

    def close(self) -> None:
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class NativeStream:
    """See `LookingStream`."""

    def __init__(
        self,
        worker: Worker,
        family: Family,
        row: Row,
        clip: Clip,
        format: Format,
        context: int,
        grid: float | None,
    ) -> None:
        self._worker = worker
        self._family = family
        self._row = row
        self._clip = clip
        self._format = format
        self._context = context
        self._grid = grid

    @property
    def prompt(self) -> PromptSpan:
        return self._row.prompt

    @property
    def full(self) -> bool:
        return self._row.full

    @property
    def timings(self) -> Timings:
        return self._row.timings

    async def decode(self, feed: Feed) -> GeneratedSpan:
        span: GeneratedSpan = await asyncio.wrap_future(self._worker.want(self._row, feed))
        return span

    async def look(self) -> Look:
        look: Look = await asyncio.wrap_future(self._worker.want(self._row, None))
        return look

    def ask_again(self, question: Question) -> bool:
        row = self._row
        prompt = self._family.prompt(question, self._clip, self._format)
        span = prompt.span(self._family)
        if len(span.ids) >= self._context:
            return False
        held = held_of(row, span.ids, prompt.parts[-1])
        row.begin_again(span, [span.ids[held:]] if held else list(prompt.parts), held)
        return True

    def listen(self, segment: Segment) -> ListenSpan | None:
        speed = self._row.sampling.crop_speed
        if self._grid and speed == 1:
            segment = segment.widened(self._grid, self._clip.duration)
        crop = self._clip.crop(segment.start, segment.end, speed)
        count = self._family.num_audio_tokens(crop.num_samples)
        ids = tuple(self._family.audio_ids(count))
        row = self._row
        if row.length + row.num_pending + len(ids) >= self._context:
            row.full = True
            return None
        row.pending.append(crop)
        row.num_pending += len(ids)
        return ListenSpan(segment, ids, count)

    def close(self) -> None:
        self._worker.drop(self._row)
