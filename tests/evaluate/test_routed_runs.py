"""Runs whose answers take a route: what their config says, and what their traces keep."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli import run as relisten
from support.policies import Scripted
from support.questions import write_questions
from support.tools import extra_tools

from relisten.engines.scripted import ScriptedEngine
from relisten.errors import InputError
from relisten.evaluate.benchmarks.questions import Questions
from relisten.evaluate.provenance import router_name
from relisten.evaluate.results import RunConfig, read_config, read_run
from relisten.evaluate.run_folder import Evaluated, Settings, prepare
from relisten.evaluate.runner import work
from relisten.question import Question
from relisten.router.answering import Router
from relisten.router.policy import write_about
from relisten.router.routes import DIRECT, Route
from relisten.tools.tool import find_tool

SILENT = Settings(silent=True)


@pytest.fixture(autouse=True)
def _tools() -> Iterator[None]:
    with extra_tools():
        yield


def script(question: Question) -> str:
    return f"<answer>{question.findings[0] if question.findings else 'one'}</answer>"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A folder as training leaves it; nobody loads it here."""
    folder = tmp_path / "trained" / "policy"
    folder.mkdir(parents=True)
    write_about(folder, "head", (DIRECT, Route(("length",)), Route(("ears",))), {})
    (folder / "head.safetensors").write_bytes(b"1")
    return folder


@pytest.mark.parametrize("settings", [Settings(), SILENT])
def test_traces_keep_the_route_and_the_config_the_router(tmp_path: Path, settings: Settings) -> None:
    folder = write_questions(tmp_path / "data", 6)
    evaluated = Evaluated("scripted", "0", router=router_name(None, "length"))
    run = prepare(Questions(), tmp_path / "a", evaluated, settings, data=folder)
    router = Router(Scripted(lambda question: "length" if question.id in ("q1", "q4") else "direct"))
    work(run, ScriptedEngine(script), ask=router.answer)
    read = read_run(tmp_path / "a")
    assert read.config.router == "route length, length 1"
    routes = [row.trace.routing.route for row in read.rows if row.trace and row.trace.routing]
    assert routes == ["direct", "length", "direct", "direct", "length", "direct"]
    assert read.by_id["q4"].prediction == "[length] 1 s"
    with pytest.raises(InputError, match="router route length, length 1 instead of"):
        prepare(Questions(), tmp_path / "a", Evaluated("scripted", "0"), settings, data=folder)


def test_a_run_from_before_there_were_routers_is_read(tmp_path: Path) -> None:
    folder = write_questions(tmp_path / "data", 2)
    prepare(Questions(), tmp_path / "a", Evaluated("scripted", "0"), data=folder)
    path = tmp_path / "a" / "config.json"
    config = json.loads(path.read_text())
    del config["router"]
    path.write_text(json.dumps(config))
    known = read_config(tmp_path / "a")
    assert isinstance(known, RunConfig)
    assert known.router == ""
    prepare(Questions(), tmp_path / "a", Evaluated("scripted", "0"), data=folder)


def test_a_routers_name_changes_with_all_that_decides(policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert router_name(None, None) == ""
    assert router_name(None, "direct/text") == "route direct/text"
    assert (
        router_name(None, "silence+ears") == f"route silence+ears, no ears, silence {find_tool('silence').version}"
    )
    monkeypatch.setenv("RELISTEN_TRANSCRIPTION_MODEL", "ear-2")
    monkeypatch.setenv("RELISTEN_TRANSCRIPTION_KEY_ENV", "OTHER_KEY")
    assert router_name(None, "speech") == f"route speech, speech {find_tool('speech').version} model ear-2"
    name = router_name(policy, None)
    assert name.startswith("policy ")
    assert name.endswith(", no ears, length 1")
    assert router_name(policy.parent, None) == name
    shutil.copytree(policy, policy.parent / "copy")
    assert router_name(policy.parent / "copy", None) == name
    monkeypatch.setitem(find_tool("length").__dict__, "version", 2)
    assert router_name(policy, None).endswith("length 2")
    (policy / "head.safetensors").write_bytes(b"2")
    assert router_name(policy, None).split(",")[0] != name.split(",")[0]
    with pytest.raises(InputError, match="give the --out of a relisten router train"):
        router_name(policy.parent / "none", None)


def test_the_command_line_counts_routes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, untrained_folder: Path
) -> None:
    folder = write_questions(tmp_path / "data", 3)
    command = ["eval", "questions", "--data", folder, "--out", tmp_path / "a", "--model", untrained_folder]
    command += ["--device", "cpu", "--max-tokens", 4, "--route", "length", "--tool-cache", tmp_path / "kept.sqlite"]
    status, _, err = relisten(capsys, *command)
    assert status == 0
    assert "routes: 3 length\n" in err
    traces = [row.trace for row in read_run(tmp_path / "a").rows]
    assert [trace.findings for trace in traces if trace] == [("[length] 1 s",)] * 3
    status, _, err = relisten(capsys, *command[:-4])
    assert status == 2
    assert "router route length, length 1 instead of" in err
