"""The base that all arms start from: a language model from random weights behind a trained audio tower.

As Qwen2.5-Omni's tower starts from Whisper's and its tokenizer is Qwen's, tower and tokenizer here are those of a
checkpoint, by default the shipped one. What the language model learns: to tell what is heard in a clip and in crops
behind it in one context (also at half speed, for arm F), to tell again the times that a question names, to draw
conclusions from what is said to be heard, and to answer questions: in plain text, and from crops that are put into
its answer. It never learns to write a tag, let alone to choose a segment.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import torch

from relisten.data.scenes import SceneSpec
from relisten.errors import InputError
from relisten.models import load
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.reproduce.plan import CLIP_SECONDS, LONG_SECONDS, Plan
from relisten.train.scratch.config import SftConfig, Stage
from relisten.train.scratch.pool import PoolConfig
from relisten.train.scratch.trainer import train

_SEED: Final = 0
_HEAR: Final = (
    ("transcribe", 0.4), ("transcribe slowly", 0.2), ("describe", 0.15), ("reason", 0.15), ("restate", 0.1),
)  # fmt: skip
_ANSWER: Final = (("text", 0.2), ("given", 0.25), ("given slowly", 0.15), ("reason", 0.2), ("restate", 0.2))


def pools(plan: Plan) -> tuple[PoolConfig, PoolConfig]:
    """Scenes for training, a few of them long, and for validation: half as the arms have them, half of any kind."""
    count, spec = plan.budget.scenes, plan.scenes
    counts = ((6.0, count), (CLIP_SECONDS, 2 * count), (LONG_SECONDS, max(1, count // 8)))
    spec = _with_room(spec)
    return (
        PoolConfig(counts, seed=300, spec=spec),
        PoolConfig(((CLIP_SECONDS, max(1, min(60, count // 4))),), "validation", 400, spec=spec),
    )


def base_config(plan: Plan) -> SftConfig:
    """The run of the scratch trainer."""
    budget = plan.budget
    training, validation = pools(plan)
    stage = partial(Stage, lr=1.5e-3, rows=budget.rows, onsets=5.0, traits=0.05)
    return SftConfig(
        stages=(
            stage("hear", budget.hear_steps, mix=_HEAR, decay=0.0, warmup=min(50, budget.hear_steps)),
            stage("answer", budget.answer_steps, mix=_ANSWER, longest=LONG_SECONDS, warmup=1),
        ),
        pool=training,
        validation=validation,
        seed=_SEED,
        processes=budget.base_processes,
        save_every=50,
        check_every=100,
        log_every=5,
    )


def train_base(plan: Plan, folder: Path, pool: Path) -> Path:
    """Train it in `folder`, or go on; `pool` has its scenes."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "start").exists():
        write_start(plan.tower, _SEED, folder / "start")
    if not (folder / "pool").exists():
        (folder / "pool").symlink_to(pool.absolute(), target_is_directory=True)
    return train(base_config(plan), folder)


def write_start(tower: str, seed: int, folder: Path) -> None:
    """The checkpoint `tower` with a language model, and a way from the tower into it, of random weights.

    Raises:
        InputError: it is no such checkpoint, or none that can be trained from scratch.
    """
    family = load(tower, "float32")
    if not isinstance(family, Qwen2_5Omni) or family.source.config.get("enable_audio_output", True):
        raise InputError(
            f"tower {tower}: a base needs a small model without speech; use echo-tiny or one made like it"
        )
    torch.manual_seed(seed)
    thinker = family.thinker
    projection = family.audio_tower.get_submodule("proj")
    for module in (*family.language_model.modules(), family.lm_head, projection):
        thinker._init_weights(module)
    part = folder.with_name(".start.part")
    shutil.rmtree(part, ignore_errors=True)
    family.save(part, whole=True)
    for name in ("metrics.json", "training.json"):  # of another model
        (part / name).unlink(missing_ok=True)
    part.rename(folder)


def _with_room(spec: SceneSpec) -> SceneSpec:
    """The scenes of the arms, from as hard as they are to easy ones: a base has heard all kinds."""
    return replace(
        spec,
        events=(3, spec.events[1]),
        density=(0.5, spec.density[1]),
        distinct=(2, spec.distinct[1]),
        gap=(spec.gap[0], 0.45),
        snr=(spec.snr[0], 40.0),
    )
