"""The work of a reproduction as jobs that know what they need. Each runs in a process of its own, may be killed at
any moment and goes on when it is run again: every trainer and every evaluation under it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from relisten.reproduce import evaluations, folders, trainings
from relisten.reproduce.arms import ARMS, AT_EQUAL_TIME, Arm
from relisten.reproduce.plan import Plan


@dataclass(frozen=True)
class Job:
    """One process's work.

    `run(folder, processes)` does it; `wide` jobs use several processors by themselves and run alone.
    """

    name: str
    run: Callable[[Path, int], None]
    needs: tuple[str, ...] = ()
    wide: bool = False
    counted: tuple[str, int] | None = None
    """Which file tells how far it is, a row for every so many of its units, and how many rows it will have."""

    def done(self, folder: Path) -> bool:
        return (folder / "done" / self.name).exists()


def list_jobs(plan: Plan) -> list[Job]:
    """All jobs, each behind those that it needs."""
    arms = [ARMS[name] for name in plan.arms]
    jobs = [
        Job("data", partial(trainings.make_data, plan), wide=True),
        Job("base", partial(trainings.make_base, plan), ("data",), wide=True),
    ]
    for seed in plan.seeds:
        jobs += _jobs_of(plan, seed, arms)
    return jobs


def _jobs_of(plan: Plan, seed: int, arms: list[Arm]) -> Iterator[Job]:
    here, budget = f"seed-{seed}", plan.budget
    sft = f"{here}-sft"
    if any(arm.supervised for arm in arms):
        rows = f"{here}/sft/metrics.jsonl"
        yield Job(sft, partial(trainings.fine_tune, plan, seed), ("base",), counted=(rows, budget.sft_steps))
    for arm in arms:
        if seed not in seeds_of(plan, arm):
            continue
        start = sft if arm.supervised else "base"
        if arm.questions:
            trained = f"{here}-{arm.folder}-rl"
            rows = f"{here}/{arm.folder}/rl/metrics.jsonl"
            counted = (rows, budget.rl_steps + 1)
            yield Job(trained, partial(trainings.reinforce, plan, seed, arm), (start,), counted=counted)
            start = trained
        yield Job(f"{here}-{arm.folder}-eval", partial(evaluations.evaluate, plan, seed, arm), (start,))
    for one, two in pairs_at_equal_time(plan):
        needs = (f"{here}-{one.folder}-rl", f"{here}-{two.folder}-rl")
        asked = partial(evaluations.evaluate_at_equal_time, plan, seed, one, two)
        yield Job(f"{here}-{one.folder}-{folders.equal_time(one, two)}-eval", asked, needs)


def seeds_of(plan: Plan, arm: Arm) -> tuple[int, ...]:
    """The seeds that an arm is evaluated with: the first alone where nothing is trained after the base."""
    return plan.seeds if arm.supervised or arm.questions else plan.seeds[:1]


def pairs_at_equal_time(plan: Plan) -> list[tuple[Arm, Arm]]:
    """Arms of which the first is asked as it was when the second was done, where the plan has both."""
    return [(ARMS[one], ARMS[two]) for one, two in AT_EQUAL_TIME if {one, two} <= set(plan.arms)]
