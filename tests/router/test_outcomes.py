"""Outcomes of routes: measured once, kept whole whatever happens, and never mixed up."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.sounds import noise_clip
from support.tools import calls, extra_tools

from relisten.audio import write_clip
from relisten.engines.native import NativeEngine
from relisten.engines.scripted import ScriptedEngine
from relisten.errors import EngineError, InputError
from relisten.models import Family
from relisten.protocol import Format
from relisten.question import Question
from relisten.router.outcomes import Outcomes, measure_routes
from relisten.router.routes import DIRECT, Route
from relisten.tools.cache import ToolCache
from relisten.tools.tool import find_tool
from relisten.trace import Sampling

QUESTIONS = tuple(
    Question("How long?", ("3 s", "4 s"), noise_clip(3.0 + number % 2, number), f"q{number}", f"{3 + number % 2} s")
    for number in range(6)
)
ROUTES = (DIRECT, Route(("length",)), Route(("brief",)), Route(listen=False))


@pytest.fixture(autouse=True)
def _tools() -> Iterator[None]:
    with extra_tools():
        yield


class Asked(ScriptedEngine):
    """Says 3 s; with a finding what it reads there; listens once."""

    def __init__(self, fails: Callable[[Question], bool] = lambda _: False) -> None:
        self.asked: list[Question] = []
        self.fails = fails
        super().__init__(self._say)

    def _say(self, question: Question) -> str:
        self.asked.append(question)
        if self.fails(question):
            raise OSError("out of memory")
        said = question.findings[0].removeprefix("[length] ") if question.findings else "3 s"
        return f"<think><seg>0.5, 1.0</seg></think><answer>{said}</answer>"


def measure(path: Path, engine: ScriptedEngine | None = None, **options: object) -> Outcomes:
    given = {"questions": QUESTIONS, "routes": ROUTES, "reasoner": "r"} | options
    return measure_routes(engine or Asked(), path=path, **given)  # type: ignore[arg-type]


def test_every_question_is_answered_by_every_route(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    table = measure(tmp_path / "new" / "t.jsonl", on_progress=lambda *done: told.append(done))
    assert table.questions == tuple(question.id for question in QUESTIONS)
    assert [route.name for route in table.routes] == ["direct", "length", "brief", "direct/text"]
    arrays = table.as_arrays()
    odd = [number % 2 == 1 for number in range(6)]
    assert arrays.correct[:, 0].tolist() == [not one for one in odd]
    assert arrays.correct[:, 1].all()
    assert not arrays.correct[:, 2].any()
    assert arrays.failed.tolist() == [[False, False, True, False]] * 6
    assert arrays.listens.tolist() == [[1, 1, 1, 0]] * 6
    assert (arrays.tokens > 10).all()
    assert (arrays.answer_seconds > 0).all()
    assert (arrays.tool_seconds[:, 1] > 0).all()
    assert (arrays.tool_seconds[:, 0] == 0).all()
    assert table.rows[0][2].failures == ("brief: too_long",)
    assert len(calls) == 6
    assert told[-1] == (24, 24)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_what_is_there_is_not_measured_again(tmp_path: Path) -> None:
    first = measure(tmp_path / "t.jsonl", questions=QUESTIONS[:3], routes=ROUTES[:2])
    engine = Asked()
    again = measure(tmp_path / "t.jsonl", engine)
    assert [row[:2] for row in again.rows[:3]] == list(first.rows)
    assert len(engine.asked) == 24 - 6
    last = Asked()
    assert measure(tmp_path / "t.jsonl", last, questions=QUESTIONS[::-1], routes=ROUTES[::-1]).rows == tuple(
        row[::-1] for row in again.rows[::-1]
    )
    assert not last.asked


@pytest.mark.parametrize(
    "change",
    [
        {"text": "How long is it?"},
        {"choices": ("3 s", "5 s")},
        {"answer": "5 s"},
        {"audio": noise_clip(3.0, 99)},
        {"findings": ("[ear] loud",)},
    ],
)
def test_another_question_under_the_same_id_is_measured_anew(tmp_path: Path, change: dict[str, object]) -> None:
    measure(tmp_path / "t.jsonl")
    engine = Asked()
    measure(tmp_path / "t.jsonl", engine, questions=(replace(QUESTIONS[0], **change), *QUESTIONS[1:]))
    assert {question.id for question in engine.asked} == {"q0"}
    assert len(engine.asked) == len(ROUTES)


@pytest.mark.parametrize(
    ("part", "value"), [("version", 2), ("complete", lambda given: {**given, "word": "of the environment"})]
)
def test_a_new_version_or_environment_of_a_tool_is_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, value: object
) -> None:
    measure(tmp_path / "t.jsonl")
    monkeypatch.setitem(find_tool("length").__dict__, part, value)
    engine = Asked()
    measure(tmp_path / "t.jsonl", engine)
    assert len(engine.asked) == len(QUESTIONS)
    assert all(question.findings[0].startswith("[length]") for question in engine.asked)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reasoner": "s"}, r"another reasoner \(r, now s\)"),
        ({"format": Format.GROUNDED}, "another prompt"),
        ({"sampling": Sampling(max_tokens=9)}, "another sampling"),
    ],
)
def test_outcomes_of_another_reasoner_are_refused(tmp_path: Path, change: dict[str, object], said: str) -> None:
    measure(tmp_path / "t.jsonl")
    before = (tmp_path / "t.jsonl").read_bytes()
    with pytest.raises(InputError, match=said):
        measure(tmp_path / "t.jsonl", **change)
    assert (tmp_path / "t.jsonl").read_bytes() == before


def test_a_torn_line_is_cut_and_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    whole = measure(path)
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    engine = Asked()
    assert measure(path, engine).as_arrays().correct.tolist() == whole.as_arrays().correct.tolist()
    assert len(engine.asked) == 1
    assert len(path.read_bytes().splitlines()) == 1 + 24


def test_a_run_that_shares_the_file_and_is_killed_spoils_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"

    def killed(question: Question) -> bool:
        with path.open("ab") as file:
            file.write(b'{"key": "4a3')
        return False

    whole = measure(path, Asked(killed))
    engine = Asked()
    assert measure(path, engine) == whole
    assert not engine.asked


@pytest.mark.parametrize("content", ["nonsense\n", "[]\n", '{"outcomes": 1}\n', '{"a": 1}\n{"b": 2}\n'])
def test_another_file_is_no_table(tmp_path: Path, content: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match="holds no outcomes of routes"):
        measure(path)
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"questions": [replace(QUESTIONS[0], id="")]}, "needs an id of its own"),
        ({"questions": [QUESTIONS[0], QUESTIONS[0]]}, "needs an id of its own"),
        ({"questions": [replace(QUESTIONS[0], answer=None)]}, "has no reference answer"),
        ({"questions": [replace(QUESTIONS[0], audio=Path("none.wav"))]}, "no such file"),
        ({"routes": [DIRECT, Route(("ears",))]}, "'ears' is unknown"),
        ({"routes": [DIRECT, Route(("absent",))]}, "pip install no-such"),
        ({"routes": [Route(("length",))]}, "direct must be among them"),
        ({"path": Path("/proc/no/t.jsonl")}, "cannot be written"),
    ],
)
def test_bad_input_is_told(tmp_path: Path, options: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        measure(**{"path": tmp_path / "t.jsonl"} | options)  # type: ignore[arg-type]


def test_an_answer_that_fails_is_not_kept(tmp_path: Path) -> None:
    table = measure(tmp_path / "t.jsonl", Asked(lambda question: question.id == "q2"))
    assert [bool(row[0].error) for row in table.rows] == [False, False, True, False, False, False]
    assert not table.as_arrays().correct[2].any()
    engine = Asked()
    assert measure(tmp_path / "t.jsonl", engine).as_arrays().correct[2, 0]
    assert {question.id for question in engine.asked} == {"q2"}


def test_an_answer_whose_tool_failed_for_now_is_not_kept(tmp_path: Path) -> None:
    routes = [DIRECT, Route(("slow",)), Route(("broken",)), Route(("brief",))]
    for _ in range(2):
        engine = Asked()
        row = measure(tmp_path / "t.jsonl", engine, questions=QUESTIONS[:1], routes=routes).rows[0]
        assert [one.failures for one in row[2:]] == [("broken: failed",), ("brief: too_long",)]
        assert row[1].failures[0] in ("slow: timeout", "slow: busy")
    assert {question.findings[0].partition("]")[0] for question in engine.asked} == {"[slow", "[broken"}


def test_an_engine_that_fails_all_stops_the_work(tmp_path: Path) -> None:
    many = [replace(QUESTIONS[0], id=str(number)) for number in range(40)]
    with pytest.raises(EngineError, match="24 answers in a row, the last with: OSError: out of memory"):
        measure(tmp_path / "t.jsonl", Asked(lambda _: True), questions=many)
    short = [replace(one, audio=noise_clip(0.01)) for one in many]
    assert all(row[0].error for row in measure(tmp_path / "t.jsonl", questions=short).rows)


def test_the_cost_of_a_cached_finding_is_not_known(tmp_path: Path) -> None:
    with ToolCache(tmp_path / "tools.sqlite") as cache:
        first = measure(tmp_path / "a.jsonl", cache=cache).as_arrays()
        second = measure(tmp_path / "b.jsonl", cache=cache).as_arrays()
    assert (first.tool_seconds[:, 1] > 0).all()
    assert np.isnan(second.tool_seconds[:, 1]).all()
    assert len(calls) == 6


def test_company_changes_no_answer_of_the_native_engine(tmp_path: Path, untrained: Family) -> None:
    options = {"sampling": Sampling(temperature=1.0, seed=1, max_tokens=8), "routes": ROUTES[:2]}
    with NativeEngine(untrained, max_rows=8) as engine:
        together = measure(tmp_path / "a.jsonl", engine, **options)  # type: ignore[arg-type]
        alone = measure(tmp_path / "b.jsonl", engine, at_once=1, **options)  # type: ignore[arg-type]
    assert [[one.answer for one in row] for row in together.rows] == [
        [one.answer for one in row] for row in alone.rows
    ]
    assert (together.as_arrays().tokens == alone.as_arrays().tokens).all()


WORKER = """
import os, signal, sys
from relisten.engines.scripted import ScriptedEngine
from relisten.question import read_questions
from relisten.router import outcomes
from relisten.router.routes import default_routes

_, questions, path, torn = sys.argv
lines, append = 0, outcomes.LineFile.append

def dying(self, line):
    global lines
    lines += 1
    if lines == int(torn):
        append(self, line[:40])
        os.kill(os.getpid(), signal.SIGKILL)
    append(self, line)

outcomes.LineFile.append = dying
engine = ScriptedEngine(lambda question: f"<answer>{len(question.findings)}</answer>")
asked = list(read_questions(questions))
outcomes.measure_routes(engine, asked, default_routes(("silence",)), path, reasoner="r", at_once=8)
"""


def test_a_kill_loses_only_what_was_being_answered(tmp_path: Path) -> None:
    write_clip(tmp_path / "n.wav", noise_clip(1.0))
    rows = [{"id": str(n), "audio": "n.wav", "question": "?", "answer": str(n % 2)} for n in range(20)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "t.jsonl"
    command = [sys.executable, "-c", WORKER, str(tmp_path / "q.jsonl"), str(path)]
    assert subprocess.run([*command, "10"], check=False, timeout=120).returncode == -signal.SIGKILL
    kept = path.read_bytes()
    assert kept.count(b"\n") == 9
    assert not kept.endswith(b"\n")
    subprocess.run([*command, "0"], check=True, timeout=120)
    assert path.read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    found = [json.loads(line) for line in path.read_bytes().splitlines()[1:]]
    assert len({(row["id"], row["route"]) for row in found}) == len(found) == 40
    assert all(row["correct"] == ((row["route"] == "silence") == (int(row["id"]) % 2 == 1)) for row in found)
