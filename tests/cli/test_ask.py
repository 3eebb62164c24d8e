"""`relisten ask` as a user meets it: what is printed, where, and the exit status."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console
from support.cli import run
from support.sounds import noise_clip

from relisten.audio import write_clip
from relisten.cli import main
from relisten.cli.display import AnswerDisplay
from relisten.engines.scripted import ScriptedEngine
from relisten.listener import Listener
from relisten.protocol import Segment
from relisten.question import Question
from relisten.trace import Trace

FULL = Path("/dev/full")
RESPONSE = "<think>so <seg>1.0, 2.0</seg> has two.</think><answer>two</answer>"


@pytest.fixture
def sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `drums.wav`, where the model is a script that answers what the question says."""
    asked: list[tuple[object, dict[str, object]]] = []

    def script(question: Question) -> str:
        asked.append((question, {}))
        return "hm" if question.text == "no answer" else RESPONSE

    def load(model: str, *, device: str, dtype: str, **options: object) -> Listener:
        return Listener(ScriptedEngine(script))

    monkeypatch.setattr(Listener, "load", load)
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "drums.wav", noise_clip(3.0))
    return tmp_path / "drums.wav"


def test_an_answer_is_shown_with_its_listens(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(
        capsys, "ask", "drums.wav", "How many?", "--choices", "one", "two", "--format", "interleaved"
    )
    assert code == 0
    assert "Answer: two" in out
    assert "heard 1.0 to 2.0 s" in out
    assert "█" in out
    assert "has two." in out
    assert "<" not in out
    assert err == ""


@pytest.mark.parametrize("choices", [("--choices", "one", "two"), ("--choices=one", "two")])
def test_json_is_one_trace_and_nothing_else(
    sound: Path, capsys: pytest.CaptureFixture[str], choices: tuple[str, ...]
) -> None:
    code, out, err = run(capsys, "ask", "drums.wav", "How many?", *choices, "--json")
    assert code == 0
    trace = Trace.from_json(json.loads(out))
    assert trace.answer == "two"
    assert trace.choices == ("one", "two")
    assert json.loads(out)["segments"] == [{"start": 1.0, "end": 2.0}]
    assert err == ""


def test_options_reach_the_trace(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--temperature", "0.7", "--top-p", "0.9", "--seed", "3", "--max-listens", "0", "--max-tokens", "99"]
    _, out, _ = run(capsys, "ask", "drums.wav", "How many?", *options, "--format", "grounded", "--json")
    data = json.loads(out)
    expected = {"temperature": 0.7, "top_p": 0.9, "seed": 3, "max_tokens": 99, "max_listens": 0, "crop_speed": 1.0}
    assert data["sampling"] == expected
    assert data["format"] == "grounded"


def test_the_trace_file(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "ask", "drums.wav", "How many?", "--trace", "trace.json")
    assert code == 0
    assert "Answer: two" in out
    assert Trace.from_json(json.loads(Path("trace.json").read_text())).answer == "two"
    code, out, err = run(capsys, "ask", "drums.wav", "How many?", "--trace", "none/trace.json")
    assert (code, out) == (2, "")
    assert "cannot be written" in err


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_line(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "ask", "drums.wav", "How many?", "--trace", FULL)
    assert "Answer: two" in out
    assert (code, err) == (1, "relisten: /dev/full: No space left on device\n")
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "relisten", "--version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "relisten: output: No space left on device\n")


def test_an_ending_without_an_answer(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "ask", "drums.wav", "no answer")
    assert code == 1
    assert "No answer" in out
    code, out, _ = run(capsys, "ask", "drums.wav", "no answer", "--json")
    assert code == 1
    assert json.loads(out)["answer"] is None


def test_bad_input_is_one_line_and_status_2(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.wav").touch()
    Path("text.wav").write_text("no sound" * 99)
    soundfile.write("zero.wav", np.zeros(0, np.float32), 16_000)
    soundfile.write("nan.wav", np.full(16_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    soundfile.write("one.wav", np.zeros(1, np.float32), 16_000)
    Path("cut.wav").write_bytes(sound.read_bytes()[:9_000])
    for name in ("none.wav", ".", "empty.wav", "text.wav", "zero.wav", "nan.wav", "one.wav", "cut.wav"):
        code, out, err = run(capsys, "ask", name, "How many?", "--json")
        assert (code, out) == (2, ""), name
        assert re.fullmatch(r"relisten: .+\n", err), name
    for arguments in (
        ["ask"],
        ["ask", "drums.wav"],
        ["ask", "drums.wav", " "],
        ["ask", "drums.wav", "q", "--choices", "a", "a"],
        ["ask", "drums.wav", "q", "--choices", "2,3,4"],
        ["ask", "drums.wav", "q", "--choices"],
        ["ask", "drums.wav", "q", "--choices", "--json"],
        ["ask", "drums.wav", "q", "--trace", "../" + sound.parent.name + "/drums.wav"],
        ["ask", "drums.wav", "q", "--temperature", "-1"],
        ["ask", "drums.wav", "q", "--questions", "x.jsonl"],
        ["ask", "--questions", "none.jsonl"],
        ["ask", "drums.wav", "q", "--engine-option", "max_rows"],
    ):
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (2, ""), arguments
        assert re.fullmatch(r"relisten: .+\n", err), arguments


def test_debug_shows_the_traceback(sound: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        main(["ask", "none.wav", "q", "--debug"])


def test_unknown_options_and_help(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "ask", "drums.wav", "q", "--loud")
    assert code == 2
    assert "No such option" in err
    for option in ("--engine", "--format"):
        code, _, err = run(capsys, "ask", "drums.wav", "q", option, "foo")
        assert code == 2
        assert "'foo' is not one of" in err
        assert "error," not in err
    code, out, _ = run(capsys, "ask", "--help")
    assert code == 0
    assert all(option in out for option in ("--choices", "--questions", "--max-listens", "--json", "Exit status"))
    assert run(capsys, "--version")[1].startswith("relisten ")


def test_a_file_of_questions(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"id": "a", "audio": "drums.wav", "question": "How many?", "choices": ["one", "two"], "answer": "two"},
        {"id": "b", "audio": "drums.wav", "question": "How many?", "choices": ["one", "two"], "answer": "one"},
        {"id": "c", "audio": "drums.wav", "question": "How many?"},
    ]
    text = "\n".join(json.dumps(row) for row in rows)
    Path("q.jsonl").write_text(text)
    code, out, err = run(capsys, "ask", "--questions", "q.jsonl")
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert {line["id"]: line["answer"] for line in lines} == {"a": "two", "b": "two", "c": "two"}
    assert "3 of 3 questions answered; accuracy 50.0% (1 of 2 with a reference)" in err

    Path("q.jsonl").write_text(text + '\n{"id": "d", "audio": "none.wav", "question": "q"}\nnot json\n')
    code, out, err = run(capsys, "ask", "--questions", "q.jsonl")
    assert code == 1
    failed = [line for line in map(json.loads, out.splitlines()) if line["finish"] == "failed"]
    assert len(failed) == 2
    assert all(line["answer"] is None and line["error"] for line in failed)
    assert "3 of 5 questions answered" in err
    assert "q.jsonl:5" in err

    answered = {"id": "e", "audio": "drums.wav", "question": "q", "answer": "two"}
    failed = [{**answered, "id": "f", "audio": "none.wav"}, {"id": "g", "audio": "drums.wav"}]
    Path("q.jsonl").write_text("\n".join(json.dumps(row) for row in [answered, *failed]))
    code, out, err = run(capsys, "ask", "--questions", "q.jsonl")
    assert "accuracy 100.0% (1 of 1 with a reference)" in err
    assert {line["id"]: line["answer"] for line in map(json.loads, out.splitlines())} == {
        "e": "two",
        "f": None,
        "g": None,
    }

    Path("q.jsonl").write_text("\n")
    assert run(capsys, "ask", "--questions", "q.jsonl")[0] == 2


def test_a_file_without_one_question_is_one_line(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "ask", "--questions", "drums.wav")
    assert (code, out) == (2, "")
    assert re.fullmatch(r"relisten: drums.wav: holds no question; the first bad row: drums.wav:1: .+\n", err)
    rows = ["no row", json.dumps({"audio": "drums.wav", "question": "q"}), "no row"]
    Path("q.jsonl").write_text("\n".join(rows))
    code, out, err = run(capsys, "ask", "--questions", "q.jsonl")
    assert code == 1
    assert sorted(json.loads(line)["finish"] for line in out.splitlines()) == ["answer", "failed", "failed"]
    assert "2 bad rows, the first: q.jsonl:1: is not JSON" in err


def test_half_a_character_stops_nothing(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"id": "a\ud800", "audio": "drums.wav", "question": "How many \ud800?"},
        {"id": "b", "audio": "\ud800.wav", "question": "How many?"},
        {"id": "c", "audio": "drums.wav", "question": "Wie viele Schläge?"},
    ]
    Path("q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, out, err = run(capsys, "ask", "--questions", "q.jsonl", "--temperature", "1", "--seed", "3")
    lines = {line["id"]: line for line in map(json.loads, out.splitlines())}
    assert {name: line["answer"] for name, line in lines.items()} == {"a\ud800": "two", "b": None, "c": "two"}
    assert lines["a\ud800"]["question"] == "How many \ud800?"
    assert "cannot be read" in lines["b"]["error"]
    assert "Schläge" in out
    assert "2 of 3 questions answered" in err
    assert code == 1


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_tags_are_hidden_however_text_arrives(size: int) -> None:
    import io

    shown = io.StringIO()
    display = AnswerDisplay(Console(file=shown, width=100), noise_clip(3.0), "m")
    text = "<think>if a < b, then <seg>1.0, 2.0</seg> so <se is odd.</think><answer>two"
    for start in range(0, len(text), size):
        display.write(text[start : start + size])
    display.listen(Segment(1.0, 2.0))
    assert "if a < b, then  so <se is odd." in shown.getvalue()
    assert "seg>" not in shown.getvalue()
    assert "two" not in shown.getvalue()
