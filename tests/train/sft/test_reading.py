"""What is exported can be trained on: every form is read back as the examples that went in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.sounds import noise_clip

from relisten.audio import Clip, write_clip
from relisten.data.examples import Example
from relisten.data.export import FORMATS, export_examples
from relisten.data.export.base import ExportOptions
from relisten.errors import InputError
from relisten.protocol import user_text
from relisten.question import Question
from relisten.train.sft.reading import read_dataset, split_user_text

RESPONSE = "<think>To see I play <seg>0.1, 0.6</seg> and hear a bark, so it is a dog.</think><answer>dog</answer>"


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    found = []
    for number in range(4):
        path = tmp_path / "clips" / f"{number}.wav"
        path.parent.mkdir(exist_ok=True)
        write_clip(path, noise_clip(1.0, number))
        choices = ("dog", "a - cat") if number % 2 else ()
        metadata = {"hash": Clip.load(path).hash, "source": f"tape {number}", "duration": 1.0}
        question = Question(f"Which is number {number}?", choices, path, f"q{number}", "dog", metadata)
        found.append(Example(question, RESPONSE, "order", "easy"))
    return found


def read(path: Path, split: str = "train") -> list[Example]:
    rows = list(read_dataset(path, split, path.parent / "sounds"))
    assert all(isinstance(row, Example) for row in rows)
    return [row for row in rows if isinstance(row, Example)]


@pytest.mark.parametrize("kind", ["jsonl", "hf", "ms-swift"])
def test_what_was_exported_is_read_back(examples: list[Example], tmp_path: Path, kind: str) -> None:
    if kind == "hf":
        pytest.importorskip("pyarrow", reason="parquet is not read without pyarrow")
    export_examples(examples, FORMATS[kind], tmp_path / "out", ExportOptions(validation=0.4, seed=2))
    back = [row for split in ("train", "validation") for row in read(tmp_path / "out", split)]
    assert len(back) == len(examples)
    by_text = {example.question.text: example for example in examples}
    for row in back:
        sent = by_text[row.question.text]
        assert (row.response, row.question.choices) == (sent.response, sent.question.choices)
        assert row.question.answer == "dog"
        assert row.question.clip().hash == sent.question.clip().hash
        if kind != "ms-swift":
            assert replace(row, question=replace(row.question, audio=sent.question.audio)) == sent


def test_sounds_of_a_parquet_file_are_written_once(examples: list[Example], tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="parquet is not read without pyarrow")
    twice = [examples[0], replace(examples[0], question=replace(examples[0].question, text="Again?"))]
    export_examples(twice, FORMATS["hf"], tmp_path / "out", ExportOptions(validation=0.0))
    assert len(read(tmp_path / "out")) == 2
    assert len(list((tmp_path / "sounds").iterdir())) == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": "hi"}, "list of turns"),
        ({"messages": [{"role": "user", "content": "<audio>a?"}], "audios": ["a.wav"]}, "one of the assistant"),
        ({"messages": [*({"role": r, "content": "b"} for r in ("user", "assistant"))], "audios": []}, "one path"),
        (
            {
                "messages": [{"role": "user", "content": "<audio><audio>?"}, {"role": "assistant", "content": "b"}],
                "audios": ["a.wav"],
            },
            "2 times <audio>",
        ),
    ],
)
def test_a_bad_row_of_swift_is_told(tmp_path: Path, row: dict[str, object], reason: str) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (error,) = read_dataset(tmp_path / "rows.jsonl")
    assert isinstance(error, InputError)
    assert reason in str(error)
    assert "rows.jsonl:1" in str(error)


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds neither"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("choices", [(), ("2", "3"), ("- a", "b - c")])
@pytest.mark.parametrize("findings", [(), ("[pitch] no note",), ("[onsets] no onset", "- a")])
def test_what_a_user_says_is_taken_apart_as_it_was_put_together(
    choices: tuple[str, ...], findings: tuple[str, ...]
) -> None:
    question = Question("How many?\nChoices:\nnone here", choices, findings=findings)
    assert split_user_text(user_text(question)) == (question.text, choices, findings)
