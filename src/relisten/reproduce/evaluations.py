"""The evaluations of a reproduction: of every arm, and of one arm as it was when another was done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from relisten.errors import EngineError, InputError
from relisten.evaluate.results import ResultRow, Run, read_run
from relisten.evaluate.run_folder import Settings
from relisten.evaluate.scoring import Outcome
from relisten.reproduce import folders
from relisten.reproduce.arms import Arm
from relisten.reproduce.curves import reinforced_rows
from relisten.reproduce.plan import MAX_TOKENS, Plan
from relisten.reproduce.sets import LONG, TEST, questions_file
from relisten.trace import Sampling
from relisten.train.exporting import export_folder

GREEDY: Final = "greedy"
ALONE: Final = "alone"
TEMPERATURE: Final = 0.7
"""Of answers in evaluation, as in the paper."""


@dataclass(frozen=True)
class Asked:
    """One evaluation: its folder, the questions and how they are asked."""

    name: str
    questions: str
    settings: Settings
    limit: int | None = None
    alone: bool = False
    """One question at a time."""


def evaluate(plan: Plan, seed: int, arm: Arm, folder: Path, processes: int) -> None:
    """Ask what an arm came to, as `OUT/seed-*/ARM/` is described in `folders`.

    Raises:
        EngineError: a question failed.
    """
    model, how = folders.checkpoint(folder, seed, arm), _settings(seed, arm)
    _ask(
        folder, model, folders.arm_folder(folder, seed, arm), f"{arm.name}, seed {seed}",
        (
            Asked(TEST, TEST, how),
            Asked(GREEDY, TEST, _greedy(how)),
            Asked(LONG, LONG, how),
            Asked(ALONE, TEST, how, plan.budget.alone, alone=True),
        ),
    )  # fmt: skip


def evaluate_at_equal_time(plan: Plan, seed: int, arm: Arm, other: Arm, folder: Path, processes: int) -> None:
    """Ask what `arm` was when `other` had done all its steps.

    Raises:
        EngineError: a question failed.
    """
    steps, how = steps_in_time_of(folder, seed, arm, other), _settings(seed, arm)
    exported = export_folder(folders.rl(folder, seed, arm), steps)
    model = exported if steps else folders.start(folder, seed, arm)
    _ask(
        folder, model, folders.at_equal_time(folder, seed, arm, other), f"{arm.name}, seed {seed}, {steps} steps",
        (Asked(TEST, TEST, how), Asked(GREEDY, TEST, _greedy(how))),
    )  # fmt: skip


def steps_in_time_of(folder: Path, seed: int, arm: Arm, other: Arm) -> int:
    """The last step of `arm`'s reinforcement that has a checkpoint and that it came to in no more time than `other`
    took for all of its own. What each spent on SFT counts.

    0 where `other` was done before the first of them; it may have been done before `arm`'s SFT was.

    Raises:
        InputError: there are no checkpoints.
    """
    run = folders.rl(folder, seed, arm)
    rows, others = (reinforced_rows(folder, seed, one) for one in (arm, other))
    allowed = max(row["minutes"] for row in others.values())
    exported = [int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*")]
    if not exported:
        raise InputError(f"{run}: has no checkpoints of its way; delete it and its file in done, and train it anew")
    return max((step for step in exported if rows[step]["minutes"] <= allowed), default=0)


def unfinished(run: Run) -> list[ResultRow]:
    """The questions of an evaluation that failed or were not asked yet."""
    return [row for row in run.rows if row.outcome() in (Outcome.FAILED, Outcome.PENDING)]


def _settings(seed: int, arm: Arm) -> Settings:
    sampling = Sampling(TEMPERATURE, seed=seed, max_tokens=MAX_TOKENS, crop_speed=arm.crop_speed)
    return Settings(arm.format, sampling)


def _greedy(settings: Settings) -> Settings:
    return replace(settings, sampling=replace(settings.sampling, temperature=0.0))


def _ask(folder: Path, model: Path, out: Path, name: str, evaluations: tuple[Asked, ...]) -> None:
    """Evaluate `model` in `out`, a folder for each evaluation."""
    from relisten.engines.native import NativeEngine
    from relisten.evaluate.benchmarks.questions import Questions
    from relisten.evaluate.provenance import model_hash
    from relisten.evaluate.run_folder import Evaluated, prepare
    from relisten.evaluate.runner import work
    from relisten.models import load

    evaluated = Evaluated(str(model), model_hash(model))
    with NativeEngine(load(model, "float32"), name=name) as engine:
        for one in evaluations:
            data = questions_file(folders.sets(folder), one.questions)
            run = prepare(Questions(), out / one.name, evaluated, one.settings, data=data, limit=one.limit)
            work(run, engine, at_once=1 if one.alone else None)
            if left := unfinished(read_run(out / one.name)):
                why = next((row.error for row in left if row.error), "never asked")
                raise EngineError(
                    f"{out / one.name}: {len(left)} questions have no answer, such as for: {why}; mend that and "
                    "give the same command again"
                )
