"""Running a benchmark into a run folder.

What holds whatever happens: a finished question is on disk before the next thing is done; a process killed at any
moment loses the questions it was answering and nothing else; the same command goes on from there; any number of
processes on any machines may work on one folder; and an answer depends on the question, the config and the model,
not on order, company or process, since every question draws its own seed.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Final

import numpy as np

from relisten.audio import Clip
from relisten.engines.base import Engine
from relisten.engines.drive import Ask, answer, failed_trace, open_at_once, question_seed
from relisten.errors import EngineError, InputError, RelistenError
from relisten.evaluate.claims import Claims, Liveness, Worker
from relisten.evaluate.provenance import git_state, versions
from relisten.evaluate.run_folder import Progress, RunFolder
from relisten.files import LineFile, write_once
from relisten.jsonl import dump_row
from relisten.protocol import Finish
from relisten.question import Question
from relisten.trace import Trace

_BROKEN: Final = 24  # answers in a row that the engine fails before the run stops
_POLL: Final = 1.0
_TELL: Final = 0.1
_LOOK: Final = 2.0  # seconds between looks at what other workers have finished

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True)
class SilentQuestion(Question):
    """A question whose sound is replaced by silence of the same length."""

    asked: Question

    def clip(self) -> Clip:
        clip = self.asked.clip()
        return Clip(np.zeros(clip.num_samples, np.float32), f"silence for {clip.name}")


def work(
    run: RunFolder,
    engine: Engine,
    *,
    ask: Ask = answer,
    at_once: int | None = None,
    on_progress: OnProgress | None = None,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Answer what is unfinished, together with whatever other workers are on the same folder; returns when every
    row of the run is finished.

    Args:
        ask: how an answer is made; a router's own way, where the run has one.
        at_once: questions that are open at once; None: `open_at_once` of the engine.
        about: written into `workers/` beside versions, git state and machine.

    Raises:
        InputError: an answer could not be written, or the folder is another run's by now.
        EngineError: the engine fails one answer after the other.
    """
    if not run.unfinished:
        return
    if at_once is None:
        at_once = open_at_once(engine)
    if at_once < 1:
        raise InputError(f"at once {at_once}: it must be at least 1")
    liveness = Liveness(run.folder)
    with Worker(run.folder) as worker:
        run.check()  # from here on nobody takes the folder for something else
        lines = LineFile(run.folder / f"traces-{worker.name}.jsonl")
        worker.on_beat = lines.sync
        described = {
            "worker": worker.name,
            "host": socket.gethostname(),
            "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "command": sys.argv,
            "versions": versions(),
            "git": git_state(),
            **(about or {}),
        }
        write_once(run.folder / "workers" / f"{worker.name}.json", json.dumps(described, indent=1) + "\n")
        claims = Claims(run.folder, worker.name, liveness)
        run.refresh()  # others may have finished since it was prepared, and taken their claims away
        try:
            shared = partial(liveness.others, worker.name)
            asyncio.run(_Work(run, engine, ask, claims, lines, at_once, on_progress, shared).go())
        finally:
            lines.close()
    # Only now is this one not at work any more: of several that end together, the last finds nobody.
    liveness.sweep()
    if not liveness.others(worker.name):
        claims.clear()


class _Work:
    """One worker's share of a run."""

    def __init__(
        self,
        run: RunFolder,
        engine: Engine,
        ask: Ask,
        claims: Claims,
        lines: LineFile,
        at_once: int,
        on_progress: OnProgress | None,
        shared: Callable[[], bool],
    ) -> None:
        self._run = run
        self._engine = engine
        self._ask = ask
        self._claims = claims
        self._lines = lines
        self._at_once = at_once
        self._on_progress = on_progress
        self._shared = shared
        self._told = 0.0
        self._looked = time.monotonic()
        self._asked: set[int] = set()
        self._broken = 0

    async def go(self) -> None:
        tasks: set[asyncio.Task[None]] = set()
        self._tell(always=True)
        try:
            while True:
                for question in self._claimable():
                    tasks.add(asyncio.create_task(self._one(question)))
                    if len(tasks) >= self._at_once:
                        tasks = await _some(tasks)
                while tasks:
                    tasks = await _some(tasks)
                self._run.refresh()
                left = [number for number, _ in self._run.unfinished if number not in self._asked]
                self._tell(len(left), always=True)
                if not left:
                    return
                await asyncio.sleep(_POLL)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _claimable(self) -> Iterator[Question]:
        for number, question in self._run.unfinished:
            if number in self._asked or not self._claims.take(number):
                continue
            if self._claims.inherited(number):
                self._run.refresh()  # who had it may have finished it before it went
                if not self._run.to_ask(question):
                    continue
            self._asked.add(number)
            yield question

    async def _one(self, question: Question) -> None:
        config = self._run.config
        ours = True
        try:
            sampling = replace(config.sampling, seed=question_seed(config.seed, question))
            asked = _silenced(question) if config.silent else question
            trace = await self._ask(self._engine, asked, format=config.format, sampling=sampling)
            ours = trace.finish is Finish.FAILED
        except RelistenError as error:
            ours = False  # the row is to blame
            trace = self._failed(question, str(error))
        except Exception as error:
            trace = self._failed(question, f"{type(error).__name__}: {error}")
        self._lines.append(dump_row({"id": question.id, "trace": trace.to_json()}))
        self._run.keep(question, trace)
        self._tell()
        self._broken = self._broken + 1 if ours else 0
        if self._broken == _BROKEN:
            raise EngineError(
                f"the engine failed {_BROKEN} answers in a row, the last with: {trace.error}. What was finished is "
                "kept; mend the engine and give the same command again, which asks the failed ones once more"
            )

    def _failed(self, question: Question, error: str) -> Trace:
        return failed_trace(question, error, self._run.config.format, self._engine.model)

    def _tell(self, waiting: int = 0, *, always: bool = False) -> None:
        now = time.monotonic()
        if self._on_progress is not None and (always or now - self._told >= _TELL):
            self._told = now
            if now - self._looked >= _LOOK:
                self._looked = now
                if self._shared():
                    self._run.refresh()
            self._on_progress(self._run.progress(waiting))


async def _some(tasks: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    """Wait until at least one is done; raises what it raised."""
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    return rest


def _silenced(question: Question) -> Question:
    values = {part.name: getattr(question, part.name) for part in fields(Question)}
    return SilentQuestion(**values, asked=question)
