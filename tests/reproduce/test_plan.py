"""Arms as the paper has them, plans that come back from their file, sets that keep apart, and the runner."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from relisten.errors import InputError
from relisten.protocol import Format
from relisten.question import Question, read_questions
from relisten.reproduce import runner
from relisten.reproduce.arms import ARMS, PAIRS, WHOLE, WINDOWS, find_arms
from relisten.reproduce.curves import curves, losses
from relisten.reproduce.jobs import list_jobs
from relisten.reproduce.plan import BUDGETS, HARD, LONG_SECONDS, Plan
from relisten.reproduce.runner import JobError, State, reproduce
from relisten.reproduce.sets import LONG, RL, clip_sets, make_set, questions_file
from relisten.train.rewards import Reward

SMOKE = Plan(BUDGETS["smoke"], (0,), tuple(ARMS))


def test_arms_are_those_of_the_paper() -> None:
    assert [(arm.name, arm.format, arm.supervised, arm.questions) for arm in ARMS.values()][:8] == [
        ("A", Format.TEXT, False, ""),
        ("B", Format.GROUNDED, True, ""),
        ("B'", Format.GROUNDED, True, WINDOWS),
        ("C", Format.INTERLEAVED, True, ""),
        ("D", Format.INTERLEAVED, True, WINDOWS),
        ("D'", Format.INTERLEAVED, True, WHOLE),
        ("E", Format.TEXT, False, WINDOWS),
        ("E'", Format.TEXT, False, WHOLE),
    ]
    assert ARMS["F"] == replace(ARMS["D"], name="F", about=ARMS["F"].about, crop_speed=0.5)
    for arm in ARMS.values():
        assert bool(arm.reward) == bool(arm.questions)
        assert not arm.reward or Reward.parse(arm.reward)
    assert all({one, other} <= ARMS.keys() for one, other, _ in PAIRS)


def test_arms_by_name() -> None:
    assert [arm.name for arm in find_arms(["d'", " a ", "B\N{RIGHT SINGLE QUOTATION MARK}"])] == ["A", "B'", "D'"]
    assert len(find_arms([])) == 9
    with pytest.raises(InputError, match="arm 'G'"):
        find_arms(["A", "G"])


@pytest.mark.parametrize("name", BUDGETS)
def test_a_plan_comes_back_from_its_file(name: str) -> None:
    plan = Plan(BUDGETS[name], (0, 1), ("A", "D'"))
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    with pytest.raises(InputError, match="no plan"):
        Plan.from_json({"budget": {}})
    with pytest.raises(InputError, match="--seeds"):
        replace(plan, seeds=())


def test_jobs_need_what_comes_before_them() -> None:
    jobs = list_jobs(replace(SMOKE, seeds=(0, 2)))
    known: set[str] = set()
    for job in jobs:
        assert set(job.needs) <= known
        known.add(job.name)
    needs = {job.name: job.needs for job in jobs}
    assert needs["seed-2-D-rl"] == needs["seed-2-B-eval"] == needs["seed-2-C-eval"] == ("seed-2-sft",)
    assert needs["seed-0-E-prime-rl"] == needs["seed-0-A-eval"] == needs["seed-2-sft"] == ("base",)
    assert "seed-2-A-eval" not in needs  # the base is the same for all seeds
    assert needs["seed-0-F-eval"] == ("seed-0-F-rl",)
    # Without SFT in its clock the first was done by versions that had another name for it.
    assert {"seed-0-D-at-E-with-sft-eval", "seed-0-D-at-B-prime-eval"} <= needs.keys()
    assert not any("sft" in job.name for job in list_jobs(replace(SMOKE, arms=("A", "E"))))


def test_sets_are_apart_and_questions_about_whole_clips_name_no_time(tmp_path: Path) -> None:
    sets = {clips.name: clips for clips in clip_sets(BUDGETS["full"])}
    assert len({(clips.split, clips.seed) for clips in sets.values()}) == 5
    assert {clips.split for clips in sets.values()} == {"train", "validation", "test"}
    assert sets["test"].limit == 1000
    longer = sets[LONG].spec(HARD)
    assert longer.duration == (LONG_SECONDS, LONG_SECONDS)
    assert longer.events[1] / LONG_SECONDS == pytest.approx(HARD.events[1] / HARD.duration[1])
    few = replace(sets[RL], clips=4)
    assert len(list(make_set(few, HARD, tmp_path, 1))) == 4
    for asked, timed in ((WINDOWS, True), (WHOLE, False)):
        questions = [q for q in read_questions(questions_file(tmp_path, RL, asked)) if isinstance(q, Question)]
        assert questions
        assert any(any(c.isdigit() for c in question.text) for question in questions) == timed
        assert all(question.clip().duration == pytest.approx(10.0) for question in questions)
    assert not list(make_set(few, HARD, tmp_path, 1))  # nothing is made twice
    with pytest.raises(Exception, match="are wanted"):
        list(make_set(replace(few, limit=500), HARD, tmp_path, 1))


STAND_IN = """#!/bin/sh
# relisten.reproduce's jobs in its place: python -m relisten.reproduce OUT JOB PROCESSES
echo "$4 with $5" >> "$3/order"
case "$4" in *"$FAILS"*) echo "out of memory"; exit 3;; esac
mkdir -p "$3/done"; touch "$3/done/$4"
"""


@pytest.fixture
def quick_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "stand-in"
    script.write_text(STAND_IN)
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(runner.sys, "executable", str(script))
    monkeypatch.setattr(runner, "_POLL", 0.01)
    monkeypatch.setenv("FAILS", "nothing")


@pytest.mark.usefixtures("quick_jobs")
def test_the_runner_does_every_job_once_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    states: list[State] = []
    monkeypatch.setenv("FAILS", "-D-rl")
    with pytest.raises(JobError, match=r"seed-0-D-rl failed \(exit status 3\)[\s\S]*out of memory"):
        reproduce(SMOKE, out, 2)
    monkeypatch.setenv("FAILS", "nothing")
    reproduce(SMOKE, out, 2, states.append)
    order = [line.rsplit(" with ")[0] for line in (out / "order").read_text().splitlines()]
    assert order.count("data") == order.count("seed-0-sft") == 1
    assert order.count("seed-0-D-rl") == 2
    jobs = {job.name for job in list_jobs(SMOKE)}
    assert set(order) == jobs == {path.name for path in (out / "done").iterdir()}
    assert states[-1] == State(len(jobs), len(jobs), ())
    assert all(len(state.running) <= 2 for state in states)
    assert "data with 2" in (out / "order").read_text()
    reproduce(replace(SMOKE, seeds=(0, 1)), out, 2)  # another seed is added
    assert {line.split(" with ")[0] for line in (out / "order").read_text().splitlines()} > jobs


@pytest.mark.usefixtures("quick_jobs")
def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    reproduce(replace(SMOKE, arms=("A",)), tmp_path / "out", 1)
    with pytest.raises(InputError, match="another budget"):
        reproduce(replace(SMOKE, budget=BUDGETS["quick"]), tmp_path / "out", 1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(InputError, match="holds other files"):
        reproduce(SMOKE, tmp_path / "other", 1)
    with pytest.raises(InputError, match="workers 0"):
        reproduce(SMOKE, tmp_path / "new", 0)


def test_curves_are_means_over_seeds_and_time_is_that_of_training(tmp_path: Path) -> None:
    plan = Plan(BUDGETS["smoke"], (0, 1), ("A", "D"))
    for seed, reward in ((0, 0.5), (1, 1.5)):
        folder = tmp_path / f"seed-{seed}" / "D" / "rl"
        folder.mkdir(parents=True)
        rows = [{"step": 0, "val_right": 0.25}]
        rows += [
            {"step": step, "reward": reward * step, "seconds_rollout": 30.0, "seconds_update": 30.0 + 60 * seed}
            for step in (1, 2)
        ]
        rows[-1]["val_right"] = 0.75
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / f"seed-{seed}" / "sft").mkdir()
        (tmp_path / f"seed-{seed}" / "sft" / "metrics.jsonl").write_text('{"step": 1, "seconds": 60.0}\n')
    found = curves(plan, tmp_path)
    assert found["reward"][0].points == ((1.0, 2.5, 1.0), (2.0, 4.0, 2.0))
    assert found["val_right"][0].points == ((0.0, 1.0, 0.25), (2.0, 4.0, 0.75))
    assert set(found) == {"reward", "val_right"}


def test_losses_of_supervised_training_are_told_where_all_seeds_have_them(tmp_path: Path) -> None:
    plan = Plan(BUDGETS["smoke"], (0, 1), ("A", "D"))
    (tmp_path / "base").mkdir()
    base = [{"stage": "answer", "step": step, "loss": 3.0 - step} for step in (1, 2)]
    checks = [{"stage": "answer", "step": 2, "validation_loss": 2.5}]
    (tmp_path / "base" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in base + checks))
    for seed in (0, 1):
        rows: list[dict[str, float]] = [{"step": step, "loss": 1.0 / step + seed} for step in range(1, 4 - seed)]
        for row in rows:
            row["validation_loss"] = 2 * row["loss"]
        (tmp_path / f"seed-{seed}" / "sft").mkdir(parents=True)
        path = tmp_path / f"seed-{seed}" / "sft" / "metrics.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {
        name: {line.name: [(step, value) for step, _, value in line.points] for line in lines}
        for name, lines in losses(plan, tmp_path).items()
    }
    # One validation of the base makes no curve; the second seed has no third step yet.
    assert found == {
        "loss of the base": {"training": [(1.0, 2.0), (2.0, 1.0)]},
        "loss of supervised fine-tuning": {
            "training": [(1.0, 1.5), (2.0, 1.0)],
            "validation": [(1.0, 3.0), (2.0, 2.0)],
        },
    }
