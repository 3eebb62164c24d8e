from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relisten.data.examples import Example, read_examples, write_examples
from relisten.data.manifest import (
    Chord,
    ClipRecord,
    LabelledEvent,
    Music,
    Turn,
    read_manifest,
    write_manifest,
)
from relisten.errors import InputError
from relisten.question import Question, read_questions

_names = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1).filter(str.strip)
_seconds = st.floats(0, 9, allow_nan=False)


@st.composite
def _events(draw: st.DrawFn) -> LabelledEvent:
    onset = draw(_seconds)
    return LabelledEvent(
        onset,
        onset + draw(st.floats(0, 0.9)),
        draw(_names),
        confidence=draw(st.none() | st.floats(0, 1)),
        level=draw(st.none() | st.floats(-90, 0)),
        sustained=draw(st.booleans()),
    )


def _by_time(events: list[LabelledEvent]) -> tuple[LabelledEvent, ...]:
    return tuple(sorted(events, key=lambda e: (e.onset, e.offset, e.label)))


_records = st.builds(
    ClipRecord,
    id=_names,
    audio=st.just(Path("a.flac")),
    duration=st.just(10.0),
    source=st.text(),
    resolution=st.floats(0, 1),
    events=st.none() | st.lists(_events(), max_size=4).map(_by_time),
    turns=st.none() | st.just((Turn(1.0, 2.0, "anna", "so <seg>\n"), Turn(1.0, 2.5, "ben"))),
    music=st.none() | st.just(Music((0.5, 1.0), (0.5,), (Chord(0.0, "Am"),), "A minor", 120.0, ("piano",))),
    metadata=st.dictionaries(st.text(), st.integers() | st.text(), max_size=2),
)


@given(st.lists(_records, max_size=4))
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, records: list[ClipRecord]) -> None:
    folder = tmp_path_factory.mktemp("set")
    placed = [ClipRecord(**{**vars(record), "audio": folder / record.audio}) for record in records]
    assert write_manifest(folder / "m.jsonl", placed) == len(placed)
    assert list(read_manifest(folder / "m.jsonl")) == placed


def test_audio_is_relative_to_the_manifest_wherever_that_lies(tmp_path: Path) -> None:
    record = ClipRecord("a", tmp_path / "sounds" / "a.wav", 1.0)
    write_manifest(tmp_path / "lists" / "m.jsonl", [record])
    assert '"audio": "../sounds/a.wav"' in (tmp_path / "lists" / "m.jsonl").read_text()
    (read,) = read_manifest(tmp_path / "lists" / "m.jsonl")
    assert isinstance(read, ClipRecord)
    assert read.audio.resolve() == record.audio.resolve()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("[1]", "got list; write one object a line"),
        ("{", "is not JSON"),
        ("\xff", "is not UTF-8"),
        ('{"duration": 1}', "'audio' is None"),
        ('{"audio": "a.wav"}', "'duration' is None; give the clip's length in seconds, above 0"),
        ('{"audio": "a.wav", "duration": 0}', "above 0"),
        ('{"audio": "a.wav", "duration": NaN}', "must be a number"),
        ('{"audio": "a.wav", "duration": "1"}', "must be a number"),
        ('{"audio": "a.wav", "duration": 1, "event": []}', "the row has the key 'event'; use id, audio"),
        ('{"audio": "a.wav", "duration": 1, "events": {}}', "must be a list of objects"),
        ('{"audio": "a.wav", "duration": 1, "events": [{"onset": 0, "label": "x"}]}', "'x' lacks 'offset'"),
        ('{"audio": "a.wav", "duration": 1, "events": [{"onset": 0, "offset": 1, "label": " "}]}', "not empty"),
        (
            '{"audio": "a.wav", "duration": 1, "events": [{"onset": 0.5, "offset": 0.4, "label": "x"}]}',
            "'x' spans 0.5 to 0.4 s; it needs 0 <= onset <= offset",
        ),
        (
            '{"audio": "a.wav", "duration": 1, "events": [{"onset": 0.5, "offset": 1.4, "label": "x"}]}',
            "'x' spans 0.5 to 1.4 s of a clip of 1 s; mend its times",
        ),
        ('{"audio": "a.wav", "duration": 1, "music": {"tempo": 0}}', "'tempo' is 0; it must lie in 1 to inf"),
    ],
)
def test_a_bad_row_names_file_line_and_reason_and_stops_no_other(tmp_path: Path, row: str, reason: str) -> None:
    good = '{"audio": "a.wav", "duration": 1}\n'
    path = tmp_path / "m.jsonl"
    path.write_bytes(f"{good}\n".encode() + row.encode("latin-1") + f"\n{good}".encode())
    first, bad, last = read_manifest(path)
    assert isinstance(first, ClipRecord)
    assert isinstance(last, ClipRecord)
    assert isinstance(bad, InputError)
    assert str(bad).startswith(f"{path}:3: ")
    assert reason in str(bad)


def test_a_trifle_past_the_end_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"audio": "a", "duration": 2, "events": [{"onset": 1, "offset": 2.03, "label": "x"}]}\n')
    (record,) = read_manifest(path)
    assert isinstance(record, ClipRecord)
    assert record.events == (LabelledEvent(1.0, 2.0, "x"),)


def test_no_events_and_events_never_labelled_differ(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"audio": "a", "duration": 2, "events": []}\n{"audio": "a", "duration": 2}\n')
    searched, unknown = read_manifest(path)
    assert isinstance(searched, ClipRecord)
    assert isinstance(unknown, ClipRecord)
    assert (searched.events, unknown.events) == ((), None)


def test_examples_are_read_back_and_serve_as_questions(tmp_path: Path) -> None:
    question = Question("Which?", ("a", "b"), tmp_path / "x.wav", "q1", "a", {"clip": "x", "split": "train"})
    examples = [
        Example(question, "<think>so</think><answer>a</answer>", "first", "easy"),
        Example(question, "", "first"),
    ]
    assert write_examples(tmp_path / "q.jsonl", examples) == 2
    assert list(read_examples(tmp_path / "q.jsonl")) == examples
    asked = next(read_questions(tmp_path / "q.jsonl"))
    assert isinstance(asked, Question)
    assert (asked.text, asked.answer, asked.audio) == ("Which?", "a", tmp_path / "x.wav")


def test_a_bad_example_stops_no_other(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    good = '{"audio": "a.wav", "question": "Which?", "answer": "a"}\n'
    path.write_text('{"audio": "a.wav", "question": "Which?", "kind": 3}\n' + good)
    bad, read = read_examples(path)
    assert str(bad) == f"{path}:1: 'kind' is 3; it must be a text"
    assert isinstance(read, Example)
    assert read.question.id == "2"
