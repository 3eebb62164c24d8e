"""MMAR-Rubrics: how many of an item's five criteria a model's reasoning meets, as a language model judges it.

Every item of MMAR carries its own criteria, each met or not. The judge sees the question, the reference answer, how
a human reasoned, the criteria, and what the model wrote; it hears nothing. Replies are kept in a store: a run that
was stopped goes on where it was and pays nothing twice. An answer without any reasoning meets none, unasked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from relisten.errors import InputError
from relisten.evaluate.predictions import Prediction, first_predictions, is_trace, thinking
from relisten.evaluate.results import Run, groups_of
from relisten.evaluate.scoring import Outcome, Rule, grade
from relisten.files import write_whole
from relisten.jsonl import dump_json, dump_row
from relisten.llm.chat import ChatRequest, Message
from relisten.llm.errors import EndpointError, StopRunError
from relisten.llm.limits import Budget
from relisten.llm.prompt import read_prompt
from relisten.llm.structured import ask
from relisten.llm.tasks import WINDOW, in_order
from relisten.question import Question

if TYPE_CHECKING:
    from relisten.llm.client import Client

_LONGEST: Final = 20_000  # characters of reasoning that are shown to the judge
PROMPT: Final = read_prompt(__package__, "mmar-rubrics")


@dataclass(frozen=True)
class Criterion:
    """One point of an item's rubric."""

    name: str
    point: str


@dataclass(frozen=True)
class Case:
    """An answer to judge."""

    question: Question
    criteria: tuple[Criterion, ...]
    thinking: str
    prediction: str | None

    @property
    def right(self) -> bool:
        """By the official rule."""
        found = grade(self.prediction, self.question.answer, self.question.choices)
        return found[Rule.OFFICIAL] is Outcome.RIGHT


@dataclass(frozen=True)
class Judged:
    """The verdict on a case. `met` has a place for each criterion; None where the judge gave no usable answer."""

    case: Case
    met: tuple[bool, ...] | None
    reasons: tuple[str, ...] = ()
    error: str | None = None

    @property
    def score(self) -> float | None:
        """Share of the criteria that are met."""
        return None if self.met is None else sum(self.met) / len(self.met)

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.case.question.id,
            "score": self.score,
            "right": self.case.right,
            "criteria": [
                {"name": criterion.name, "met": met, "reason": reason}
                for criterion, met, reason in zip(
                    self.case.criteria, self.met or (), self.reasons or ("",) * len(self.met or ()), strict=False
                )
            ],
            "error": self.error,
        }


def run_cases(run: Run) -> Iterator[Case]:
    """The cases of a run folder; rows that failed or were not asked yet are left out."""
    for row in run.rows:
        if row.question is not None and row.trace is not None and row.error is None:
            yield Case(row.question, criteria_of(row.question), thinking(row.trace.text), row.prediction)


def prediction_cases(
    questions: Iterable[Question], rows: Sequence[Prediction], thinking_key: str
) -> Iterator[Case]:
    """The cases of a prediction file; reasoning stands under `thinking_key`, or before the answer. Rows that failed
    are left out."""
    first = first_predictions(rows)
    for question in questions:
        given = first.get(question.id)
        if given is not None and given.error is None:
            written = given.row.get(thinking_key)
            whole = given.row.get("text") if is_trace(given.row) else given.text
            text = written if isinstance(written, str) else thinking(str(whole or ""))
            yield Case(question, criteria_of(question), text, given.text)


def criteria_of(question: Question) -> tuple[Criterion, ...]:
    """The rubric of an item.

    Raises:
        InputError: it has none.
    """
    rubric = question.metadata.get("rubric")
    try:
        found = tuple(Criterion(str(point["name"]), str(point["scoring_point"])) for point in rubric or ())
    except (TypeError, KeyError):
        found = ()
    if not found:
        raise InputError(f"row {question.id!r}: has no rubric; give the MMAR-meta.jsonl that has them with --data")
    return found


def request(case: Case) -> ChatRequest:
    """What the judge is asked about a case."""
    question = case.question
    count = len(case.criteria)
    parts = [
        f"Question: {question.text}",
        "Choices:",
        *(f"- {choice}" for choice in question.choices),
        f"Right answer: {question.answer}",
        f"An expert's reasoning: {question.metadata.get('thinking') or '(none)'}",
        "",
        "Criteria:",
        *(f"{number}. {c.name}: {c.point}" for number, c in enumerate(case.criteria, 1)),
        "",
        "What the candidate wrote:",
        case.thinking[:_LONGEST],
        f"The candidate's answer: {(case.prediction or '(none)')[:_LONGEST]}",
    ]
    entry = {
        "type": "object",
        "properties": {"reason": {"type": "string"}, "met": {"type": "boolean"}},
        "required": ["reason", "met"],
        "additionalProperties": False,
    }
    schema = {
        "type": "object",
        "properties": {"criteria": {"type": "array", "items": entry, "minItems": count, "maxItems": count}},
        "required": ["criteria"],
        "additionalProperties": False,
    }
    messages = (Message("system", PROMPT.text), Message("user", "\n".join(parts)))
    return ChatRequest("rubrics", PROMPT.version, messages, schema)


async def judge(client: Client, case: Case, budget: Budget) -> Judged:
    """The verdict on one case; an endpoint that fails becomes a verdict with an error, and one that no further
    request can help closes `budget`."""
    if not case.thinking.strip():
        return Judged(case, (False,) * len(case.criteria), ("nothing was written",) * len(case.criteria))
    try:
        entries = (await ask(client, request(case), lambda value: value["criteria"]))[-1]
    except StopRunError as error:
        budget.close(str(error))
        return Judged(case, None, error=budget.closed)
    except EndpointError as error:
        return Judged(case, None, error=str(error))
    met = tuple(entry["met"] for entry in entries)
    return Judged(case, met, tuple(" ".join(entry["reason"].split()) for entry in entries))


async def judge_all(client: Client, cases: Iterable[Case], budget: Budget) -> AsyncIterator[Judged]:
    """Verdicts in the order of the cases. Once `budget`, which is the client's, is closed, nothing is asked any
    more, and what is in the store still becomes verdicts."""

    async def one(case: Case) -> Judged:
        return await judge(client, case, budget)

    async for each in in_order(cases, one, WINDOW * client.endpoint.concurrency):
        yield each


def summarize(judged: Sequence[Judged], keys: Sequence[str]) -> dict[str, Any]:
    """Mean scores from 0 to 1: over all, over right answers, and with wrong answers as 0; then by `keys`."""
    scored = [each for each in judged if each.met is not None]
    groups: dict[str, dict[str, list[Judged]]] = {key: {} for key in keys}
    for each in scored:
        for key, value in groups_of(each.case.question, tuple(keys)).items():
            groups[key].setdefault(value, []).append(each)
    return {
        **_means(scored),
        "not_judged": [{"id": each.case.question.id, "error": each.error} for each in judged if each.met is None],
        "breakdowns": {
            key: {value: _means(found) for value, found in sorted(values.items())} for key, values in groups.items()
        },
    }


def write_verdicts(folder: Path, judged: Sequence[Judged], summary: Mapping[str, Any]) -> None:
    """Write `rubrics.jsonl`, a line a case, and `rubrics.json`, the means."""
    ordered = sorted(judged, key=lambda each: each.case.question.id)
    write_whole(folder / "rubrics.jsonl", "".join(dump_row(each.to_json()) for each in ordered))
    write_whole(folder / "rubrics.json", dump_json(summary, indent=1) + "\n")


def _means(judged: Sequence[Judged]) -> dict[str, Any]:
    scores = [(each.score or 0.0, each.case.right) for each in judged]
    right = [score for score, is_right in scores if is_right]
    return {
        "answers": len(scores),
        "mean": sum(score for score, _ in scores) / len(scores) if scores else None,
        "right_answers": len(right),
        "mean_of_right": sum(right) / len(right) if right else None,
        "mean_wrong_as_0": sum(right) / len(scores) if scores else None,
    }
