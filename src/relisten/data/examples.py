"""`Example`: a question with the response that answers it, and JSONL files of them (our EAQA format).

    {"id": "kitchen-1-first", "audio": "clips/kitchen-1.flac", "question": "Which sound comes first?",
     "choices": ["dog", "cat"], "answer": "dog", "kind": "first", "difficulty": "easy",
     "response": "<think>... <seg>0.0, 2.5</seg> ... </think><answer>dog</answer>",
     "metadata": {"clip": "kitchen-1", "source": "kitchen", "split": "train", "hash": "9f2c...", "duration": 10.0}}

`audio` is relative to the file's folder. A row without `response` is a question for reinforcement learning. These
files serve wherever questions are read (`relisten ask --questions`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relisten.errors import InputError
from relisten.jsonl import is_finite, read_parsed, relative_to, write_rows
from relisten.question import Question, parse_question


@dataclass(frozen=True)
class Example:
    """A question about a clip with its answer set, and a response that reasons to it ("" where there is none)."""

    question: Question
    response: str
    kind: str
    difficulty: str = ""
    """"easy", "medium" or "hard"; "" where nobody judged."""


def read_examples(path: str | Path) -> Iterator[Example | InputError]:
    """The examples of a file, in order, one at a time; a bad row comes out as the `InputError` that says why.

    `question.metadata` is the row's `metadata` with every key that this format does not know. An id that is
    missing or null becomes the line's number.

    Raises:
        InputError: the file itself cannot be read.
    """
    return read_parsed(path, parse_example)


def write_examples(path: str | Path, examples: Iterable[Example]) -> int:
    """Write examples as they come and return how many; the file appears under its name once it is whole.

    Raises:
        InputError: the file cannot be written, or a question carries its sound in memory instead of a path.
    """
    path = Path(path)
    return write_rows(path, (example_row(example, path.parent) for example in examples))


def parse_example(row: Mapping[str, Any], folder: Path, where: str) -> Example:
    """One example from a decoded row.

    Raises:
        InputError: with `where` in front.
    """
    if not is_finite(row):
        raise InputError(f"{where}: holds NaN or an infinite number; write null, or leave it out")
    rest = dict(row)
    response, kind, difficulty = (rest.pop(key, None) for key in ("response", "kind", "difficulty"))
    for key, value in (("response", response), ("kind", kind), ("difficulty", difficulty)):
        if not isinstance(value, (str, type(None))):
            raise InputError(f"{where}: {key!r} is {value!r}; it must be a text")
    return Example(parse_question(rest, folder, where), response or "", kind or "", difficulty or "")


def example_row(example: Example, folder: Path) -> dict[str, Any]:
    """The JSON row of an example in a file that lies in `folder`; what is empty is left out.

    Raises:
        InputError: the question carries its sound in memory instead of a path.
    """
    question = example.question
    if not isinstance(question.audio, Path):
        raise InputError(f"question {question.id!r} holds its sound in memory; write the clip to a file first")
    row: dict[str, Any] = {
        "id": question.id,
        "audio": relative_to(question.audio, folder),
        "question": question.text,
        "choices": list(question.choices),
        "answer": question.answer,
        "findings": list(question.findings),
        "kind": example.kind,
        "difficulty": example.difficulty,
        "response": example.response,
        "metadata": dict(question.metadata),
    }
    return {key: value for key, value in row.items() if value not in ("", None, [], {})}
