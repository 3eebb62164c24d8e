"""Questions files: good rows come through, bad rows say what is wrong and stop nothing."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from relisten.data.examples import Example, read_examples
from relisten.errors import InputError
from relisten.question import BadQuestionError, Question, read_questions

ROWS = """\
{"id": "a", "audio": "x/drums.wav", "question": "How many?", "choices": ["1", "2"], "answer": "2", "kind": "count"}

{"audio": "y.wav", "question": "What is it?"}
{"audio": "y.wav"
["a list"]
{"audio": "y.wav", "question": " "}
{"audio": 3, "question": "q"}
{"audio": "y.wav", "question": "q", "choices": "ab"}
{"audio": "y.wav", "question": "q", "choices": ["a", "a"]}
{"audio": "y.wav", "question": "q", "choices": ["a", ""]}
{"audio": "y.wav", "question": "q", "answer": 2}
{"audio": "y.wav", "question": "q", "id": [1]}
{"audio": "y.wav", "question": "q", "findings": "[pitch] no note"}
{"audio": "y.wav", "question": "q", "findings": ["two\\nlines"]}
{"audio": "y.wav", "question": "q", "findings": ["[pitch] no note"]}
"""


def test_rows(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(ROWS, encoding="utf-8")
    rows = list(read_questions(path))
    assert rows[0] == Question("How many?", ("1", "2"), tmp_path / "x/drums.wav", "a", "2", {"kind": "count"})
    assert rows[1] == Question("What is it?", (), tmp_path / "y.wav", "3")
    assert rows[-1] == Question("q", (), tmp_path / "y.wav", "15", findings=("[pitch] no note",))
    bad = rows[2:-1]
    assert len(bad) == 11
    for number, row in enumerate(bad, start=4):
        assert isinstance(row, InputError)
        assert f"questions.jsonl:{number}: " in str(row)


def test_a_bad_row_keeps_its_id(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text('{"id": "a", "audio": "y.wav"}\n{"id": [1], "audio": "y.wav"}\n{"audio": "y.wav"}\nno row\n')
    rows = list(read_questions(path))
    assert [row.id if isinstance(row, BadQuestionError) else None for row in rows] == ["a", "", "3", None]


def test_a_bad_row_is_passed_between_processes(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"id": "a", "audio": "y.wav"}\n')
    (error,) = read_questions(tmp_path / "q.jsonl")
    assert isinstance(error, BadQuestionError)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.id) == (str(error), "a")


@pytest.mark.parametrize("identifier", ['"id": null, ', ""])
def test_an_id_that_is_missing_or_null_is_the_line_number(identifier: str, tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(f'\n{{{identifier}"audio": "y.wav", "question": "q"}}\n')
    (question,), (example,) = read_questions(path), read_examples(path)
    assert isinstance(question, Question)
    assert isinstance(example, Example)
    assert question.id == example.question.id == "2"


def test_an_object_of_metadata_is_opened(tmp_path: Path) -> None:
    rows = [
        {"audio": "y.wav", "question": "q", "kind": "count", "metadata": {"segments": [[0, 1]]}},
        {"audio": "y.wav", "question": "q", "metadata": "none"},
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    good, bad = read_questions(tmp_path / "q.jsonl")
    assert isinstance(good, Question)
    assert good.metadata == {"kind": "count", "segments": [[0, 1]]}
    assert "'metadata' is 'none'; it must be an object" in str(bad)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="check the path"):
        read_questions(tmp_path / "none.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(
        '{"question": "é"}\n{"audio": "y.wav", "question": "q"}'.encode("latin-1")
    )
    bad, good = read_questions(tmp_path / "latin.jsonl")
    assert "latin.jsonl:1: is not UTF-8" in str(bad)
    assert good == Question("q", (), tmp_path / "y.wav", "2")


def test_a_path_may_be_a_text_and_choices_a_list() -> None:
    question = Question("q", ["a", "b"], "x.wav")  # type: ignore[arg-type]
    assert question == Question("q", ("a", "b"), Path("x.wav"))
    assert isinstance(question.audio, Path)
    hash(question.choices)


def test_a_text_is_no_list_of_choices() -> None:
    with pytest.raises(InputError, match="choices 'ab': give a list of texts, such as"):
        Question("q", "ab", Path("x.wav"))  # type: ignore[arg-type]


def test_a_question_without_sound_says_so() -> None:
    with pytest.raises(InputError, match="names no sound"):
        Question("q", id="7").clip()
