"""`relisten router tools` and `relisten router tool` as a user gives them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli import run
from support.sounds import noise_clip
from support.tools import extra_tools

from relisten.audio import write_clip
from relisten.errors import EngineError


@pytest.fixture(autouse=True)
def _tools() -> Iterator[None]:
    with extra_tools():
        yield


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "noise.wav"
    write_clip(path, noise_clip(3.0))
    return path


def test_the_list_names_tools_limits_and_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "router", "tools", "--json")
    assert (status, err) == (0, "")
    told = {row["tool"]: row for row in json.loads(out)}
    assert told["length"]["arguments"]["scale"] == {"type": "float", "default": 1.0}
    assert told["length"]["max_duration"] == 5
    assert told["absent"]["missing"] == ["no_such_package"]
    status, out, _ = run(capsys, "router", "tools")
    assert status == 0
    assert "onsets" in out
    assert "loudness" in out


def test_one_tool_on_a_window(capsys: pytest.CaptureFixture[str], sound: Path) -> None:
    status, out, _ = run(capsys, "router", "tool", "length", sound, "--window", 1, 2.5, "--set", "scale=2")
    assert (status, out) == (0, "[length 1 to 2.5 s] 3 s\n")
    status, out, _ = run(capsys, "router", "tool", "silence", sound, "--json")
    assert status == 0
    assert json.loads(out)["finding"]["silences"] == []


def test_findings_are_kept_where_asked(capsys: pytest.CaptureFixture[str], sound: Path, tmp_path: Path) -> None:
    command = ["router", "tool", "length", sound, "--json", "--tool-cache", tmp_path / "kept.sqlite"]
    assert not json.loads(run(capsys, *command)[1])["cached"]
    assert json.loads(run(capsys, *command)[1])["cached"]


@pytest.mark.parametrize(
    ("name", "said"),
    [("broken", "ZeroDivisionError"), ("absent", "pip install no-such"), ("slow", "not done within")],
)
def test_a_tool_that_cannot_is_told_with_status_1(
    capsys: pytest.CaptureFixture[str], sound: Path, name: str, said: str
) -> None:
    status, out, err = run(capsys, "router", "tool", name, sound)
    assert (status, err) == (1, "")
    assert said in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tool", "ears", "SOUND"], "tool 'ears' is unknown"),
        (["tool", "length", "nowhere.wav"], "no such file"),
        (["tool", "length", "SOUND", "--window", "2", "1"], "segment 2.0 to 1.0"),
        (["tool", "length", "SOUND", "--set", "scale"], "write NAME=VALUE"),
        (["tool", "length", "SOUND", "--timeout", "0"], "timeout 0"),
        (["tools", "--only", "length"], "--only goes with --measure"),
        (["tools", "--measure", "--count", "0"], "count 0"),
        (["tools", "--measure", "--only", "ears"], "tool 'ears' is unknown"),
    ],
)
def test_bad_input_is_one_line(
    capsys: pytest.CaptureFixture[str], sound: Path, arguments: list[str], said: str
) -> None:
    given = [sound if argument == "SOUND" else argument for argument in arguments]
    status, out, err = run(capsys, "router", *given)
    assert (status, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


def test_an_engine_that_fails_is_no_bad_input(
    capsys: pytest.CaptureFixture[str], sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **options: object) -> None:
        raise EngineError("out of memory")

    monkeypatch.setattr("relisten.evaluate.routing_run.judge_router", fails)
    row = {"id": "q", "audio": sound.name, "question": "?", "answer": "yes"}
    questions = sound.with_name("questions.jsonl")
    questions.write_text(json.dumps(row) + "\n")
    status, _, err = run(capsys, "router", "report", sound.parent, "--questions", questions)
    assert (status, err) == (1, "relisten: out of memory\n")


def test_errors_of_one_tool(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "router", "tools", "--measure", "--only", "loudness", "--count", 2)
    assert status == 0
    assert out.startswith("loudness\n  tones: level off by: 0.0")
    status, out, _ = run(capsys, "router", "tools", "--measure", "--only", "spectrum", "--count", 2, "--json")
    assert json.loads(out)[0]["tool"] == "spectrum"
