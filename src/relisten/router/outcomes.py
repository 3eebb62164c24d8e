"""What becomes of each question on each route: measured once, kept on disk, and gone on with after a kill.

    outcomes.jsonl    a first line that says whose outcomes these are, then one line for each question and route

The first line holds what decides every answer: the reasoner's weights, prompts, format, sampling. Another reasoner
is refused. A line counts for exactly one question as it is asked (text, choices, reference, samples of its clip),
one route, the versions of its tools and what the environment makes these use (which model transcribes, say); one
file may serve any set of questions and routes. What may pass, as a tool that was not done in time, is not kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from relisten.audio import Clip
from relisten.engines.base import Engine
from relisten.engines.drive import answer_or_failure, question_seed, sound_of
from relisten.errors import EngineError, InputError
from relisten.files import LineFile, cut_torn_line, make_folder, telling
from relisten.jsonl import dump_row
from relisten.protocol import FINDINGS_HEAD, Finish, Format, same_answer, system_prompt
from relisten.question import Question
from relisten.router.answering import finding_of, run_tools
from relisten.router.routes import Route, check_routes
from relisten.tools.cache import ToolCache
from relisten.tools.running import PASSING, ToolReport
from relisten.tools.tool import find_tool
from relisten.trace import Sampling

_AT_ONCE: Final = 128
"""Answers in flight: more than an engine's rows, so that none of those waits for a tool."""
_BROKEN: Final = 24  # answers in a row that the engine fails before the work stops
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Outcome:
    """One question on one route."""

    id: str
    route: str
    correct: bool
    answer: str | None
    tool_seconds: float | None
    """Time of its tools, None where one was found in a cache: that says nothing of its cost."""
    answer_seconds: float
    """Wall time of the model, others that were answered beside it included."""
    tokens: int
    """Sampled."""
    listens: int
    failures: tuple[str, ...] = ()
    """Its tools that found nothing out, with the reason: "pitch: too_long"."""
    error: str = ""
    """Why there is no answer, where the model failed."""

    @property
    def lasting(self) -> bool:
        """Whether it is kept: neither the model nor a tool failed in a way that may pass."""
        return not self.error and not any(told.rpartition(" ")[2] in PASSING for told in self.failures)


@dataclass(frozen=True)
class Arrays:
    """Outcomes as (questions, routes) arrays, both in the table's order."""

    correct: NDArray[np.bool_]
    failed: NDArray[np.bool_]
    """A tool of the route found nothing out."""
    tool_seconds: NDArray[np.float64]
    """NaN where it is not known."""
    answer_seconds: NDArray[np.float64]
    tokens: NDArray[np.int64]
    listens: NDArray[np.int64]


@dataclass(frozen=True)
class Outcomes:
    """A whole table: every question on every route."""

    reasoner: str
    questions: tuple[str, ...]
    """Ids."""
    routes: tuple[Route, ...]
    rows: tuple[tuple[Outcome, ...], ...]
    """For each question one for each route."""

    def as_arrays(self) -> Arrays:
        def array(value: Callable[[Outcome], object], dtype: Any) -> NDArray[Any]:
            cells = [[value(one) for one in row] for row in self.rows]
            return np.array(cells, dtype).reshape(len(self.questions), len(self.routes))

        return Arrays(
            correct=array(lambda one: one.correct, np.bool_),
            failed=array(lambda one: bool(one.failures), np.bool_),
            tool_seconds=array(lambda one: np.nan if one.tool_seconds is None else one.tool_seconds, np.float64),
            answer_seconds=array(lambda one: one.answer_seconds, np.float64),
            tokens=array(lambda one: one.tokens, np.int64),
            listens=array(lambda one: one.listens, np.int64),
        )


def measure_routes(
    engine: Engine,
    questions: Sequence[Question],
    routes: Sequence[Route],
    path: str | Path,
    *,
    reasoner: str,
    cache: ToolCache | None = None,
    format: Format = Format.INTERLEAVED,
    sampling: Sampling | None = None,
    at_once: int = _AT_ONCE,
    on_progress: OnProgress | None = None,
) -> Outcomes:
    """Answer every question by every route, as far as `path` does not hold that yet.

    A tool runs once for a question, however many routes it is part of. The same call goes on after a kill; what was
    being answered then is lost.

    Args:
        reasoner: hash of the model's weights.
        format: how the model reasons on routes that may listen.
        at_once: answers in flight.
        on_progress: told how many of how many outcomes are there.

    Raises:
        InputError: a question has no id of its own, no reference, or a sound that cannot be read; a tool is unknown
            or not installed; `path` belongs to another reasoner or cannot be written.
        EngineError: the engine fails one answer after the other.
    """
    routes = check_routes(routes)
    versions = {name: _version(name) for route in routes for name in route.tools}
    _check(questions)
    sampling = sampling or Sampling()
    about = {
        "outcomes": 1,
        "reasoner": reasoner,
        "prompt": _digest([[system_prompt(how) for how in (format, Format.TEXT)], FINDINGS_HEAD]),
        "format": str(format),
        "sampling": asdict(sampling),
    }
    with _Table(Path(path), about) as table:
        work = _Work(engine, routes, versions, table, cache, format, sampling, on_progress)
        rows = asyncio.run(work.all_of(questions, at_once))
    return Outcomes(reasoner, tuple(question.id for question in questions), routes, rows)


class _Work:
    """One call's share of a table."""

    def __init__(
        self,
        engine: Engine,
        routes: tuple[Route, ...],
        versions: Mapping[str, object],
        table: _Table,
        cache: ToolCache | None,
        format: Format,
        sampling: Sampling,
        on_progress: OnProgress | None,
    ) -> None:
        self._engine = engine
        self._routes = routes
        self._versions = versions
        self._table = table
        self._cache = cache
        self._format = format
        self._sampling = sampling
        self._on_progress = on_progress
        self._done = self._total = self._broken = 0

    async def all_of(self, questions: Sequence[Question], at_once: int) -> tuple[tuple[Outcome, ...], ...]:
        self._total = len(questions) * len(self._routes)
        places = asyncio.Semaphore(max(1, at_once // len(self._routes)))

        async def one(question: Question) -> tuple[Outcome, ...]:
            async with places:
                return await self._question(question)

        return tuple(await asyncio.gather(*map(one, questions)))

    async def _question(self, question: Question) -> tuple[Outcome, ...]:
        clip = await sound_of(question)
        asked = replace(question, audio=clip)
        keys = {route: self._key(asked, clip, route) for route in self._routes}
        found = {route: kept for route in self._routes if (kept := self._table.get(keys[route])) is not None}
        self._tell(len(found))
        missing = [route for route in self._routes if route not in found]
        names = tuple(dict.fromkeys(name for route in missing for name in route.tools))
        reports = dict(zip(names, await run_tools(clip, names, self._cache), strict=True))

        async def one(route: Route) -> Outcome:
            outcome = await self._route(asked, route, [reports[name] for name in route.tools])
            if outcome.lasting:
                self._table.add(keys[route], outcome)
            self._tell(1)
            return outcome

        found |= zip(missing, await asyncio.gather(*map(one, missing)), strict=True)
        return tuple(found[route] for route in self._routes)

    async def _route(self, question: Question, route: Route, reports: Sequence[ToolReport]) -> Outcome:
        sampling = self._sampling
        if sampling.seed is not None:
            sampling = replace(sampling, seed=question_seed(sampling.seed, question))
        told = replace(question, findings=(*question.findings, *map(finding_of, reports)))
        how = route.format(self._format)
        trace = await answer_or_failure(self._engine, told, format=how, sampling=sampling)
        failed = trace.finish is Finish.FAILED
        ours = failed and trace.spans  # without a prompt, the question is to blame
        self._broken = self._broken + 1 if ours else 0
        if self._broken == _BROKEN:
            raise EngineError(
                f"the engine failed {_BROKEN} answers in a row, the last with: {trace.error}. What was measured is "
                "kept; mend the engine and give the same command again"
            )
        assert question.answer is not None  # looked at before
        return Outcome(
            id=question.id,
            route=route.name,
            correct=same_answer(trace.answer, question.answer),
            answer=trace.answer,
            tool_seconds=None if any(r.cached for r in reports) else sum(r.seconds for r in reports),
            answer_seconds=trace.timings.total,
            tokens=sum(trace.loss_mask),
            listens=len(trace.listens),
            failures=tuple(f"{r.tool}: {r.failure}" for r in reports if r.failure is not None),
            error=(trace.error or "failed without a word") if failed else "",
        )

    def _key(self, question: Question, clip: Clip, route: Route) -> str:
        asked = [question.id, question.text, question.choices, question.answer, question.findings, clip.hash]
        return _digest([asked, route.name, [self._versions[name] for name in route.tools]])

    def _tell(self, more: int) -> None:
        self._done += more
        if more and self._on_progress is not None:
            self._on_progress(self._done, self._total)


class _Table:
    """The file: opened, checked, read, and grown by whole lines. Several runs may have it open: they take turns."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self._path = path
        self._rows: dict[str, Outcome] = {}
        self._lines = LineFile(path)
        make_folder(path.parent)
        with self._turn():
            self._read(about)

    def get(self, key: str) -> Outcome | None:
        return self._rows.get(key)

    def add(self, key: str, outcome: Outcome) -> None:
        self._rows[key] = outcome
        with self._turn():
            self._lines.append(dump_row({"key": key} | asdict(outcome)))

    def __enter__(self) -> _Table:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()

    def _read(self, about: Mapping[str, Any]) -> None:
        lines = self._path.read_bytes().splitlines()
        if not lines:
            self._lines.append(dump_row(about))
            return
        try:
            first, *rows = map(json.loads, lines)
            kept = {row["key"]: outcome for row in rows if (outcome := _outcome(row)).lasting}
            others = [name for name, value in about.items() if first[name] != value]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self._path}: holds no outcomes of routes ({type(error).__name__}: {error}); give another path"
            ) from None
        if others:
            before, now = first[others[0]], about[others[0]]
            raise InputError(
                f"{self._path}: was measured with another {others[0]} ({before}, now {now}); give another path"
            )
        self._rows = kept

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Nobody else writes; a line whose writer was killed in the middle of it is cut off."""
        with telling(self._path), self._path.open("ab") as file:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            cut_torn_line(self._path)
            yield


def _outcome(row: Mapping[str, Any]) -> Outcome:
    values = {part.name: row[part.name] for part in fields(Outcome)}
    return Outcome(**values | {"failures": tuple(values["failures"])})


def _version(name: str) -> object:
    """What tells two forms of a tool apart, as JSON."""
    tool = find_tool(name)
    if need := tool.need:
        raise InputError(f"route {name}: its tool {need}")
    return [tool.version, tool.surroundings] if tool.surroundings else tool.version


def _check(questions: Sequence[Question]) -> None:
    seen: set[str] = set()
    for question in questions:
        if not question.id or question.id in seen:
            raise InputError(f"question {question.id or '(no id)'}: every question needs an id of its own")
        seen.add(question.id)
        if question.answer is None:
            raise InputError(f"question {question.id}: has no reference answer, so no route is right or wrong")


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
