"""Numbers of a run are kept, and read as if the run had never stopped."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.cli import lines

from relisten.errors import InputError
from relisten.train.metrics import Metrics


def test_rows_behind_the_step_it_goes_on_from_are_dropped(tmp_path: Path) -> None:
    first = Metrics(tmp_path)
    for step in (1, 2, 3):
        first.log(step, {"loss": 1 / step})
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # killed while it wrote
    again = Metrics(tmp_path, done=2)
    again.log(3, {"loss": 0.5, "tokens": 12345678})
    again.close()
    assert lines(tmp_path / "metrics.jsonl") == [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 0.5},
        {"step": 3, "loss": 0.5, "tokens": 12345678},
    ]


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_a_tracker_gets_the_same_numbers(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    fake = SimpleNamespace(
        init=lambda **given: calls.append(given),
        log=lambda values, step: calls.append((step, values)),
        finish=lambda: calls.append("finish"),
    )
    monkeypatch.setitem(sys.modules, name, fake)
    (tmp_path / "run-7").mkdir()
    for done in (-1, 1):  # the second time the run goes on
        metrics = Metrics(tmp_path / "run-7", done, tracker=name)
        metrics.log(done + 1, {"loss": 2.0})
        metrics.close()
    first, again = calls[0], calls[3]
    assert first["name"] == "run-7"
    assert calls[1:3] == [(0, {"loss": 2.0}), "finish"]
    assert again == first | {"resume": "allow"}
    assert ("id" in first) == (name == "wandb")


def test_a_tracker_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match="pip install wandb"):
        Metrics(tmp_path, tracker="wandb")


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="event files need tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    metrics = Metrics(tmp_path, tensorboard=True)
    metrics.log(1, {"loss": 2.0})
    metrics.log(2, {"loss": 1.5})
    metrics.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 2.0), (2, 1.5)]
