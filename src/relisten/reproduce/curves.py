"""Curves of trainings, from the metrics of their runs: means over seeds at every step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from relisten.jsonl import read_rows
from relisten.reproduce import folders
from relisten.reproduce.arms import ARMS, Arm
from relisten.reproduce.plan import Plan

QUANTITIES: Final[Mapping[str, str]] = {
    "reward": "reward",
    "right": "accuracy of the answers sampled for training",
    "val_right": "accuracy on validation questions, greedy",
    "listens": "listens an answer",
    "segment_seconds": "seconds a segment",
    "overlap": "overlap of segments",
    "words": "words an answer",
}
"""Names in `metrics.jsonl`, and what pages call them."""
LOSSES: Final[Mapping[str, str]] = {"loss": "training", "validation_loss": "validation"}
"""Likewise, of supervised training."""
_SPENT: Final = ("seconds_rollout", "seconds_prepare", "seconds_update")


@dataclass(frozen=True)
class Curve:
    """One quantity, of an arm or as the name says: (step, minutes of training, value) wherever it was measured."""

    name: str
    points: tuple[tuple[float, float, float], ...]


def curves(plan: Plan, folder: Path) -> dict[str, list[Curve]]:
    """The curves of every quantity, one for each arm that is reinforced, by `reinforced_rows`."""
    found: dict[str, list[Curve]] = {name: [] for name in QUANTITIES}
    for name in plan.arms:
        arm = ARMS[name]
        begun = [seed for seed in plan.seeds if (folders.rl(folder, seed, arm) / "metrics.jsonl").exists()]
        if not arm.questions or not begun:
            continue
        runs = [reinforced_rows(folder, seed, arm) for seed in begun]
        for quantity in QUANTITIES:
            points = _points(runs, quantity)
            if len(points) > 1:
                found[quantity].append(Curve(name, points))
    return {quantity: lines for quantity, lines in found.items() if lines}


def losses(plan: Plan, folder: Path) -> dict[str, list[Curve]]:
    """The curves of supervised training, of the base and of SFT: losses while it learns, and on validation."""
    paths = {
        "the base": [folders.base(folder) / "metrics.jsonl"],
        "supervised fine-tuning": [folders.sft(folder, seed) / "metrics.jsonl" for seed in plan.seeds],
    }
    found = {}
    for name, files in paths.items():
        runs = [_by_step(path) for path in files if path.exists()]
        lines = [Curve(told, _points(runs, row)) for row, told in LOSSES.items()]
        if lines := [line for line in lines if len(line.points) > 1]:
            found[f"loss of {name}"] = lines
    return found


def _points(runs: list[dict[int, dict[str, Any]]], quantity: str) -> tuple[tuple[float, float, float], ...]:
    """Means over the runs wherever all of them have the quantity."""
    steps = [step for step in runs[0] if all(quantity in run.get(step, {}) for run in runs)] if runs else []
    return tuple(
        (
            float(step),
            float(np.mean([run[step]["minutes"] for run in runs])),
            float(np.mean([run[step][quantity] for run in runs])),
        )
        for step in steps
    )


def reinforced_rows(folder: Path, seed: int, arm: Arm) -> dict[int, dict[str, Any]]:
    """The rows of an arm's reinforcement by step, with the minutes that its training had taken: those of SFT, where
    it comes from SFT, and of every step. Validation takes no time in them."""
    spent = _minutes_of_sft(folders.sft(folder, seed) / "metrics.jsonl") if arm.supervised else 0.0
    return _by_step(folders.rl(folder, seed, arm) / "metrics.jsonl", spent)


def _minutes_of_sft(path: Path) -> float:
    """A step that was followed by a validation, which is in its seconds, counts as the mean of the others."""
    rows = [row[1] for row in read_rows(path) if isinstance(row, tuple)]
    alone = [row["seconds"] for row in rows if "validation_loss" not in row] or [row["seconds"] for row in rows]
    return float(np.mean(alone)) * len(rows) / 60


def _by_step(path: Path, minutes: float = 0.0) -> dict[int, dict[str, Any]]:
    """The rows of a run by step, with the minutes of training behind them; `minutes` of them came before."""
    rows: dict[int, dict[str, Any]] = {}
    for row in read_rows(path):
        if isinstance(row, tuple):
            values = dict(row[1])
            minutes += sum(values.get(name, 0.0) for name in _SPENT) / 60
            rows.setdefault(values["step"], {}).update(values, minutes=minutes)
    return rows
