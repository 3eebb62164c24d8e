"""Prediction files: writing ours in the official formats, and reading and scoring anybody's, however they look.

Read are one JSON list of objects, one object a line, or one object that maps ids to answers. Rows may be the
official ones with the answer under a further key, or just `id` and answer where the benchmark's own data is given;
traces that `relisten ask` wrote are read, too.

What the official script prints counts rows as it does: a row without the key leaves the total, one that stands
twice counts twice. Our own scores go over the benchmark: each row once (its first prediction); a row that the file
lacks, or has with something that is no text, is one without an answer. Leaving out hard rows gains nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relisten.errors import InputError
from relisten.evaluate.benchmarks.base import BadRow, Benchmark, Official, read_metadata, read_text, unique
from relisten.evaluate.benchmarks.questions import find_breakdowns
from relisten.evaluate.results import Run, groups_of
from relisten.evaluate.scoring import Graded, Outcome, Rule, Scorecard, chosen, grade, scorecard, string_match
from relisten.evaluate.summary import Failure, Reference, Summary, summarize
from relisten.files import write_whole
from relisten.jsonl import dump_row
from relisten.protocol import Finish, parse_answer
from relisten.question import Question

KEYS = ("answer_prediction", "model_output", "model_prediction", "prediction", "response", "output")
"""Keys under which files are known to hold the answer, after the benchmark's own."""
_TOLD = 5  # examples of a problem that are shown


@dataclass(frozen=True)
class Prediction:
    """One row of a prediction file. `text` is None where the key is missing, holds no text (`problem`), or the row
    is the trace of an answer that failed (`error`)."""

    id: str
    text: str | None
    row: Mapping[str, Any]
    problem: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class PredictionFile:
    """A prediction file as read."""

    path: Path
    key: str
    rows: tuple[Prediction, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class FileScore:
    """Scores of a prediction file: as the official script counts (None for a benchmark without one), and ours."""

    official: Scorecard | None
    ours: Summary


def write_predictions(run: Run, official: Official) -> Path:
    """Write a run's answers as the official script takes them, into the run folder.

    An answer that is missing is an empty text, which the script counts as wrong; a row that failed comes without
    the key, and the script leaves it out.
    """
    rows = []
    for result in run.rows:
        if result.question is None:
            continue
        row = {key: value for key, value in result.question.metadata.items() if key != official.output_key}
        if result.trace is not None and result.error is None:
            row[official.output_key] = _given(result.prediction, result.question, official)
            if official.thinking_key is not None:
                row[official.thinking_key] = thinking(result.trace.text)
        rows.append(row)
    path = run.folder / official.file_name
    if official.lines:
        write_whole(path, "".join(dump_row(row, allow_nan=True) for row in rows))
    else:
        write_whole(path, json.dumps(rows, indent=1) + "\n")
    return path


def thinking(text: str) -> str:
    """What a response says before its answer, without the tags around it."""
    return text.partition("<answer>")[0].replace("<think>", "").replace("</think>", "").strip()


def _given(prediction: str | None, question: Question, official: Official) -> str:
    if prediction is None or not official.letters:
        return prediction or ""
    number = chosen(prediction, question.choices)
    return "" if number is None else chr(ord("A") + number)


def read_predictions(path: Path, official: Official | None = None, key: str | None = None) -> PredictionFile:
    """Read a prediction file; a row that is wrong is told of and never stops the others.

    Args:
        key: where rows hold the answer; None takes the benchmark's own key, else the first of `KEYS` that is there.

    Raises:
        InputError: the file cannot be read, is neither form, or no row has such a key.
    """
    problems: list[str] = []
    found = list(_objects(path, problems))
    own = (official.output_key,) if official else ()
    wanted = (key,) if key else tuple(dict.fromkeys((*own, *KEYS)))
    keys = [name for name in wanted if any(name in row for _, row in found)]
    if not keys and any(is_trace(row) for _, row in found):
        keys = ["answer"]
    if not keys:
        seen = sorted({str(name) for _, row in found for name in row})
        raise InputError(
            f"{path}: no row has an answer under {' or '.join(wanted)}; "
            f"name its key with --key (there are {', '.join(seen[:12]) or 'none'})"
        )
    rows = []
    for number, row in found:
        identifier = row.get("id")
        if isinstance(identifier, bool) or not isinstance(identifier, (str, int)) or not str(identifier).strip():
            problems.append(f"row {number}: id is {_short(identifier)}; it must be a text")
            continue
        rows.append(_prediction(str(identifier), row, keys[0]))
    problems += _told("no text under the key", [f"{p.id}: {p.problem}" for p in rows if p.problem])
    return PredictionFile(path, keys[0], tuple(rows), tuple(problems))


def first_predictions(rows: Iterable[Prediction]) -> dict[str, Prediction]:
    """The row that counts for each id: the first that did not fail, where there is one."""
    first: dict[str, Prediction] = {}
    for row in rows:
        if row.id not in first or first[row.id].error is not None:
            first[row.id] = row
    return first


def score_predictions(benchmark: Benchmark, file: PredictionFile, data: Path | None = None) -> FileScore:
    """Score a prediction file against the benchmark's data, or against the references in its own rows.

    Raises:
        InputError: there is no such data, or no row of it says what is right.
    """
    questions, failures = known_questions(benchmark, file, data)
    by_id = {question.id: question for question in questions}
    problems = [*file.problems, *_compare(file, by_id, data is not None)]
    first = first_predictions(file.rows)
    keys = benchmark.breakdowns
    if not keys:
        keys = tuple(key for key in find_breakdowns(questions) if key not in (file.key, *KEYS))
    graded = []
    failed = []
    for question in questions:
        given = first.get(question.id)
        outcomes: Mapping[Rule, Outcome]
        if given is not None and given.error is not None:
            outcomes = dict.fromkeys(Rule, Outcome.FAILED)
            failed.append(Failure(given.id, given.error))
        else:
            outcomes = _outcomes(given.text if given else None, question)
        graded.append(Graded(outcomes, groups_of(question, keys)))
    graded += [Graded(dict.fromkeys(Rule, Outcome.FAILED), {}) for _ in failures]
    ours = summarize(
        f"{benchmark.name}, {file.path.name}",
        benchmark.rule,
        keys,
        graded,
        [Reference(question.answer, question.choices) for question in questions],
        failures=(*failures, *failed),
        problems=tuple(problems),
    )
    return FileScore(_as_official(benchmark, file, by_id), ours)


def known_questions(
    benchmark: Benchmark, file: PredictionFile, data: Path | None
) -> tuple[list[Question], list[Failure]]:
    """The questions that a prediction file answers, from the benchmark's data or from its own rows, and bad rows.

    Raises:
        InputError: there is no such data, or no row of it says what is right.
    """
    questions: list[Question] = []
    failures = []
    for row in unique(benchmark.rows(data)) if data is not None else _own_rows(benchmark, file):
        if isinstance(row, Question):
            questions.append(row)
        else:
            failures.append(Failure(row.id, row.error))
    if not any(question.answer is not None for question in questions):
        why = f", the first: {failures[0].error}" if failures else ""
        raise InputError(
            f"{file.path}: there is no row with a known answer{why}; give the benchmark's own data with --data"
        )
    return questions, failures


def _as_official(benchmark: Benchmark, file: PredictionFile, by_id: Mapping[str, Question]) -> Scorecard | None:
    if benchmark.rule is not Rule.OFFICIAL:
        return None
    rows = []
    for prediction in file.rows:
        question = by_id.get(prediction.id)
        if prediction.text is not None and question is not None and question.answer is not None:
            right = string_match(question.answer, prediction.text, question.choices)
            outcomes = {Rule.OFFICIAL: Outcome.RIGHT if right else Outcome.WRONG}
            rows.append(Graded(outcomes, groups_of(question, benchmark.breakdowns)))
    return scorecard(rows, Rule.OFFICIAL, benchmark.breakdowns)


def _outcomes(text: str | None, question: Question) -> dict[Rule, Outcome]:
    """The official rule reads a prediction as it stands; ours read what is between answer tags, if it has them."""
    outcomes = grade(text, question.answer, question.choices)
    if text is not None and "<answer>" in text:
        outcomes |= {
            rule: outcome
            for rule, outcome in grade(parse_answer(text), question.answer, question.choices).items()
            if rule is not Rule.OFFICIAL
        }
    return outcomes


def _compare(file: PredictionFile, by_id: Mapping[str, Question], with_data: bool) -> Iterator[str]:
    counts = Counter(prediction.id for prediction in file.rows)
    yield from _told(
        "rows more than once; the first that did not fail counts",
        [key for key, count in counts.items() if count > 1],
    )
    yield from _told("ids that the benchmark does not have", [key for key in counts if key not in by_id])
    yield from _told("rows missing; they count as without an answer", [key for key in by_id if key not in counts])
    if with_data:
        others = [
            f"{p.id}: {_short(p.row['answer'])}"
            for p in file.rows
            if p.id in by_id and not is_trace(p.row) and _differs(p.row.get("answer"), by_id[p.id].answer)
        ]
        yield from _told("reference answers that are not the benchmark's; the benchmark's count", others)


def _differs(given: object, answer: str | None) -> bool:
    return given is not None and answer is not None and (not isinstance(given, str) or given.strip() != answer)


def _told(what: str, found: Sequence[str]) -> list[str]:
    if not found:
        return []
    more = f", and {len(found) - _TOLD} more" if len(found) > _TOLD else ""
    return [f"{len(found)} {what}: {', '.join(_short(each, 80) for each in found[:_TOLD])}{more}"]


def _own_rows(benchmark: Benchmark, file: PredictionFile) -> Iterator[Question | BadRow]:
    """The questions in a file of official rows; a repeated one is told of elsewhere."""
    seen = set()
    for row in benchmark.rows(file.path):
        if row.id not in seen:
            seen.add(row.id)
            yield row


def _objects(path: Path, problems: list[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    mapping = _mapping(path)
    if mapping is not None:
        for number, (identifier, value) in enumerate(mapping.items(), 1):
            yield (
                number,
                {**value, "id": identifier} if isinstance(value, dict) else {"id": identifier, KEYS[0]: value},
            )
        return
    for number, row in read_metadata(path):
        if isinstance(row, InputError):
            problems.append(str(row))
        else:
            # A run's traces files keep each trace in an envelope.
            yield number, {"id": row.get("id"), **row["trace"]} if isinstance(row.get("trace"), dict) else row


def _mapping(path: Path) -> Mapping[str, Any] | None:
    """The file as one object from ids to answers; None where it is a list, or lines."""
    text = read_text(path)
    if text.lstrip()[:1] != "{":
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return None if not isinstance(found, dict) or "id" in found else found


def _prediction(identifier: str, row: Mapping[str, Any], key: str) -> Prediction:
    if is_trace(row) and row["finish"] == Finish.FAILED:
        return Prediction(identifier, None, row, error=str(row.get("error") or "failed without a word"))
    if key not in row:
        return Prediction(identifier, None, row)
    text = row[key]
    if text is None or isinstance(text, str):
        return Prediction(identifier, text, row)
    return Prediction(identifier, None, row, f"{key} is {_short(text)}")


def is_trace(row: Mapping[str, Any]) -> bool:
    """Whether a row is what `relisten ask` wrote: its answer stands apart, and its whole text under "text"."""
    return "spans" in row and "finish" in row


def _short(value: object, length: int = 60) -> str:
    if isinstance(value, (list, dict)):
        return f"a {type(value).__name__} of {len(value)}"
    text = value[: length + 1] if isinstance(value, str) else repr(value)
    text = text if len(text) <= length else f"{text[:length]}..."
    # What a file holds must neither stop the printing nor steer the terminal.
    return "".join(char if char.isprintable() else "?" for char in text)


def first_problems(problems: Iterable[str], count: int = 20) -> list[str]:
    """The first of many problems, and how many there are besides."""
    found = list(problems)
    more = [f"... and {len(found) - count} more"] if len(found) > count else []
    return [*found[:count], *more]
