"""From labelled clips to EAQA-SFT and EAQA-RL: caption, write, check, judge, split (Echo, section 3.2).

What is written is a function of the manifest, the settings and the replies alone: rows stand in the manifest's
order, however many requests were under way. A run that was cut short is run again; every reply it had paid for
comes from the store, and the rest is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from typing import Final

from relisten.audio import Clip
from relisten.data.examples import Example
from relisten.data.filters import same_question_key
from relisten.data.llm.caption import caption
from relisten.data.llm.facts import Captions, has_timed_facts
from relisten.data.llm.judge import Verdict, judge
from relisten.data.llm.write import Draft, write
from relisten.data.manifest import ClipRecord
from relisten.data.structure import question_flaws, response_flaws
from relisten.errors import InputError
from relisten.llm.chat import AudioPart
from relisten.llm.client import Client
from relisten.llm.errors import BadReplyError, EndpointError, StopRunError
from relisten.llm.limits import Budget
from relisten.llm.tasks import WINDOW, in_order

DEFAULT_COUNT: Final = 3


@dataclass(frozen=True)
class Crew:
    """The three models."""

    captioner: Client
    writer: Client
    judge: Client

    @property
    def width(self) -> int:
        """How many clips may be under way at once."""
        clients = (self.captioner, self.writer, self.judge)
        return WINDOW * max(client.endpoint.concurrency for client in clients)


@dataclass(frozen=True)
class Discarded:
    """A question, or a whole clip, that was left out for good, and why."""

    clip: str
    reason: str
    """"no_labels", "no_caption", "no_questions", "structure", "duplicate", "no_verdict" or "qa_invalid"."""
    detail: str
    question: str = ""
    choices: tuple[str, ...] = ()
    answer: str = ""
    reasoning: str = ""


@dataclass(frozen=True)
class ClipResult:
    """What became of one clip. `error` is set where it could not be finished; the next run takes it up again."""

    clip: str
    record: ClipRecord | None = None
    captions: Captions | None = None
    sft: tuple[Example, ...] = ()
    rl: tuple[Example, ...] = ()
    discarded: tuple[Discarded, ...] = ()
    error: str = ""
    stopped: bool = False
    """Not finished because the run ended, rather than for a fault of its own."""


async def synthesize(
    records: Iterable[ClipRecord | InputError], crew: Crew, budget: Budget, *, count: int = DEFAULT_COUNT
) -> AsyncIterator[ClipResult]:
    """The results of all clips, in order. Once `budget` is closed, by whoever closed it, nothing is bought any more
    and what is in the store still becomes results.

    Args:
        records: a bad row of the manifest becomes a result with an error.
        count: questions asked for a clip.
    """

    async def one(record: ClipRecord | InputError) -> ClipResult:
        if isinstance(record, InputError):
            return ClipResult("", error=str(record))
        try:
            return await process(record, crew, count)
        except StopRunError as error:
            budget.close(str(error))
            return ClipResult(record.id, record, error=str(error), stopped=True)
        except (EndpointError, InputError) as error:
            return ClipResult(record.id, record, error=str(error))

    async for result in in_order(records, one, crew.width):
        yield result


async def process(record: ClipRecord, crew: Crew, count: int) -> ClipResult:
    """All steps of one clip.

    Raises:
        EndpointError: a request failed for good, or none can be made.
        InputError: the clip cannot be read, or is not the one that was labelled.
    """
    if not has_timed_facts(record):
        return _dropped(record, "no_labels", "no timed event, speech or music to ask about")
    if not record.hash:
        record = replace(record, hash=(await asyncio.to_thread(Clip.load, record.audio)).hash)
    try:
        captions = await caption(crew.captioner, sound_of(record))
    except BadReplyError as error:
        return _dropped(record, "no_caption", str(error))
    try:
        written = await write(crew.writer, record, captions, count)
    except BadReplyError as error:
        return replace(_dropped(record, "no_questions", str(error)), captions=captions)
    discarded = [
        _discarded(record, draft, "structure", "; ".join(f"{flaw.kind}: {flaw.message}" for flaw in flaws))
        for draft, flaws in written.rejected
    ]
    fresh: dict[bytes, Example] = {}
    for example in written.examples:
        if fresh.setdefault(same_question_key(example), example) is not example:
            discarded.append(_left_out(record.id, example, "duplicate", "the clip has this question already"))
    examples = list(fresh.values())
    verdicts = await asyncio.gather(
        *(judge(crew.judge, record, captions, example) for example in examples), return_exceptions=True
    )
    result = ClipResult(record.id, record, captions, discarded=tuple(discarded))
    for example, verdict in zip(examples, verdicts, strict=True):
        result = settle(result, example, verdict)
    return result


def settle(result: ClipResult, example: Example, verdict: Verdict | BaseException) -> ClipResult:
    """The result with one more example, put where its verdict says.

    Raises:
        BaseException: what came in place of a verdict, where it is not the judge's own failure to give one.
    """
    if isinstance(verdict, BadReplyError):
        return _without(result, example, "no_verdict", str(verdict))
    if isinstance(verdict, BaseException):
        raise verdict
    if not verdict.qa_valid:
        return _without(result, example, "qa_invalid", verdict.qa_problem)
    if example.response and verdict.cot_valid:
        return replace(result, sft=(*result.sft, example))
    return replace(result, rl=(*result.rl, without_response(example, verdict.cot_problem)))


async def rejudge(
    cases: Iterable[tuple[Example, ClipRecord, Captions | None] | InputError], client: Client, budget: Budget
) -> AsyncIterator[ClipResult]:
    """Judges examples that are there already, whoever made them; one result for each, in order.

    Structural flaws discard an example before anything is paid. One without a response is judged as a question.
    """

    async def one(case: tuple[Example, ClipRecord, Captions | None] | InputError) -> ClipResult:
        if isinstance(case, InputError):
            return ClipResult("", error=str(case))
        example, record, captions = case
        result = ClipResult(record.id, record)
        flaws = question_flaws(example)
        if example.response:
            flaws += response_flaws(example, record.duration)
        if flaws:
            return _without(result, example, "structure", "; ".join(f"{f.kind}: {f.message}" for f in flaws))
        try:
            return settle(result, example, await judge(client, record, captions, example))
        except BadReplyError as error:
            return settle(result, example, error)
        except StopRunError as error:
            budget.close(str(error))
            return replace(result, error=str(error), stopped=True)
        except EndpointError as error:
            return replace(result, error=str(error))

    async for result in in_order(cases, one, WINDOW * client.endpoint.concurrency):
        yield result


def without_response(example: Example, problem: str) -> Example:
    """The example for reinforcement learning: question and answer stay, the reasoning that was not good goes."""
    question = example.question
    metadata = {**question.metadata, "cot_problem": problem} if problem else question.metadata
    return replace(example, response="", question=replace(question, metadata=metadata))


def sound_of(record: ClipRecord) -> AudioPart:
    """The clip as a message carries it; when it has to be sent, it must still be what the labels were made for."""

    def load() -> Clip:
        clip = Clip.load(record.audio)
        if record.hash and clip.hash != record.hash:
            raise InputError(
                f"{record.audio}: is not the sound that clip {record.id!r} was labelled on; import again"
            )
        return clip

    return AudioPart(record.hash, record.duration, load)


def _dropped(record: ClipRecord, reason: str, detail: str) -> ClipResult:
    return ClipResult(record.id, record, discarded=(Discarded(record.id, reason, detail),))


def _discarded(record: ClipRecord, draft: Draft, reason: str, detail: str) -> Discarded:
    return Discarded(record.id, reason, detail, draft.text, draft.choices, draft.answer, draft.reasoning)


def _without(result: ClipResult, example: Example, reason: str, detail: str) -> ClipResult:
    return replace(result, discarded=(*result.discarded, _left_out(result.clip, example, reason, detail)))


def _left_out(clip: str, example: Example, reason: str, detail: str) -> Discarded:
    question = example.question
    return Discarded(clip, reason, detail, question.text, question.choices, question.answer or "", example.response)
