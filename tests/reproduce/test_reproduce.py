"""The whole of it at the smallest size: every job, the table, the page."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.cli import run

from relisten.errors import EngineError, InputError
from relisten.evaluate.results import read_run
from relisten.reproduce.arms import ARMS, AT_EQUAL_TIME, PAIRS
from relisten.reproduce.base import write_start
from relisten.reproduce.evaluations import steps_in_time_of
from relisten.reproduce.jobs import list_jobs
from relisten.reproduce.page import notes
from relisten.reproduce.plan import BUDGETS, Plan
from relisten.reproduce.probe import measure, regimes
from relisten.reproduce.table import collect
from relisten.trace import Trace

PLAN = Plan(BUDGETS["smoke"], (0,), tuple(ARMS))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every job is done, all of them in this process."""
    folder = tmp_path_factory.mktemp("ablation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: 1)
        (folder / "done").mkdir()
        (folder / "plan.json").write_text(json.dumps(PLAN.to_json()))
        for job in list_jobs(PLAN):
            job.run(folder, 1)
            (folder / "done" / job.name).touch()
    return folder


def test_a_finished_one_is_told_and_drawn(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "reproduce", "--out", finished, "--budget", "smoke", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found == json.loads((finished / "results.json").read_text())
    assert [one["arm"] for one in found["figures"]] == [*ARMS]
    assert len(found["differences"]) == len(PAIRS)
    assert "far too few steps" in found["notes"][1]
    for one in found["figures"]:
        assert one["accuracy"]["n"] == 3
        assert one["greedy"]["n"] == 3
        assert one["long"]["n"] == 2
        assert one["latency"] > 0
        assert sum(kind["n"] for kind in one["kinds"].values()) == 3
    page = (finished / "index.html").read_text()
    assert all(f">{arm}<" in page.replace("&#x27;", "'") for arm in ARMS)
    assert "http" not in page.replace("http-equiv", "")
    assert {"Reinforcement at equal steps", "Reinforcement at equal time", "By kind of question"} <= {
        part.split("<")[0] for part in page.split(">")
    }
    assert [(one["arm"], one["over"]) for one in found["at_equal_time"]] == [*AT_EQUAL_TIME]
    assert all(one["accuracy"]["n"] == one["greedy"]["n"] == 3 for one in found["at_equal_time"])
    code, out, err = run(capsys, "reproduce", "--out", finished, "--budget", "smoke", "--arms", "D,A")
    assert code == 0, err
    assert "D over A (all of it)" in out
    assert "C over" not in out


def test_rl_with_listening_is_told_over_rl_without(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "reproduce", "--out", finished, "--budget", "smoke", "--arms", "B',D")
    assert code == 0, err
    told = "RL with listening, over RL without it, both from SFT"
    assert f"D over B' ({told})" in out
    assert told in (finished / "index.html").read_text()


def test_an_arm_is_asked_as_it_was_when_another_was_done(finished: Path, tmp_path: Path) -> None:
    rows = {"D": (1.0, 1.0, 2.0, 2.0), "E": (1.0, 1.0, 1.5, 1.0)}  # minutes a step; E is done after 4.5
    rows["B'"] = rows["E"]
    for name, minutes in rows.items():
        run = tmp_path / "seed-0" / ARMS[name].folder / "rl"
        for step in (2, 3, 4):
            (run / "checkpoints" / f"step-{step:06}").mkdir(parents=True)
        (run / "metrics.jsonl").write_text(
            '{"step": 0, "val_right": 0.5}\n'
            + "".join(
                json.dumps({"step": step + 1, "seconds_rollout": 40 * spent, "seconds_update": 20 * spent}) + "\n"
                for step, spent in enumerate(minutes)
            )
        )
    (tmp_path / "seed-0" / "sft").mkdir()
    supervised = [{"step": 1, "seconds": 30.0}, {"step": 2, "seconds": 300.0, "validation_loss": 1.0}]
    (tmp_path / "seed-0" / "sft" / "metrics.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in supervised)
    )
    # A minute of SFT, which E has not had; B' has had the same.
    assert steps_in_time_of(tmp_path, 0, ARMS["D"], ARMS["E"]) == 2
    assert steps_in_time_of(tmp_path, 0, ARMS["D"], ARMS["B'"]) == 3
    assert steps_in_time_of(tmp_path, 0, ARMS["E"], ARMS["D"]) == 4
    shutil.rmtree(tmp_path / "seed-0" / "D" / "rl" / "checkpoints" / "step-000002")
    assert steps_in_time_of(tmp_path, 0, ARMS["D"], ARMS["E"]) == 0
    shutil.rmtree(tmp_path / "seed-0" / "D" / "rl" / "checkpoints")
    with pytest.raises(InputError, match="no checkpoints"):
        steps_in_time_of(tmp_path, 0, ARMS["D"], ARMS["E"])

    [early] = [one for one in collect(PLAN, finished).at_equal_time if one.over == "E"]
    config = json.loads((finished / "seed-0" / "D" / "at-E-with-sft" / "test" / "config.json").read_text())
    step = early.steps[0]
    asked = f"D/rl/checkpoints/step-{step:06}" if step else "sft/checkpoint"
    assert json.dumps(config).count(asked) == 1


def test_an_evaluation_is_done_when_every_question_has_an_answer(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = replace(PLAN, arms=("A",))
    for name in ("base", "sets"):
        (tmp_path / name).symlink_to(finished / name)
    shutil.copytree(finished / "seed-0" / "A", tmp_path / "seed-0" / "A")
    [traces] = (tmp_path / "seed-0" / "A" / "test").glob("traces-*.jsonl")
    first, *others = traces.read_text().splitlines(keepends=True)
    failed = {
        "id": json.loads(first)["id"],
        "trace": {**json.loads(first)["trace"], "finish": "failed", "error": "hum"},
    }
    traces.write_text(json.dumps(failed) + "\n" + "".join(others[1:]))
    table = collect(plan, tmp_path)
    assert table.figures[0].failed == 2
    assert "Arm A: 2 questions failed" in notes(plan, table)[-1]
    job = next(job for job in list_jobs(plan) if job.name == "seed-0-A-eval")
    with monkeypatch.context() as patch:
        patch.setattr("relisten.evaluate.runner.work", lambda *_, **__: None)
        with pytest.raises(EngineError, match="2 questions have no answer, such as for: hum"):
            job.run(tmp_path, 1)
    job.run(tmp_path, 1)
    assert collect(plan, tmp_path).figures[0].failed == 0


def test_answers_are_sampled_as_in_the_paper_and_greedy_beside_it(finished: Path) -> None:
    for what, temperature in (("test", 0.7), ("long", 0.7), ("greedy", 0.0)):
        for row in read_run(finished / "seed-0" / "D" / what).rows:
            assert isinstance(row.trace, Trace)
            assert row.trace.sampling.temperature == temperature


def test_half_speed_is_heard_in_training_and_in_evaluation_alike(finished: Path) -> None:
    for name, speed in (("D", 1.0), ("F", 0.5)):
        here = finished / "seed-0" / name
        answered = [row.trace for row in read_run(here / "test").rows]
        assert all(isinstance(trace, Trace) and trace.sampling.crop_speed == speed for trace in answered)
        assert f"crop_speed = {speed}" in (here / "rl" / "config.toml").read_text()


def test_a_base_starts_from_all_but_the_tags(tmp_path: Path) -> None:
    from relisten import models

    write_start("echo-tiny", 0, tmp_path / "start")
    before, after = (
        models.load(m, dtype="float32").thinker.state_dict() for m in ("echo-tiny", tmp_path / "start")
    )
    family = models.load("echo-tiny")
    tags = {id for tag in ("<seg>", "</seg>") for id in family.encode_response(tag)}
    for name in before:
        changed = (before[name] != after[name]).reshape(len(before[name]), -1).any(1).nonzero().flatten()
        of_text = name.endswith(("embed_tokens.weight", "lm_head.weight"))
        assert set(changed.tolist()) == (tags if of_text else set()), name
    assert after["lm_head.weight"][sorted(tags)].std() == pytest.approx(0.05, rel=0.3)


def test_the_probe_tells_what_a_crop_is_worth() -> None:
    told: list[str] = []
    rows = measure("echo-tiny", told.append, scenes=2)
    assert len(rows) == len(list(regimes())) == len(told) - 1
    for row in rows:
        assert 0 <= row["clip"] <= 1
        assert row["room"] == pytest.approx(row["crop"] - row["clip"], abs=2e-4)
        assert row["tokens"] > 0
