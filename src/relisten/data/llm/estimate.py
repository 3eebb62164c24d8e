"""What a run would still cost: every request that is not in the store, priced without being sent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from relisten.data.llm.facts import Captions
from relisten.data.llm.judge import judge_request
from relisten.data.llm.pipeline import Crew, process
from relisten.data.llm.write import Draft, make_example, write_request
from relisten.data.manifest import ClipRecord
from relisten.errors import InputError
from relisten.llm.chat import ChatRequest, Reply
from relisten.llm.endpoint import Endpoint
from relisten.llm.errors import EndpointError, WouldPayError
from relisten.llm.store import ReplyStore, Usage

STEPS: Final = ("caption", "write", "judge")
_ASSUMED: Final[Mapping[str, int]] = {"caption": 120, "write": 350, "judge": 90}
"""Tokens of a reply where none was paid for yet; of `write`, for each question. Reasoning models write more."""
_MEASURED_FROM: Final = 10
_CAPTIONS: Final = Captions(*["twenty words stand for a sentence that nobody has written yet " * 2] * 3)
_DRAFT: Final = Draft(
    "which of the sounds comes right after the second one stops", ("a", "b", "c", "d"), "a", "some word " * 90
)


@dataclass
class Estimate:
    """Requests to pay for, by step."""

    measured: Mapping[str, Usage]
    """What replies of each step used so far."""
    steps: dict[str, Usage] = field(default_factory=lambda: dict.fromkeys(STEPS, Usage()))
    clips: int = 0
    bad: int = 0
    """Rows and clips that cannot be used."""

    def add(self, request: ChatRequest, endpoint: Endpoint, items: int = 1) -> None:
        step = request.step
        known = self.measured.get(step, Usage())
        if known.requests >= _MEASURED_FROM:
            prompt = round(known.prompt_tokens / known.requests)
            completion = round(known.completion_tokens / known.requests)
        else:
            prompt, completion = request.prompt_tokens(), _ASSUMED[step] * items
        self.steps[step] += Usage(1, prompt, completion, endpoint.cost(prompt, completion))


class _Pricer:
    """A client that answers from the store, and else notes what the request would cost."""

    def __init__(self, endpoint: Endpoint, store: ReplyStore, estimate: Estimate, items: int = 1) -> None:
        self.endpoint = endpoint
        self._store = store
        self._estimate = estimate
        self._items = items

    async def complete(self, request: ChatRequest) -> Reply:
        reply = self._store.get(request.key(self.endpoint), self.endpoint.max_tokens)
        if reply is None:
            self._estimate.add(request, self.endpoint, self._items)
            raise WouldPayError(request.step)
        return reply


def estimate_cost(
    records: Iterable[ClipRecord | InputError],
    endpoints: Mapping[str, Endpoint],
    store: ReplyStore,
    count: int,
) -> Estimate:
    """Walk through a run without sending anything. Repairs and retries are not foreseen.

    Args:
        endpoints: by role: captioner, writer, judge.
    """
    estimate = Estimate(store.usage())
    captioner, writer, judge = (endpoints[role] for role in ("captioner", "writer", "judge"))
    crew = Crew(
        _Pricer(captioner, store, estimate),
        _Pricer(writer, store, estimate, count),
        _Pricer(judge, store, estimate),
    )

    async def walk() -> None:
        for record in records:
            if isinstance(record, InputError):
                estimate.bad += 1
                continue
            try:
                await process(record, crew, count)
            except WouldPayError as error:
                _add_later_steps(estimate, record, str(error), writer, judge, count)
            except (EndpointError, InputError):
                estimate.bad += 1
                continue
            estimate.clips += 1

    asyncio.run(walk())
    return estimate


def _add_later_steps(
    estimate: Estimate, record: ClipRecord, at: str, writer: Endpoint, judge: Endpoint, count: int
) -> None:
    """The steps behind the one that would have to be paid for, with texts of a usual length in place of replies."""
    if at == "caption":
        estimate.add(write_request(record, _CAPTIONS, count), writer, count)
    if at in ("caption", "write"):
        request = judge_request(record, _CAPTIONS, make_example(record, _DRAFT, 1))
        for _ in range(count):
            estimate.add(request, judge)
