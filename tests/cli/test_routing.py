"""`--router`, `--route` and `relisten router ask` as a user meets them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli import run
from support.policies import Scripted
from support.questions import write_rows
from support.sounds import noise_clip
from support.tools import extra_tools

from relisten.audio import write_clip
from relisten.engines.scripted import ScriptedEngine
from relisten.listener import Listener
from relisten.question import Question
from relisten.router.answering import Router
from relisten.tools.cache import ToolCache
from relisten.trace import Trace


def script(question: Question) -> str:
    return f"<think>so</think><answer>{question.findings[0] if question.findings else 'no idea'}</answer>"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder with `noise.wav` and `long.wav`; the model says what it is told, the policy takes `length` for "How
    long?" and does not know what to do with "Huh?"."""

    def load(
        model: str, *, router: Router | Path | None = None, tool_cache: Path | None = None, **options: object
    ) -> Listener:
        if isinstance(router, Path):
            assert router == Path("policy")
            policy = Scripted(lambda question: {"How long?": "length", "Huh?": "?"}.get(question.text, "direct"))
            router = Router(policy, ToolCache(tool_cache) if tool_cache else None)
        return Listener(ScriptedEngine(script), router)

    monkeypatch.setattr(Listener, "load", load)
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "noise.wav", noise_clip(3.0))
    write_clip(tmp_path / "long.wav", noise_clip(6.0))
    with extra_tools():
        yield


@pytest.mark.parametrize("command", [["ask"], ["router", "ask"]])
def test_decision_confidence_findings_and_answer_are_shown(
    capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    status, out, err = run(capsys, *command, "noise.wav", "How long?", "--router", "policy")
    assert (status, err) == (0, "")
    shown = [line.strip() for line in out.splitlines() if line.strip()]
    assert shown[1:] == [
        "Route: length  confidence 75%  (length 75%, other 25%)",
        "[length] 3 s",
        "so",
        "Answer: [length] 3 s",
    ]


def test_a_direct_answer_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "ask", "noise.wav", "What?", "--router", "policy")
    assert status == 0
    assert "Route: direct  confidence 75%" in out
    assert "Answer: no idea" in out


def test_a_route_can_be_forced_and_the_trace_keeps_it(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["router", "ask", "noise.wav", "What?", "--route", "length+silence/text", "--trace", "t.json"]
    status, out, _ = run(capsys, *command, "--choices", "a", "b")
    assert status == 0
    assert "Route: length+silence/text\n" in out
    trace = Trace.from_json(json.loads(Path("t.json").read_text()))
    assert trace.choices == ("a", "b")
    assert trace.findings == ("[length] 3 s", "[silence] sound throughout, no silence")
    assert trace.routing is not None
    assert (trace.routing.route, trace.routing.confidence) == ("length+silence/text", None)
    status, out, _ = run(capsys, "ask", "noise.wav", "What?", "--route", "length", "--json")
    assert json.loads(out)["routing"]["reports"][0]["finding"] == {"seconds": 3.0}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["long.wav", "What?", "--route", "length"], "length takes at most 5 s"),
        (["noise.wav", "What?", "--route", "broken"], "ZeroDivisionError"),
        (["noise.wav", "Huh?", "--router", "policy"], "the policy could not decide (no idea): direct"),
    ],
)
def test_what_goes_wrong_is_shown_and_the_answer_comes(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    status, out, err = run(capsys, "router", "ask", *arguments)
    assert (status, err) == (0, "")
    assert out.count(said) == 1 + (said in out.partition("Answer: ")[2])
    assert "Answer: " in out


@pytest.mark.parametrize("command", [("router", "ask"), ("ask",)])
@pytest.mark.parametrize(
    ("route", "said"),
    [
        ("ears", "tool 'ears' is unknown; there are"),
        ("length+absent", "tool absent needs no_such_package: pip install no-such"),
    ],
)
def test_a_route_with_a_tool_that_cannot_run_is_refused(
    capsys: pytest.CaptureFixture[str], command: tuple[str, ...], route: str, said: str
) -> None:
    status, out, err = run(capsys, *command, "noise.wav", "What?", "--route", route)
    assert (status, out) == (2, "")
    assert said in err


def test_a_file_of_questions_is_routed_and_counted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    texts = ["How long?", "What?", "Huh?", "How long?"]
    rows: list[dict[str, object]] = [
        {"id": str(n), "audio": "long.wav" if n == 3 else "noise.wav", "question": text}
        for n, text in enumerate(texts)
    ]
    questions = write_rows(tmp_path / "q.jsonl", rows)
    status, out, err = run(
        capsys, "ask", "--questions", questions, "--router", "policy", "--tool-cache", "kept.sqlite"
    )
    assert status == 0
    traces = {trace["id"]: trace for trace in map(json.loads, out.splitlines())}
    assert [traces[str(n)]["routing"]["route"] for n in range(4)] == ["length", "direct", "direct", "length"]
    assert traces["3"]["routing"]["failures"] == ["length"]
    assert "routes: 2 direct, 2 length; 1 with a tool that failed; 1 with a note" in err
    assert Path("kept.sqlite").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["router", "ask", "noise.wav", "What?"], "who decides?"),
        (["ask", "noise.wav", "What?", "--router", "policy", "--route", "direct"], "leave one out"),
        (["ask", "noise.wav", "What?", "--tool-cache", "t.sqlite"], "goes with --router or --route"),
        (["ask", "noise.wav", "What?", "--route", "Pitch"], "write direct, a tool, or tools with +"),
        (["ask", "noise.wav", "What?", "--route", "pitch", "--tool-cache", "noise.wav"], "no cache of tools"),
        (["router", "ask", "none.wav", "What?", "--route", "pitch"], "no such file"),
    ],
)
def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_help_has_the_options_of_ask(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    status, out, _ = run(capsys, "router", "ask", "--help")
    assert status == 0
    assert "how sure the policy is" in out
    for option in ("--router", "--route", "--choices", "--questions", "--json"):
        assert option in out
