"""Questions with reference answers, which rewards and routers learn from."""

from __future__ import annotations

from collections.abc import Callable

from relisten.errors import InputError
from relisten.question import Question, read_questions


def read_referenced(path: str, on_note: Callable[[str], None]) -> list[Question]:
    """The questions of a file that have a reference answer; others are told and left out.

    Raises:
        InputError: no file is named, or it cannot be read, or has none.
    """
    if not path:
        raise InputError("no questions: give --questions, a JSONL file of questions with reference answers")
    found, left_out = [], []
    for row in read_questions(path):
        if isinstance(row, Question) and row.answer is not None:
            found.append(row)
        else:
            left_out.append(str(row) if isinstance(row, InputError) else f"question {row.id!r} has no answer")
    if not found:
        why = f"; the first of {len(left_out)} that cannot be used: {left_out[0]}" if left_out else ""
        raise InputError(f"{path}: has no question with a reference answer{why}")
    if left_out:
        on_note(f"{path}: {len(left_out)} questions are left out, the first: {left_out[0]}")
    return found
