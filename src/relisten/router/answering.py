"""Answering by a route: decide, run its tools, let the model read what they found, and answer.

Whatever a tool, a policy or a network does, the answer comes; the trace's `routing` says what went wrong. A policy
that looks at the model's own hidden states costs no second reading of the prompt: the answer goes on from the same
cache.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Final

from relisten.audio import Clip
from relisten.engines.base import Engine, LookingStream, Stream
from relisten.engines.drive import OnEvent, complete, failed_trace, seeded, sound_of
from relisten.errors import EngineError, InputError, RelistenError
from relisten.protocol import Format
from relisten.question import Question
from relisten.router.decision import Decision, Policy
from relisten.router.routes import DIRECT, Route
from relisten.tools.cache import ToolCache
from relisten.tools.running import ToolReport, run_tool
from relisten.trace import Routing, Sampling, Trace

_NO_ROOM: Final = "what the tools found does not fit the context window: answered without it"


class Router:
    """Takes a route to each answer: what a policy decides, or always the same.

    Args:
        choice: a policy, or a route.
        cache: where tools keep what they found.
    """

    def __init__(self, choice: Policy | Route, cache: ToolCache | None = None) -> None:
        self.choice = choice
        self.cache = cache
        self._deciding = ThreadPoolExecutor(1, "relisten-policy")

    async def answer(
        self,
        engine: Engine,
        question: Question,
        /,
        *,
        format: Format = Format.INTERLEAVED,
        sampling: Sampling | None = None,
        on_event: OnEvent | None = None,
    ) -> Trace:
        """Like `relisten.engines.drive.answer`; the trace has a `routing`, and `on_event` is told of it.

        Args:
            format: how the model reasons on routes that may listen.

        Raises:
            InputError: as there; or the policy has to look and the engine cannot show.
        """
        began = time.perf_counter()
        sampling = seeded(sampling or Sampling())
        clip = await sound_of(question)
        with ExitStack() as streams:

            def opened(asked: Question, how: Format) -> Stream:
                stream = engine.open(asked, clip, how, sampling)
                streams.callback(stream.close)
                return stream

            looked: LookingStream | None = None
            if isinstance(self.choice, Route):
                route, routing = self.choice, Routing(self.choice.name)
            else:
                if self.choice.looks:
                    looked = _looking(opened(question, format), engine)
                try:
                    decision = await self._decide(self.choice, question, clip, looked)
                except EngineError as error:
                    return failed_trace(question, str(error), format, engine.model)
                route = decision.route
                routing = Routing(route.name, decision.confidence, decision.probabilities, decision.note)
            routing = replace(routing, decision_seconds=time.perf_counter() - began)
            if on_event is not None:
                on_event(routing)
            asked = question
            if route.tools:
                running = time.perf_counter()
                reports = await run_tools(clip, route.tools, self.cache)
                found = tuple(json.loads(json.dumps(report.to_json())) for report in reports)  # as traces are read
                routing = replace(routing, reports=found, tool_seconds=time.perf_counter() - running)
                if on_event is not None:
                    on_event(routing)
                asked = replace(question, findings=(*question.findings, *map(finding_of, reports)))
            how = route.format(format)
            stream: Stream
            if looked is not None and how is format:
                stream = looked
                fits = asked is question or looked.ask_again(asked)
            else:
                if looked is not None:
                    looked.close()  # it holds a slot, which the new one may have to wait for
                try:
                    stream, fits = opened(asked, how), True
                except InputError:
                    stream, fits = opened(question, how), False
            if not fits:
                asked = question
                routing = replace(routing, note="; ".join(filter(None, (routing.note, _NO_ROOM))))
            trace = await complete(
                stream,
                asked,
                clip,
                model=engine.model,
                format=how,
                sampling=sampling,
                began=began,
                on_event=on_event,
            )
        return replace(trace, routing=routing)

    async def _decide(
        self, policy: Policy, question: Question, clip: Clip, looked: LookingStream | None
    ) -> Decision:
        """
        Raises:
            EngineError: the model could not read the prompt.
        """
        look = None if looked is None else await looked.look()
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._deciding, policy.decide, question, clip, look
            )
        except RelistenError as error:
            return Decision(DIRECT, 0.0, note=f"the policy could not decide ({error}): direct")


async def run_tools(clip: Clip, tools: Sequence[str], cache: ToolCache | None = None) -> list[ToolReport]:
    """What tools report of a whole clip, one after the other; none of them raises."""
    return [await asyncio.to_thread(run_tool, tool, clip, cache=cache) for tool in tools]


def finding_of(report: ToolReport) -> str:
    """The line that a model reads of a report."""
    return " ".join(report.text().split())


def _looking(stream: Stream, engine: Engine) -> LookingStream:
    if not isinstance(stream, LookingStream):
        raise InputError(
            f"{engine.model}: this engine shows no hidden states, which the policy decides by; use the native one"
        )
    return stream
