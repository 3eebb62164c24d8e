"""Preparing a run folder, and telling how far it is (`relisten.evaluate.results` tells what is in it)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from relisten.errors import InputError
from relisten.evaluate import results
from relisten.evaluate.benchmarks.base import BadRow, Benchmark, digest, question_to_json, unique
from relisten.evaluate.benchmarks.questions import find_breakdowns
from relisten.evaluate.claims import Liveness
from relisten.evaluate.results import RunConfig
from relisten.evaluate.scoring import Outcome, Rule, Tally, grade
from relisten.files import cut_torn_line, make_folder, write_once
from relisten.jsonl import check_limit, dump_json, dump_row, parse_row
from relisten.protocol import Finish, Format, parse_answer, system_prompt
from relisten.question import Question
from relisten.trace import Sampling, Trace

_GREEDY: Final = Sampling(seed=0)


@dataclass(frozen=True)
class Evaluated:
    """What is evaluated, as far as it decides the answers."""

    model: str
    model_hash: str
    engine: str = "native"
    dtype: str = "float32"
    router: str = ""


@dataclass(frozen=True)
class Settings:
    """How it is asked.

    Raises:
        InputError: the sampling has no seed.
    """

    format: Format = Format.INTERLEAVED
    sampling: Sampling = _GREEDY
    """Its seed is one for all questions: each draws its own from it."""
    silent: bool = False
    """Control: silence of the same length in place of every sound."""

    def __post_init__(self) -> None:
        if self.sampling.seed is None:
            raise InputError(
                "seed None: each question of an evaluation draws its own seed from one; give one, such as 0"
            )


@dataclass(frozen=True)
class Progress:
    """Where a run stands."""

    finished: int
    total: int
    tally: Tally
    """By the rule to show, over what is finished; rows that cannot be asked are in `failed`."""
    listens: float
    """Mean number of listens over the answers."""
    waiting: int = 0
    """Rows that other workers have, when nothing else is left."""


@dataclass(frozen=True)
class Brief:
    """What progress needs of a finished row."""

    outcome: Outcome
    listens: int


class RunFolder:
    """A run that was prepared, and how far it is. Made by `prepare`, driven by `relisten.evaluate.runner.work`."""

    def __init__(self, folder: Path, config: RunConfig, rows: Sequence[Question | BadRow]) -> None:
        self.folder = folder
        self.config = config
        self.rows = rows
        self._finished: dict[str, Brief] = {}
        self._read: dict[Path, int] = {}
        self._questions = {row.id: row for row in rows if isinstance(row, Question)}

    @property
    def unfinished(self) -> list[tuple[int, Question]]:
        """(number, question) of the rows to ask; those that failed are among them."""
        rows = enumerate(self.rows)
        return [(number, row) for number, row in rows if isinstance(row, Question) and self.to_ask(row)]

    def check(self) -> None:
        """Raises InputError where another start has taken the folder for a run of another config."""
        _check_same(self.folder, self.config, len(self.rows))

    def to_ask(self, question: Question) -> bool:
        brief = self._finished.get(question.id)
        return brief is None or brief.outcome is Outcome.FAILED

    def refresh(self) -> None:
        """Read what workers, this one included, have written since the last time."""
        for path in sorted(self.folder.glob(results.TRACES)):
            for line in self._new_lines(path):
                question = self._questions.get(line.get("id", ""))
                if question is not None and (brief := _brief(line.get("trace"), question, self.config.rule)):
                    self._keep(question, brief)

    def keep(self, question: Question, trace: Trace) -> None:
        """Note an answer of this process."""
        self._keep(question, _brief_of(trace, question, self.config.rule))

    def progress(self, waiting: int = 0) -> Progress:
        bad = len(self.rows) - len(self._questions)
        tally = Tally.count([*(brief.outcome for brief in self._finished.values()), *[Outcome.FAILED] * bad])
        listens = [brief.listens for brief in self._finished.values() if brief.outcome is not Outcome.FAILED]
        mean = sum(listens) / len(listens) if listens else 0.0
        return Progress(len(self._finished) + bad, len(self.rows), tally, mean, waiting)

    def _keep(self, question: Question, brief: Brief) -> None:
        if self.to_ask(question):  # an answer is never replaced
            self._finished[question.id] = brief

    def _new_lines(self, path: Path) -> Iterator[Mapping[str, Any]]:
        with path.open("rb") as file:
            file.seek(self._read.get(path, 0))
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read[path] = self._read.get(path, 0) + len(line)
                row = parse_row(line, str(path))
                if not isinstance(row, InputError):
                    yield row[1]


def prepare(
    benchmark: Benchmark,
    out: Path,
    evaluated: Evaluated,
    settings: Settings | None = None,
    *,
    data: Path | None = None,
    audio: Path | None = None,
    limit: int | None = None,
) -> RunFolder:
    """Make the run folder `out`, or open the one that is there with the same config.

    Args:
        limit: only the first rows.

    Raises:
        InputError: there is no data, `out` is something else or a run with another config, no sound is where the
            rows say, or the folder cannot be written. Nothing is lost in any case.
    """
    settings = settings or Settings()
    check_limit(limit)
    check_out(out)  # before rows are made, which may take long
    rows: list[Question | BadRow] = []
    for row in unique(benchmark.rows(data, audio)):
        if len(rows) == limit:
            break
        rows.append(row)
    if not any(isinstance(row, Question) for row in rows):
        bad = [row.error for row in rows if isinstance(row, BadRow)]
        why = f"the first of {len(bad)} bad rows: {bad[0]}" if bad else "no row"
        raise InputError(f"{benchmark.name}: there is nothing to ask ({why})")
    _check_sounds(benchmark.name, rows)
    config = RunConfig(
        benchmark=benchmark.name,
        questions=digest(rows),
        **asdict(evaluated),
        format=settings.format,
        **asdict(settings.sampling),
        silent=settings.silent,
        prompt=system_prompt(settings.format),
        rule=benchmark.rule,
        breakdowns=benchmark.breakdowns or find_breakdowns(rows),
    )
    _open(out, config, rows)
    run = RunFolder(out, config, rows)
    liveness = Liveness(out)
    for path in out.glob(results.TRACES):
        if not liveness.alive(path.stem.removeprefix("traces-")):
            cut_torn_line(path)
    run.refresh()
    return run


def _brief_of(trace: Trace, question: Question, rule: Rule) -> Brief:
    if trace.finish is Finish.FAILED:
        return Brief(Outcome.FAILED, 0)
    return Brief(grade(trace.answer, question.answer, question.choices)[rule], len(trace.listens))


def _brief(trace: Any, question: Question, rule: Rule) -> Brief | None:
    """The same from a trace's JSON, without building it; None for what is no trace."""
    try:
        if trace["finish"] == Finish.FAILED:
            return Brief(Outcome.FAILED, 0)
        return Brief(
            grade(parse_answer(trace["text"]), question.answer, question.choices)[rule], len(trace["segments"])
        )
    except (KeyError, TypeError):
        return None


def _check_sounds(name: str, rows: Sequence[Question | BadRow]) -> None:
    """One missing sound is a failed row; when all are missing, the folder is wrong."""
    paths = [row.audio for row in rows if isinstance(row, Question) and isinstance(row.audio, Path)]
    if paths and len(paths) == len([row for row in rows if isinstance(row, Question)]):
        for path in paths:
            if path.exists():
                return
        raise InputError(
            f"{name}: none of the {len(paths)} sounds is there, such as {paths[0]}; name their folder with --audio"
        )


def check_out(out: Path) -> None:
    """Whether `out` can be a run folder, as far as that shows before there is anything to write.

    Raises:
        InputError: it is a file, cannot be written, or holds what is no run.
    """
    there = next((path for path in (out, *out.absolute().parents) if os.path.exists(path)), Path("/"))  # noqa: PTH110  # it never raises
    if not there.is_dir():
        raise InputError(f"{there}: is a file; give a folder as --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{there}: cannot be written; give another --out")
    if there is out and results.read_config(out) is None:
        ours = {results.QUESTIONS, "workers", "claims"}
        foreign = sorted(path.name for path in out.iterdir() if path.name not in ours and path.name[0] != ".")
        if foreign:
            raise InputError(f"{out}: is no run folder and holds {foreign[0]!r}; give a new or an empty --out")


def _open(out: Path, config: RunConfig, rows: Sequence[Question | BadRow]) -> None:
    known = results.read_config(out)
    if known is not None and _differences(known, config) and not _was_begun(out):
        # A start that failed, perhaps on an option that is now another: nothing was answered, so this one counts.
        (out / results.CONFIG).unlink(missing_ok=True)
        _write(out, config, rows)
        known = results.read_config(out)
    if known is None:
        make_folder(out)
        _write(out, config, rows)
    _check_same(out, config, len(rows))


def _write(out: Path, config: RunConfig, rows: Sequence[Question | BadRow]) -> None:
    text = "".join(dump_row(question_to_json(row), allow_nan=True) for row in rows)
    (out / results.QUESTIONS).unlink(missing_ok=True)  # from a start that was killed; nothing was asked yet
    write_once(out / results.QUESTIONS, text)
    write_once(out / results.CONFIG, dump_json(config.to_json(), indent=1) + "\n")


def _was_begun(out: Path) -> bool:
    """Whether there is an answer, or a worker that may be making one."""
    return Liveness(out).others("") or any(b"\n" in path.read_bytes() for path in out.glob(results.TRACES))


def _check_same(out: Path, config: RunConfig, count: int) -> None:
    """
    Raises:
        InputError: the run in `out` has another config than this one of `count` rows.
    """
    known = results.read_config(out)
    if known is None or not (found := _differences(known, config)):
        return
    before = (out / results.QUESTIONS).read_bytes().count(b"\n")
    if "questions" in found and before != count:
        found["questions"] = f"{before} questions instead of {count}"
    raise InputError(
        f"{out}: was begun with {', '.join(found.values())}; give another --out, or the same options as before"
    )


def _differences(known: RunConfig, config: RunConfig) -> dict[str, str]:
    """What decides answers and is not the same, each in words."""
    told = {"questions": "other questions", "model_hash": "another model", "prompt": "another prompt"}
    found = {}
    for part in fields(RunConfig):
        before, now = getattr(known, part.name), getattr(config, part.name)
        if part.name not in ("model", "rule", "breakdowns") and before != now:
            found[part.name] = told.get(part.name, f"{part.name} {before} instead of {now}")
    return found
