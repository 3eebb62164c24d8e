"""One answer in vLLM: a request that stays open while the answer pauses, then takes the crop and goes on.

vLLM wants to know beforehand behind which tokens to stop, but `feed` says only afterwards whether to pause. So a
request is told to stop behind every token that may complete `</seg>`. Then there are three cases:

* It stopped, and `feed` wants a pause: its KV cache stays as it is, and the crop alone is computed.
* It stopped, and `feed` wants none: it goes on at once.
* It did not stop, and `feed` wants a pause: more tokens may have been sampled already. The request is given up, and
  a new one with the same ids finds all but its last few tokens in the prefix cache. The same happens when the KV
  cache cannot hold all open requests (`CacheRoom`).

Ids are never made from text again.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import math
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from vllm import SamplingParams, TokensPrompt
from vllm.engine.protocol import StreamingInput
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind

from relisten.audio import Clip, seconds_to_samples
from relisten.engines.base import NO_NUMBERS, Feed
from relisten.errors import EngineError
from relisten.models.base import Family, Prompt
from relisten.protocol import Segment
from relisten.trace import GeneratedSpan, ListenSpan, PromptSpan, Sampling, Timings

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

    from relisten.engines.vllm.engine import VllmEngine

_names = itertools.count()
_RETRIES = 3
"""How often one `decode` begins a request anew that vLLM ended with an error. vLLM does so when its core lacks a
sound that was sent before, perhaps by another request and still on its way; a new request sends it again."""


@dataclass(frozen=True)
class AudioInput:
    """A clip or a crop of it, and the name by which vLLM knows it; the same sound always has the same name."""

    clip: Clip
    uuid: str


class Request:
    """A request of vLLM that takes more input whenever it has stopped."""

    def __init__(self, llm: AsyncLLM, params: SamplingParams) -> None:
        self._renderer = llm.renderer
        self._inputs: asyncio.Queue[StreamingInput] = asyncio.Queue()
        self._outputs = llm.generate(self._feed(), params, f"relisten-{next(_names)}")

    async def _feed(self) -> AsyncGenerator[StreamingInput, None]:
        while True:
            yield await self._inputs.get()

    async def send(self, ids: list[int], sounds: list[AudioInput], params: SamplingParams) -> None:
        """Add to the context. vLLM computes features of new sounds in a thread; those known by name it skips."""
        prompt = TokensPrompt(prompt_token_ids=ids)
        if sounds:
            prompt["multi_modal_data"] = {"audio": [sound.clip.samples for sound in sounds]}
            prompt["multi_modal_uuids"] = {"audio": [sound.uuid for sound in sounds]}
        (rendered,) = await self._renderer.render_cmpl_async([prompt])
        self._inputs.put_nowait(StreamingInput(rendered, params))

    async def receive(self) -> RequestOutput:
        return await anext(self._outputs)

    async def close(self) -> None:
        """Abort; vLLM frees the place and the cache blocks."""
        await self._outputs.aclose()


class CacheRoom:
    """Counts the blocks of vLLM's KV cache that requests need, so that vLLM never waits for ever.

    vLLM takes blocks away only from requests that run, not from those that wait for more input. If every request
    that holds blocks has paused and needs more than are free, none can go on. So a request that does not fit beside
    the others is given up and begun anew, without blocks of its own.
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self._num_blocks = num_blocks - 1  # vLLM keeps one to itself
        self._block_size = block_size
        self._held: dict[Request, int] = {}

    def reserve(self, request: Request, length: int) -> bool:
        """Record the blocks that this request now needs; False if all requests together no longer fit.

        Requests may share blocks, but are counted as if they did not.
        """
        self._held[request] = -(-length // self._block_size)
        return sum(self._held.values()) <= self._num_blocks

    def leave(self, request: Request) -> None:
        self._held.pop(request, None)


class VllmStream:
    """See `Stream`. All but `decode`, `listen` and `close` runs in the thread of the engine's event loop."""

    def __init__(
        self, engine: VllmEngine, family: Family, prompt: Prompt, span: PromptSpan, clip: Clip, sampling: Sampling
    ) -> None:
        self.prompt = span
        self.timings = Timings()
        self._engine = engine
        self._family = family
        self._clip = clip
        self._sampling = sampling
        self._decoder = family.decoder()
        # The context as vLLM is given it: one placeholder for each sound, which vLLM expands.
        self._ids: list[int] = []
        self._sounds: list[AudioInput] = []
        for part in prompt.parts:
            if isinstance(part, Clip):
                self._hear(AudioInput(part, part.hash))
            else:
                self._ids += part
        self._length = len(span.ids)  # tokens of the whole context, placeholders expanded
        self._sampled = 0
        self._request: Request | None = None
        self._told = self._told_sounds = 0  # how many of `_ids` and `_sounds` the request has
        self._heard_prompt = False
        self._waits_for_sound = False
        self._decoding: asyncio.Task[GeneratedSpan] | None = None
        self.closed = False

    @property
    def full(self) -> bool:
        return self._length >= self._engine.context

    async def decode(self, feed: Feed) -> GeneratedSpan:
        return await self._engine.decode(self, feed)

    def listen(self, segment: Segment) -> ListenSpan | None:
        speed = self._sampling.crop_speed
        crop = self._clip.crop(segment.start, segment.end, speed)
        count = self._family.num_audio_tokens(crop.num_samples)
        ids = tuple(self._family.audio_ids(count))
        if self._length + len(ids) >= self._engine.context:
            self._length = self._engine.context
            return None
        first = seconds_to_samples(segment.start)
        self._hear(AudioInput(crop, f"{self._clip.hash}:{first}+{crop.num_samples}@{speed}"))
        self._length += len(ids)
        self._waits_for_sound = True
        return ListenSpan(segment, ids, count)

    def close(self) -> None:
        self._engine.close_stream(self)

    def _hear(self, sound: AudioInput) -> None:
        self._ids += self._family.audio_ids(1)
        self._sounds.append(sound)

    async def run(self, feed: Feed) -> GeneratedSpan:
        """`decode`, in the engine's event loop."""
        self._decoding = asyncio.current_task()
        try:
            return await self._run(feed)
        except BaseException as error:
            await self.drop()
            if isinstance(error, (asyncio.CancelledError, EngineError)) or not isinstance(error, Exception):
                raise
            raise EngineError(f"{type(error).__name__}: {error}") from error
        finally:
            self._decoding = None

    async def end(self) -> None:
        """Cancel what is awaited and free the place, in the engine's event loop."""
        if self._decoding is not None:
            self._decoding.cancel()
            await asyncio.wait([self._decoding])
        await self.drop()

    async def drop(self) -> None:
        """Give the request up; a later `run` begins a new one."""
        request, self._request = self._request, None
        if request is not None:
            self._engine.room.leave(request)
            await request.close()

    async def _run(self, feed: Feed) -> GeneratedSpan:
        if self.full:
            raise EngineError("the context window is full")
        written = _Written()
        began = time.perf_counter()
        errors = 0
        while True:
            if self._request is not None and not self._engine.room.reserve(self._request, self._length + 1):
                await self.drop()
            fresh = self._request is None
            request = await self._tell()
            paused = stopped = False
            while not (paused or stopped):
                out = await request.receive()
                if out.outputs[0].finish_reason == "error" and errors < _RETRIES:
                    errors += 1
                    break
                if fresh:
                    self._check(out)
                    fresh = False
                began = self._spend(began)
                completion = out.outputs[0]
                stopped = completion.finish_reason is not None
                if completion.finish_reason not in (None, "stop", "length"):
                    raise EngineError(f"vLLM ended the request ({completion.finish_reason})")
                tokens, logprobs = completion.token_ids, completion.logprobs
                for place, token in enumerate(tokens):
                    logprob = logprobs.logprobs[logprobs.start_indices[place]]
                    paused = self._take(token, logprob, written, feed)
                    if paused:
                        stopped = stopped and place + 1 == len(tokens)
                        break
            if stopped:
                # vLLM drops the token that it sampled last, so that one is sent again with what comes next.
                self._told, self._told_sounds = len(self._ids) - 1, len(self._sounds)
            else:
                await self.drop()
            if paused:
                return written.span()

    async def _tell(self) -> Request:
        """Send vLLM the part of the context that it does not have yet."""
        params = self._params()
        if self._request is None:
            self._request = Request(self._engine.llm, params)
            self._told = self._told_sounds = 0
        await self._request.send(self._ids[self._told :], self._sounds[self._told_sounds :], params)
        return self._request

    def _params(self) -> SamplingParams:
        sampling, seed = self._sampling, None
        if sampling.temperature > 0 and sampling.seed is not None:
            # Each request seeds its own random numbers; with one seed for all they would repeat.
            digest = hashlib.sha256(f"{sampling.seed}:{self._length}".encode()).digest()
            seed = int.from_bytes(digest[:8], "little") >> 1
        room = self._engine.context - self._length
        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p if sampling.temperature > 0 else 1.0,
            seed=seed,
            max_tokens=min(room, max(sampling.max_tokens - self._sampled, 1)),
            stop_token_ids=self._engine.stops,
            ignore_eos=True,
            detokenize=False,
            logprobs=0,
            flat_logprobs=True,
            output_kind=RequestOutputKind.DELTA,
        )

    def _check(self, out: RequestOutput) -> None:
        """Raises EngineError where vLLM's context has another length than the trace's."""
        told = len(out.prompt_token_ids or ())
        if told != self._length:
            raise EngineError(f"vLLM made {told} tokens of a context of {self._length}; this is a bug in relisten")

    def _take(self, token: int, logprob: float, written: _Written, feed: Feed) -> bool:
        """Record a sampled token, and return whether to pause behind it.

        Raises:
            EngineError: its log-prob is no number.
        """
        if not math.isfinite(logprob):
            raise EngineError(NO_NUMBERS)
        end_of_turn = token in self._family.eos_ids
        piece = self._decoder.flush() if end_of_turn else self._decoder.push(token)
        self._ids.append(token)
        self._length += 1
        self._sampled += 1
        written.ids.append(token)
        written.logprobs.append(logprob)
        written.pieces.append(piece)
        return feed(piece, end_of_turn) or end_of_turn or self.full

    def _spend(self, began: float) -> float:
        now = time.perf_counter()
        phase = "prefill" if not self._heard_prompt else "listen" if self._waits_for_sound else "decode"
        self._heard_prompt, self._waits_for_sound = True, False
        spent: dict[str, Any] = {phase: getattr(self.timings, phase) + now - began}
        self.timings = replace(self.timings, **spent)
        return now


class _Written:
    """What one `decode` has sampled so far."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.pieces: list[str] = []

    def span(self) -> GeneratedSpan:
        ends = tuple(accumulate(map(len, self.pieces)))
        return GeneratedSpan(tuple(self.ids), tuple(self.logprobs), "".join(self.pieces), ends)
