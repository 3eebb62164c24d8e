"""The trainings of a reproduction: which trainer, with which settings, in which folder."""

from __future__ import annotations

from pathlib import Path

from relisten.protocol import Format
from relisten.reproduce import folders
from relisten.reproduce.arms import AT_EQUAL_TIME, Arm
from relisten.reproduce.plan import MAX_TOKENS, Plan
from relisten.reproduce.sets import RL, SFT, VALIDATION, clip_sets, make_set, questions_file


def make_data(plan: Plan, folder: Path, processes: int) -> None:
    """Clips, questions, and scenes of the base."""
    from relisten.reproduce.base import pools
    from relisten.train.scratch.pool import ScenePool

    for clips in clip_sets(plan.budget):
        for _ in make_set(clips, plan.scenes, folders.sets(folder), processes):
            pass
    for pool in pools(plan):
        ScenePool.open(folders.pool(folder), pool, processes)


def make_base(plan: Plan, folder: Path, processes: int) -> None:
    """What all arms start from."""
    from relisten.reproduce.base import train_base

    train_base(plan, folders.base(folder), folders.pool(folder))


def fine_tune(plan: Plan, seed: int, folder: Path, processes: int) -> None:
    """SFT on grounded responses."""
    from relisten.train.sft.config import FinetuneConfig
    from relisten.train.sft.trainer import finetune

    sets = folders.sets(folder)
    config = FinetuneConfig(
        str(folders.base(folder) / "checkpoint"), str(questions_file(sets, SFT)),
        str(questions_file(sets, VALIDATION)), format=Format.GROUNDED, validate_every=10,
        steps=plan.budget.sft_steps, batch_size=plan.budget.sft_batch, lr=2e-4, weight_decay=0.01,
        betas=(0.9, 0.98), answer_weight=4.0, gradient_checkpointing=False, pass_tokens=16384, seed=seed,
        save_every=10, saved_as="float32", tensorboard=False, threads=1, device="cpu",
    )  # fmt: skip
    finetune(config, folders.sft(folder, seed))


def reinforce(plan: Plan, seed: int, arm: Arm, folder: Path, processes: int) -> None:
    """GRPO as the arm has it; of an arm that is compared at equal time with a checkpoint on every validation."""
    from relisten.train.grpo.config import GrpoConfig
    from relisten.train.grpo.trainer import train_grpo

    sets, budget = folders.sets(folder), plan.budget
    kept = any(arm.name == one for one, _ in AT_EQUAL_TIME)
    config = GrpoConfig(
        str(folders.start(folder, seed, arm)),
        str(questions_file(sets, RL, arm.questions)), str(questions_file(sets, VALIDATION)),
        format=arm.format, reward=arm.reward, crop_speed=arm.crop_speed, steps=budget.rl_steps,
        batch_size=budget.rl_batch, update_size=max(1, budget.rl_batch // 2), group_size=budget.group,
        max_tokens=MAX_TOKENS, lr=1.5e-4, betas=(0.9, 0.99), kl=0.03, train_audio=True, seed=seed,
        validate_every=budget.validate_every, export_every=budget.validate_every if kept else 0, save_every=5,
        saved_as="float32", tensorboard=False, threads=1, device="cpu",
    )  # fmt: skip
    train_grpo(config, folders.rl(folder, seed, arm))
