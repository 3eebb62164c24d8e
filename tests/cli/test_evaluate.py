"""`relisten eval` and `relisten score` as a user gives them."""

from __future__ import annotations

import importlib
import inspect
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.cli import lines, run
from support.questions import write_questions, write_rows

from relisten.evaluate.results import read_run
from relisten.evaluate.runner import work

MMAR = Path(__file__).parents[1] / "evaluate" / "data" / "MMAR-meta.jsonl"


@pytest.fixture
def options(untrained_folder: Path) -> list[object]:
    return ["--model", untrained_folder, "--max-tokens", 5, "--device", "cpu"]


def test_scenes_end_to_end_and_once_more(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[object]
) -> None:
    command = ["eval", "scenes", "--out", tmp_path / "a", "--limit", 6, *options]
    status, out, _ = run(capsys, *command)
    assert status == 0
    assert "6 rows, 0.00 listens per answer" in out
    assert "macro average" in out
    kept = {path: path.read_bytes() for path in (tmp_path / "a").glob("traces*")}
    status, out, _ = run(capsys, *command, "--json")
    assert (status, json.loads(out)["scores"]["strict"]["total"]) == (0, 6)
    assert {path: path.read_bytes() for path in (tmp_path / "a").glob("traces*")} == kept
    assert json.loads((tmp_path / "a" / "summary.json").read_text()) == json.loads(out)
    status, _, err = run(capsys, *command, "--temperature", 0.7)
    assert status == 2
    assert "temperature 0.0 instead of 0.7" in err
    status, out, _ = run(capsys, "score", "scenes", tmp_path / "a")
    assert status == 0
    assert "6 rows" in out


def test_half_a_character_and_what_looks_like_markup_end_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[object]
) -> None:
    path = write_questions(tmp_path / "data", 4) / "questions.jsonl"
    write_rows(
        path, [row | {"id": row["id"] + "\ud83d", "[/g]": row.pop("group") + "\udc80"} for row in lines(path)]
    )
    command = ["eval", "questions", "--data", path.parent, "--out", tmp_path / "a", *options]
    status, out, _ = run(capsys, *command)
    assert status == 0
    assert "odd\\udc80" in out
    assert "[/g] (" in out
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert set(summary["scores"]["strict"]["breakdowns"]["[/g]"]["groups"]) == {"even\udc80", "odd\udc80"}
    for other in (command, ["report", tmp_path / "a"], ["score", "questions", tmp_path / "a"]):
        status, out, _ = run(capsys, *other, "--json")
        assert status == 0
        assert "odd\udc80" in json.dumps(json.loads(out), ensure_ascii=False)


def test_a_missing_sound_is_named_and_the_file_to_hand_in_is_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[object]
) -> None:
    folder = write_questions(tmp_path / "data", 1)
    rows: list[dict[str, Any]] = [json.loads(line) for line in MMAR.read_text(encoding="utf-8").splitlines()[:3]]
    for row in rows[:2]:
        row["audio_path"] = "noise.wav"
    write_rows(folder / "MMAR-meta.jsonl", rows)
    status, out, err = run(capsys, "eval", "mmar", "--data", folder, "--out", tmp_path / "a", *options)
    assert status == 1
    assert "1 failed" in out
    assert rows[2]["id"] in out
    assert "predictions.jsonl" in err
    status, out, _ = run(capsys, "score", "mmar", tmp_path / "a" / "predictions.jsonl", "--json")
    assert json.loads(out)["official_script"]["total"] == 2


def test_what_is_wrong_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[object]
) -> None:
    for command, told in [
        (["eval", "nonsense", "--out", tmp_path / "a", *options], "'nonsense' is unknown"),
        (["eval", "mmar", "--out", tmp_path / "a", *options], "needs its data"),
        (["eval", "scenes", "--out", tmp_path / "a", *options, "--model", tmp_path / "b"], "no folder"),
        (["eval", "scenes", "--out", tmp_path / "a", *options, "--limit", 0], "at least 1"),
        (["eval", "scenes", "--out", tmp_path / "a", *options, "--processes", 0], "1 or more"),
        (["eval", "scenes", "--out", tmp_path / "a", *options, "--at-once", 0], "--at-once 0: give 1 or more"),
        (["eval", "scenes", "--out", tmp_path / "a", "--processes", 2, "--engine", "vllm"], "by itself"),
        (["score", "mmar", tmp_path / "missing.json"], "cannot be read"),
        (["score", "mmar", tmp_path], "no run folder"),
    ]:
        status, out, err = run(capsys, *command)
        assert (status, out) == (2, "")
        assert told in err
        assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "a").exists()


def test_the_run_folder_is_checked_before_there_are_scenes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relisten.evaluate.benchmarks.scenes._simulated", lambda: pytest.fail("made scenes"))
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        status, _, err = run(capsys, "eval", "scenes", "--out", out)
        assert (status, err) == (2, f"relisten: {tmp_path / 'file'}: is a file; give a folder as --out\n")
    status, _, err = run(capsys, "eval", "scenes", "--out", tmp_path)
    assert status == 2
    assert "is no run folder and holds 'file'" in err
    monkeypatch.setattr("os.access", lambda path, mode: False)
    status, _, err = run(capsys, "eval", "scenes", "--out", tmp_path / "new")
    assert (status, err) == (2, f"relisten: {tmp_path}: cannot be written; give another --out\n")


def test_a_run_can_be_read_while_it_goes_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[object]
) -> None:
    run(capsys, "eval", "scenes", "--out", tmp_path / "a", "--limit", 4, *options)
    (path,) = (tmp_path / "a").glob("traces*")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]) + '{"id": "tor')
    assert read_run(tmp_path / "a").finished == 3
    status, out, _ = run(capsys, "score", "scenes", tmp_path / "a")
    assert status == 0
    assert "1 not asked yet" in out


def test_several_processes_share_one_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def work_once_another_does(*arguments: Any, **named: Any) -> None:
        while not list((tmp_path / "a").glob("traces-*.jsonl")):
            time.sleep(0.05)
        work(*arguments, **named)

    monkeypatch.setattr("relisten.evaluate.runner.work", work_once_another_does)
    command = ["eval", "scenes", "--out", tmp_path / "a", "--limit", 24, "--at-once", 1, *options]
    status, out, err = run(capsys, *command, "--processes", 2, "--json")
    assert (status, json.loads(out)["scores"]["strict"]["total"]) == (0, 24), err
    assert "failed" not in err
    monkeypatch.undo()
    files = sorted((tmp_path / "a").glob("traces-*.jsonl"))
    assert sum(len(lines(file)) for file in files) == 24
    assert len(list((tmp_path / "a" / "workers").glob("*.json"))) == 2
    alone = tmp_path / "b"
    run(capsys, *["eval", "scenes", "--out", alone, "--limit", 24, *options])
    answers = [
        {row.id: row.trace.token_ids for row in read_run(folder).rows if row.trace is not None}
        for folder in (tmp_path / "a", alone)
    ]
    assert len(answers[0]) == 24
    assert answers[0] == answers[1]


def test_further_processes_are_given_every_option(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Mapping[str, Any]] = []

    @contextmanager
    def nobody_else(command: object, parameters: Sequence[Mapping[str, Any]], logs: Path) -> Iterator[None]:
        seen.extend(parameters)
        yield

    module = importlib.import_module("relisten.cli.evaluate")
    monkeypatch.setattr(module, "side_by_side", nobody_else)
    command = ["eval", "scenes", "--out", tmp_path / "a", "--limit", 1, "--seed", 3, *options]
    assert run(capsys, *command, "--processes", 3)[0] == 0
    assert len(seen) == 2
    assert seen[0].keys() | {"processes", "as_json"} == inspect.signature(module.evaluate).parameters.keys()
    assert (seen[0]["seed"], seen[0]["limit"], seen[0]["device"]) == (3, 1, "cpu")


def test_a_process_that_fails_is_told_and_stops_nobody(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def work_once_the_other_failed(*arguments: Any, **named: Any) -> None:
        log = tmp_path / "a" / "process-2.log"
        while not log.exists() or "nonsense" not in log.read_text():
            time.sleep(0.05)
        work(*arguments, **named)

    monkeypatch.setattr("relisten.evaluate.runner.work", work_once_the_other_failed)
    # By name the command itself is found, not its module.
    module = importlib.import_module("relisten.cli.evaluate")
    monkeypatch.setattr(module, "_devices", lambda *_: ["cpu", "nonsense"])
    command = ["eval", "scenes", "--out", tmp_path / "a", "--limit", 3, *options, "--dtype", "float32", "--json"]
    status, out, err = run(capsys, *command, "--processes", 2)
    assert (status, json.loads(out)["scores"]["strict"]["total"]) == (0, 3)
    assert "process-2 failed" in err
    assert "nonsense" in (tmp_path / "a" / "process-2.log").read_text()


@pytest.mark.parametrize(
    ("gpus", "device", "processes", "engine", "devices"),
    [
        (0, "auto", 2, "native", ["cpu", "cpu"]),
        (2, "auto", 1, "vllm", ["cuda"]),  # vLLM knows no card by its number
        (2, "auto", 2, "native", ["cuda:0", "cuda:1"]),
        (1, "cuda", 2, "native", ["cuda", "cuda"]),
    ],
)
def test_where_each_process_has_its_model(
    gpus: int, device: str, processes: int, engine: str, devices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert importlib.import_module("relisten.cli.evaluate")._devices(device, processes, engine) == devices
