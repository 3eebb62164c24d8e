"""`relisten ask` and `relisten eval` on vLLM as a user gives them: programs that start its workers themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli import run
from support.vllm import needs_vllm

from relisten.listener import Listener

pytestmark = needs_vllm
EXAMPLES = Path(__file__).parents[2] / "examples"
SNARES = ("How many snare hits between 2 and 5 seconds?", ("2", "3", "4", "5"))
VLLM = ("--engine", "vllm", "--engine-option", "max_context=1024", "--json")


def relisten(*arguments: object) -> str:
    """What the installed program writes to standard output."""
    program = Path(sys.executable).with_name("relisten")
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ask_answers_as_the_native_engine_does() -> None:
    text, choices = SNARES
    told = json.loads(relisten("ask", EXAMPLES / "drums.flac", text, "--choices", *choices, *VLLM))
    with Listener.load(device="cpu") as listener:
        trace = listener.ask(EXAMPLES / "drums.flac", text, choices)
    assert told["segments"]
    own = trace.to_json()
    assert [told[name] for name in ("text", "answer", "segments")] == [
        own[name] for name in ("text", "answer", "segments")
    ]


def test_eval_scores_and_says_which_engine_answered(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = ("eval", "questions", "--data", EXAMPLES / "questions.jsonl", "--out", tmp_path / "run", "--limit", 4)
    summary = json.loads(relisten(*command, *VLLM))
    assert summary["rows"] == 4
    assert summary["failures"] == []
    assert summary["config"]["engine"] == "vllm"
    status, _, err = run(capsys, *command)
    assert status == 2
    assert "engine vllm instead of native" in err
