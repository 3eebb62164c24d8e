"""A run folder and what stands in it. Written by `relisten.evaluate.runner`, read by scores and reports.

    runs/x/
      config.json          `RunConfig`: all that decides the answers; another config is refused
      questions.jsonl      one line a row of the benchmark, in its order
      traces-<worker>.jsonl   one line a finished question: {"id": ..., "trace": {...}}
      workers/<worker>.json   who wrote them: versions, git state, device, model path, host, command
      claims/              who is answering what, while a run goes on
      summary.json         the scores, once every row is finished (`relisten.evaluate.summary`)
      predictions.json(l)  the answers in the official scripts' format, where the benchmark has one

Any number of processes, one after the other or at once, write traces files; a row that was answered twice counts
once. A run that is not finished reads as well as one that is: its other rows are `Outcome.PENDING`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from relisten.errors import InputError
from relisten.evaluate.benchmarks.base import BadRow, question_from_json
from relisten.evaluate.scoring import Graded, Outcome, Outcomes, Rule, grade
from relisten.jsonl import parse_row
from relisten.protocol import Finish, Format
from relisten.question import Question
from relisten.trace import Sampling, Trace

CONFIG = "config.json"
QUESTIONS = "questions.jsonl"
SUMMARY = "summary.json"
TRACES = "traces-*.jsonl"


@dataclass(frozen=True)
class RunConfig:
    """All that decides the answers of a run. Paths are not part of it: a run may go on elsewhere."""

    benchmark: str
    questions: str
    """SHA-256 over ids, texts, choices and references of all rows."""
    model: str
    """Name, for tables; `model_hash` is what counts."""
    model_hash: str
    engine: str
    dtype: str
    format: Format
    temperature: float
    top_p: float
    seed: int
    """Each question draws its own from this and from its id and text."""
    max_tokens: int
    max_listens: int
    silent: bool
    """Control: every clip was replaced by silence of the same length."""
    prompt: str
    """The system prompt."""
    rule: Rule
    """The rule to show where there is room for one."""
    breakdowns: tuple[str, ...]
    """Metadata keys by which scores are broken down."""
    router: str = ""
    """What chose a route for each question, as `relisten.evaluate.provenance.router_name` tells it; "" for none."""
    crop_speed: float = 1.0

    @property
    def sampling(self) -> Sampling:
        """Of all questions; each draws its own seed from this one."""
        return Sampling(**{part.name: getattr(self, part.name) for part in fields(Sampling)})

    def to_json(self) -> dict[str, Any]:
        changed = {"format": str(self.format), "rule": str(self.rule), "breakdowns": list(self.breakdowns)}
        return asdict(self) | changed

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunConfig:
        """Raises InputError for an object that is not a run's config."""
        try:
            typed = {
                "format": Format(data["format"]),
                "rule": Rule(data["rule"]),
                "breakdowns": tuple(data["breakdowns"]),
            }
            return cls(**{**data, **typed})
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"not a run's config ({error}); it is written by relisten eval") from None


@dataclass(frozen=True)
class ResultRow:
    """A row of the benchmark with what became of it.

    `question.clip()` gives the sound, also where it is simulated and no file holds it. `question.metadata` has
    what the benchmark says of the row; `events` in it (list of {"onset", "offset", "label"} in seconds) and
    `segments` (list of [start, end]: what a reference answer listens to) are there for simulated scenes.
    """

    index: int
    id: str
    question: Question | None
    """None where the row itself was bad; `error` says why."""
    trace: Trace | None
    """None where it was not asked yet, or cannot be."""
    error: str | None = None
    """Why it failed, for `Outcome.FAILED`."""
    outcomes: Outcomes = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    """Its value in each breakdown."""

    @property
    def prediction(self) -> str | None:
        """What the model answered; None where it gave none or the row failed."""
        return None if self.trace is None or self.error is not None else self.trace.answer

    def outcome(self, rule: Rule = Rule.OFFICIAL) -> Outcome:
        return self.outcomes[rule]

    @property
    def graded(self) -> Graded:
        return Graded(self.outcomes, self.groups)


@dataclass(frozen=True)
class Run:
    """A run folder as read: `rows` in the benchmark's order, whether finished or not."""

    folder: Path
    config: RunConfig
    rows: tuple[ResultRow, ...]
    workers: tuple[Mapping[str, Any], ...] = ()
    problems: tuple[str, ...] = ()
    """Lines that could not be read or belong to no row; they count for nothing."""

    @cached_property
    def by_id(self) -> Mapping[str, ResultRow]:
        return {row.id: row for row in self.rows}

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def finished(self) -> int:
        return sum(row.outcome() is not Outcome.PENDING for row in self.rows)

    @property
    def failed(self) -> tuple[ResultRow, ...]:
        return tuple(row for row in self.rows if row.outcome() is Outcome.FAILED)


def read_run(folder: str | Path) -> Run:
    """Everything in a run folder.

    Raises:
        InputError: it is no run folder, or its config or questions cannot be read. Bad lines among the traces are
            `problems`, and their rows pending.
    """
    folder = Path(folder)
    config = read_config(folder)
    if config is None:
        raise InputError(f"{folder}: is no run folder (it has no {CONFIG}); give the --out of a relisten eval")
    problems: list[str] = []
    traces: dict[str, Trace] = {}
    for path in sorted(folder.glob(TRACES)):
        for line in read_lines(path, problems):
            keep_trace(traces, line, path, problems)
    rows = tuple(_result(number, row, traces, config) for number, row in enumerate(_read_rows(folder)))
    known = {row.id for row in rows}
    problems += [f"trace of {id!r}: no row of the benchmark has this id" for id in traces if id not in known]
    return Run(folder, config, rows, tuple(_workers(folder)), tuple(problems))


def read_config(folder: Path) -> RunConfig | None:
    """The config of a run folder; None where it has none.

    Raises:
        InputError: it is there and cannot be read.
    """
    try:
        return RunConfig.from_json(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / CONFIG}: cannot be read ({error}); restore it, or begin a new run") from None


def _read_rows(folder: Path) -> Iterator[Question | BadRow]:
    """The rows of a run folder, in order.

    Raises:
        InputError: the file is missing or damaged.
    """
    path = folder / QUESTIONS
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        for line in lines[:-1]:
            yield question_from_json(json.loads(line))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); restore it, or begin a new run") from None


def read_lines(path: Path, problems: list[str]) -> Iterator[Mapping[str, Any]]:
    """The objects in a traces file. A torn last line (its writer was killed) is passed over in silence, any other
    line that is no object with an id is told of in `problems`."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            row = parse_row(line, f"{path.name}:{number}")
            if isinstance(row, InputError):
                problems.append(str(row))
            elif not isinstance(row[1].get("id"), str):
                problems.append(f"{row[0]}: id {row[1].get('id')!r} is no text")
            else:
                yield row[1]


def keep_trace(traces: dict[str, Trace], line: Mapping[str, Any], path: Path, problems: list[str]) -> None:
    """Add a line's trace. Of several for one row the first that did not fail counts."""
    kept = traces.get(line["id"])
    if kept is None or kept.finish is Finish.FAILED:
        try:
            new = Trace.from_json(line["trace"])
        except (InputError, KeyError, TypeError) as error:
            problems.append(f"{path.name}: row {line['id']!r}: {error}")
            return
        if kept is None or new.finish is not Finish.FAILED:
            traces[line["id"]] = new


def _result(number: int, row: Question | BadRow, traces: Mapping[str, Trace], config: RunConfig) -> ResultRow:
    if isinstance(row, BadRow):
        outcomes = dict.fromkeys(Rule, Outcome.FAILED)
        return ResultRow(number, row.id, None, None, row.error, outcomes)
    groups = groups_of(row, config.breakdowns)
    trace = traces.get(row.id)
    if trace is None:
        return ResultRow(number, row.id, row, None, None, dict.fromkeys(Rule, Outcome.PENDING), groups)
    if trace.finish is Finish.FAILED:
        error = trace.error or "failed without a word"
        return ResultRow(number, row.id, row, trace, error, dict.fromkeys(Rule, Outcome.FAILED), groups)
    return ResultRow(number, row.id, row, trace, None, grade(trace.answer, row.answer, row.choices), groups)


def groups_of(question: Question, keys: tuple[str, ...]) -> dict[str, str]:
    """The value of a question in each breakdown; a key that it lacks is left out."""
    found = {key: question.metadata.get(key) for key in keys}
    return {key: str(value) for key, value in found.items() if value is not None}


def _workers(folder: Path) -> Iterator[Mapping[str, Any]]:
    for path in sorted((folder / "workers").glob("*.json")):
        try:
            yield json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # killed while it began: it wrote no trace either
            continue
