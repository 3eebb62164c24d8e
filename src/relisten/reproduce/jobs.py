"""The work of a reproduction as jobs that know what they need. Each runs in a process of its own, may be killed at
any moment and goes on when it is run again: every trainer and every evaluation under it does.

    OUT/plan.json                        what is reproduced
    OUT/sets/                            clips and questions
    OUT/pool/                            scenes of the bases
    OUT/base/                            what all arms start from, as in the paper: one for all seeds
    OUT/seed-0/sft/                      a training that arms share
    OUT/seed-0/D/rl/                     an arm's reinforcement
    OUT/seed-0/D/test/, greedy/, long/, alone/   its evaluations, as `relisten eval` writes them
    OUT/logs/, OUT/done/                 what jobs printed, and which are done
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from relisten.errors import EngineError
from relisten.evaluate.results import ResultRow, Run, read_run
from relisten.evaluate.scoring import Outcome
from relisten.protocol import Format
from relisten.reproduce.arms import ARMS, Arm
from relisten.reproduce.plan import Plan
from relisten.reproduce.sets import LONG, SFT, TEST, VALIDATION, clip_sets, make_set, questions_file

MAX_TOKENS: Final = 240
"""Sampled tokens of an answer: all of a clip of 25 s, sound by sound, takes fewer."""
SETS: Final = "sets"
POOL: Final = "pool"
GREEDY: Final = "greedy"
ALONE: Final = "alone"
TEMPERATURE: Final = 0.7
"""Of answers in evaluation, as in the paper."""


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
        Job("data", partial(_data, plan), wide=True),
        Job("base", partial(_base, plan), ("data",), wide=True),
    ]
    for seed in plan.seeds:
        jobs += _jobs_of(plan, seed, arms)
    return jobs


def _jobs_of(plan: Plan, seed: int, arms: list[Arm]) -> Iterator[Job]:
    here, budget = f"seed-{seed}", plan.budget
    sft = f"{here}-sft"
    if any(arm.supervised for arm in arms):
        rows = f"{here}/sft/metrics.jsonl"
        yield Job(sft, partial(_sft, plan, seed), ("base",), counted=(rows, budget.sft_steps))
    for arm in arms:
        if seed not in seeds_of(plan, arm):
            continue
        start = sft if arm.supervised else "base"
        if arm.questions:
            trained = f"{here}-{arm.folder}-rl"
            rows = f"{here}/{arm.folder}/rl/metrics.jsonl"
            yield Job(trained, partial(_rl, plan, seed, arm), (start,), counted=(rows, budget.rl_steps + 1))
            start = trained
        yield Job(f"{here}-{arm.folder}-eval", partial(_evaluate, plan, seed, arm), (start,))


def seeds_of(plan: Plan, arm: Arm) -> tuple[int, ...]:
    """The seeds that an arm is evaluated with: the first alone where nothing is trained after the base."""
    return plan.seeds if arm.supervised or arm.questions else plan.seeds[:1]


def checkpoint(folder: Path, seed: int, arm: Arm) -> Path:
    """What an arm is evaluated with."""
    if arm.questions:
        return folder / f"seed-{seed}" / arm.folder / "rl" / "checkpoint"
    return _start(folder, seed, arm)


def _start(folder: Path, seed: int, arm: Arm) -> Path:
    """What an arm's reinforcement starts from."""
    return (folder / f"seed-{seed}" / "sft" if arm.supervised else folder / "base") / "checkpoint"


def _data(plan: Plan, folder: Path, processes: int) -> None:
    from relisten.reproduce.base import pools
    from relisten.train.scratch.pool import ScenePool

    for clips in clip_sets(plan.budget):
        for _ in make_set(clips, plan.scenes, folder / SETS, processes):
            pass
    for pool in pools(plan):
        ScenePool.open(folder / POOL, pool, processes)


def _base(plan: Plan, folder: Path, processes: int) -> None:
    from relisten.reproduce.base import train_base

    train_base(plan, folder / "base", folder / POOL)


def _sft(plan: Plan, seed: int, folder: Path, processes: int) -> None:
    from relisten.train.parallel import Processes
    from relisten.train.sft.config import FinetuneConfig
    from relisten.train.sft.trainer import finetune

    here = folder / f"seed-{seed}"
    config = FinetuneConfig(
        str(folder / "base" / "checkpoint"), str(questions_file(folder / SETS, SFT)), format=Format.GROUNDED,
        steps=plan.budget.sft_steps, batch_size=plan.budget.sft_batch, lr=2e-4, weight_decay=0.01,
        betas=(0.9, 0.98), answer_weight=4.0, gradient_checkpointing=False, pass_tokens=16384, seed=seed,
        save_every=10, saved_as="float32", tensorboard=False, threads=1, device="cpu",
    )  # fmt: skip
    finetune(config, here / "sft", Processes("cpu"))


def _rl(plan: Plan, seed: int, arm: Arm, folder: Path, processes: int) -> None:
    from relisten.reproduce.sets import RL
    from relisten.train.grpo.config import GrpoConfig
    from relisten.train.grpo.trainer import train_grpo

    here, budget = folder / f"seed-{seed}", plan.budget
    config = GrpoConfig(
        str(_start(folder, seed, arm)),
        str(questions_file(folder / SETS, RL, arm.questions)), str(questions_file(folder / SETS, VALIDATION)),
        format=arm.format, reward=arm.reward, crop_speed=arm.crop_speed, steps=budget.rl_steps,
        batch_size=budget.rl_batch, update_size=max(1, budget.rl_batch // 2), group_size=budget.group,
        max_tokens=MAX_TOKENS, lr=1.5e-4, betas=(0.9, 0.99), kl=0.03, train_audio=True, seed=seed,
        validate_every=budget.validate_every, save_every=5, saved_as="float32", tensorboard=False, threads=1,
        device="cpu",
    )  # fmt: skip
    train_grpo(config, here / arm.folder / "rl")


def _evaluate(plan: Plan, seed: int, arm: Arm, folder: Path, processes: int) -> None:
    from relisten.engines.native import NativeEngine
    from relisten.evaluate.benchmarks.questions import Questions
    from relisten.evaluate.provenance import model_hash
    from relisten.evaluate.run_folder import Settings, Subject, prepare
    from relisten.evaluate.runner import AT_ONCE, work
    from relisten.models import load

    model, out = checkpoint(folder, seed, arm), folder / f"seed-{seed}" / arm.folder
    subject = Subject(str(model), model_hash(model))
    settings = Settings(
        arm.format, temperature=TEMPERATURE, seed=seed, max_tokens=MAX_TOKENS, crop_speed=arm.crop_speed
    )
    with NativeEngine(load(model, "float32"), name=f"{arm.name}, seed {seed}") as engine:
        for name, asked, how, limit, at_once in (
            (TEST, TEST, settings, None, AT_ONCE),
            (GREEDY, TEST, replace(settings, temperature=0.0), None, AT_ONCE),
            (LONG, LONG, settings, None, AT_ONCE),
            (ALONE, TEST, settings, plan.budget.alone, 1),
        ):
            data = questions_file(folder / SETS, asked)
            work(prepare(Questions(), out / name, subject, how, data=data, limit=limit), engine, at_once=at_once)
            if left := unfinished(read_run(out / name)):
                why = next((row.error for row in left if row.error), "never asked")
                raise EngineError(
                    f"{out / name}: {len(left)} questions have no answer, such as for: {why}; mend that and give "
                    "the same command again"
                )


def unfinished(run: Run) -> list[ResultRow]:
    """The questions of an evaluation that failed or were not asked yet."""
    return [row for row in run.rows if row.outcome() in (Outcome.FAILED, Outcome.PENDING)]
