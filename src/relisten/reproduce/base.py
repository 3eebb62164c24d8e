"""The base that all arms start from: it has heard several sounds in one context and has never used a tag.

Qwen2.5-Omni starts from the weights of a language model and of a tower. The base here starts from a checkpoint as
well, by default the shipped one, which already listens again; so the rows of both tags in its embedding and in its
head are drawn anew. Then it learns, on easy to hard scenes, to answer in plain text, to list what is in a clip, to
answer from crops that are put into its answer (also at half speed, for arm F), and to conclude from what is said to
be heard. No tag and no segment is ever a target.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch

from relisten.data.scenes import SceneSpec
from relisten.errors import InputError
from relisten.models import load
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.reproduce.plan import CLIP_SECONDS, LONG_SECONDS, Plan
from relisten.train.scratch.config import ScratchConfig, Stage
from relisten.train.scratch.pool import PoolConfig
from relisten.train.scratch.trainer import train

_SEED: Final = 0
_MIX: Final = (("text", 0.4), ("describe", 0.1), ("given", 0.2), ("given slowly", 0.2), ("reason", 0.1))
_TAGS: Final = ("<seg>", "</seg>")


def pools(plan: Plan) -> tuple[PoolConfig, PoolConfig]:
    """Scenes for training, a few of them long, and for validation: half as the arms have them, half of any kind."""
    count, spec = plan.budget.scenes, plan.scenes
    counts = ((6.0, count), (CLIP_SECONDS, 2 * count), (LONG_SECONDS, max(1, count // 8)))
    spec = _with_room(spec)
    return (
        PoolConfig(counts, seed=300, spec=spec),
        PoolConfig(((CLIP_SECONDS, max(1, min(60, count // 4))),), "validation", 400, spec=spec),
    )


def base_config(plan: Plan) -> ScratchConfig:
    """The run of the scratch trainer."""
    budget = plan.budget
    training, validation = pools(plan)
    stage = Stage(
        "answer", budget.base_steps, lr=1e-3, mix=_MIX, rows=budget.rows, longest=LONG_SECONDS,
        warmup=min(20, budget.base_steps), onsets=5.0, traits=0.05,
    )  # fmt: skip
    return ScratchConfig(
        stages=(stage,),
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
        write_start(plan.start, _SEED, folder / "start")
    if not (folder / "pool").exists():
        (folder / "pool").symlink_to(pool.absolute(), target_is_directory=True)
    return train(base_config(plan), folder)


def write_start(model: str, seed: int, folder: Path) -> None:
    """The checkpoint `model` with the rows of both tags, in the embedding and in the head, of random weights.

    Raises:
        InputError: it is no such checkpoint, or none that can be trained from scratch.
    """
    family = load(model, "float32")
    if not isinstance(family, Qwen2_5Omni) or family.source.config.get("enable_audio_output", True):
        raise InputError(
            f"model {model}: a base needs a small model without speech; use echo-tiny or one made like it"
        )
    tags = [family.encode_response(tag) for tag in _TAGS]
    if any(len(ids) != 1 for ids in tags):
        raise InputError(f"model {model}: its tags are no single tokens; use echo-tiny or one made like it")
    rows = [ids[0] for ids in tags]
    random = torch.Generator().manual_seed(seed)
    spread = family.thinker.config.get_text_config().initializer_range
    with torch.no_grad():
        for part_of, name in ((family.language_model, "embed_tokens.weight"), (family.thinker, "lm_head.weight")):
            table = part_of.get_parameter(name)
            table[rows] = spread * torch.randn(len(rows), table.shape[1], generator=random)
    part = folder.with_name(".start.part")
    shutil.rmtree(part, ignore_errors=True)
    family.save(part, whole=True)
    for name in ("metrics.json", "training.json", "training.jsonl"):  # of another model
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
