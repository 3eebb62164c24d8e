"""Whole runs, with scripted answers: what is learned, what is kept, and that they go on as if nothing had
happened."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.sounds import noise_clip
from support.tools import extra_tools

from relisten.audio import write_clip
from relisten.engines.scripted import ScriptedEngine
from relisten.errors import InputError
from relisten.jsonl import write_rows
from relisten.models import Family, load
from relisten.question import Question
from relisten.router.looks import LookStore, look_at
from relisten.router.policy import load_policy
from relisten.router.routes import DIRECT, Route
from relisten.router.training.config import RouterConfig
from relisten.router.training.prepare import read_sets
from relisten.router.training.trainer import TrainedRouter, train_router
from relisten.train.watch import Watch

LENGTH = Route(("length",))


@pytest.fixture(autouse=True)
def _tools() -> Iterator[None]:
    with extra_tools():
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions on how long a clip is, which the tool knows and the model does not; and on what makes the sound,
    where whatever the tool says leads it astray."""
    folder = tmp_path_factory.mktemp("questions")
    for number in range(4):
        write_clip(folder / f"{number}.wav", noise_clip(1 + number % 2, number))
    for name, numbers in (("train", range(40)), ("validation", range(40, 60))):
        rows = [
            {
                "id": f"q{number}",
                "audio": f"{number % 4}.wav",
                "question": "How long?" if number % 3 else "What is it?",
                "choices": ["1 s", "2 s", "noise"],
                "answer": f"{1 + number % 2} s" if number % 3 else "noise",
                "kind": "long" if number % 3 else "what",
            }
            for number in numbers
        ]
        write_rows(folder / f"{name}.jsonl", rows)
    return folder


class Reasoner(ScriptedEngine):
    """Knows noise, guesses lengths badly, and believes what a tool says."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(self._say)

    def _say(self, question: Question) -> str:
        self.asked.append(question.id)
        said = question.findings[0].removeprefix("[length] ") if question.findings else "noise"
        return f"<answer>{said}</answer>"


@pytest.fixture
def config(files: Path, tiny_folder: Path) -> RouterConfig:
    return RouterConfig(
        model=str(tiny_folder),
        questions=str(files / "train.jsonl"),
        validation=str(files / "validation.jsonl"),
        tools="length,brief",
        steps=40,
        batch_size=16,
        lr=0.05,
        save_every=5,
        tensorboard=False,
        device="cpu",
    )


def run(
    config: RouterConfig, out: Path, engine: ScriptedEngine | None = None, watch: Watch | None = None
) -> TrainedRouter:
    return train_router(config, out, watch=watch, engine=lambda family: engine or Reasoner())


def _some(questions: str, count: int) -> str:
    """A file beside it with the first so many of the questions."""
    lines = Path(questions).read_text().splitlines(keepends=True)
    path = Path(questions).with_name(f"first-{count}.jsonl")
    path.write_text("".join(lines[:count]))
    return str(path)


def numbers(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights(out: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(out / "state.pt", weights_only=True)["weights"]
    return found


def test_it_learns_when_a_tool_helps(config: RouterConfig, files: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    done = run(config, tmp_path / "run", watch=Watch(on_note=notes.append))
    assert done.validation["direct"] == pytest.approx(0.3)
    assert done.validation["router"] == done.validation["oracle"] == 1.0
    assert done.validation["calls"] == pytest.approx(0.7)
    assert done.routes == ("direct", "length", "brief")
    assert any("reads layer 0" in note for note in notes)
    told = json.loads((tmp_path / "run" / "training.json").read_text())
    assert told["reasoner_before"] == told["reasoner_after"] == done.reasoner

    family = load(config.model, "float32")
    policy = load_policy(tmp_path / "run", family)
    asked = Question("How long?", ("1 s", "2 s", "noise"), noise_clip(2.0))
    with LookStore(tmp_path / "looks") as store:
        seen = look_at(Reasoner(), [asked, replace(asked, text="What is it?")], "r", store)
    assert policy.decide(asked, noise_clip(2.0), seen[0]).route == LENGTH
    assert policy.decide(asked, noise_clip(2.0), seen[1]).route == DIRECT
    assert done.weights == 3 * 32 + 3
    assert done.share < 0.01


@pytest.mark.parametrize("estimator", ["sampled", "exact"])
@pytest.mark.parametrize("killed", [1, 7, 12])
def test_a_run_goes_on_as_if_it_had_never_stopped(
    estimator: str, killed: int, config: RouterConfig, tmp_path: Path
) -> None:
    config = replace(config, estimator=estimator, steps=15)
    run(config, tmp_path / "whole")

    def die(done: int, steps: int, values: dict[str, float]) -> None:
        if done == killed:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "ended", watch=Watch(on_step=die))
    engine = Reasoner()
    run(config, tmp_path / "ended", engine)
    assert engine.asked == []  # every outcome was kept
    assert numbers(tmp_path / "ended") == numbers(tmp_path / "whole")
    whole, ended = weights(tmp_path / "whole"), weights(tmp_path / "ended")
    assert all(torch.equal(whole[name], ended[name]) for name in whole)


def test_a_finished_run_is_told_again(config: RouterConfig, tmp_path: Path) -> None:
    first = run(config, tmp_path)
    again = run(config, tmp_path)
    assert replace(again, seconds={}) == replace(first, seconds={})


def test_outcomes_are_shared_by_runs(config: RouterConfig, tmp_path: Path) -> None:
    shared = replace(config, known=str(tmp_path / "known"), steps=2)
    run(shared, tmp_path / "one")
    engine = Reasoner()
    run(replace(shared, seed=1, lr=0.01), tmp_path / "two", engine)
    assert engine.asked == []


def test_other_settings_are_refused(config: RouterConfig, tmp_path: Path) -> None:
    run(replace(config, steps=2), tmp_path)
    with pytest.raises(InputError, match=r"lr 0\.05 instead of 0\.1"):
        run(replace(config, steps=2, lr=0.1), tmp_path)


def test_without_a_validation_set_a_fifth_is_held_out(config: RouterConfig, tmp_path: Path) -> None:
    notes: list[str] = []
    done = run(replace(config, validation="", steps=2), tmp_path, watch=Watch(on_note=notes.append))
    assert done.validation["questions"] == 8
    assert any("the last 8 of 40" in note for note in notes)
    with pytest.raises(InputError, match="has 1 of the 5 questions needed"):
        read_sets(replace(config, validation="", questions=_some(config.questions, 1)), notes.append)


def test_a_reasoner_that_changes_is_found_out(config: RouterConfig, tmp_path: Path) -> None:
    def meddle(family: Family) -> ScriptedEngine:
        with torch.no_grad():
            next(family.thinker.parameters()).add_(1e-6)
        return Reasoner()

    with pytest.raises(RuntimeError, match="weights changed"):
        train_router(replace(config, steps=2), tmp_path, engine=meddle)


def test_a_head_that_is_too_large_is_refused(config: RouterConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="max_share allows"):
        run(replace(config, hidden=64), tmp_path)
    run(replace(config, hidden=64, max_share=1.0, steps=1), tmp_path / "told")


def test_what_cannot_be_trained_on_is_told(config: RouterConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no questions: give --questions"):
        run(replace(config, questions=""), tmp_path / "a")
    with pytest.raises(InputError, match="no_such"):
        run(replace(config, tools="no_such"), tmp_path / "b")


def test_a_language_model_learns_to_write_names(config: RouterConfig, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    # Random weights are certain of nothing, whatever an adapter does before them: their last layer is made louder.
    family = load(config.model, "float32")
    with torch.no_grad():
        family.lm_head.weight.mul_(10)
    family.save(tmp_path / "loud")
    config = replace(config, model=str(tmp_path / "loud"), policy="lm", tools="length", names_steps=8, steps=3)
    config = replace(config, batch_size=2, validation="", questions=_some(config.questions, 10), lora_alpha=8.0)
    done = run(config, tmp_path / "whole")
    rows = numbers(tmp_path / "whole")
    assert rows[0]["val_malformed"] > 0.9
    assert rows[8]["loss"] < 0.7 * rows[1]["loss"]  # of writing any of the names
    assert done.steps == 11

    def die(done: int, steps: int, values: dict[str, float]) -> None:
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "ended", watch=Watch(on_step=die))
    run(config, tmp_path / "ended")
    assert numbers(tmp_path / "ended") == rows
    policy = load_policy(tmp_path / "ended")
    assert not policy.looks
    assert policy.decide(Question("How long?"), noise_clip(1.0)).route in policy.routes
