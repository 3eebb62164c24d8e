"""What a run of reinforcement learning would take, without running it."""

from __future__ import annotations

from typing import Any, Final

import torch

from relisten.models.qwen2_5_omni import AUDIO_TOWER
from relisten.train.grpo.config import GrpoConfig
from relisten.train.planning import steps_of_epoch
from relisten.train.references import read_referenced
from relisten.train.rewards import Reward
from relisten.train.sizes import DryRun, count_parameters, outline, pass_memory
from relisten.train.trainable import freeze, half_precision

PROMPT: Final = 512
"""Tokens of a prompt: the instruction, a question, and 10 to 15 s of sound."""
HEARD: Final = 75
"""Tokens of a listen: 3 s of sound."""


def dry_run_grpo(config: GrpoConfig, processes: int, device: str = "cuda") -> DryRun:
    """Build the model of `config` without weights, and count. Every process holds the whole model, or where it is
    divided, a part of what training needs and a whole copy to answer from.

    Memory is for answers that are as long as they may be, behind a prompt of `PROMPT` tokens.

    Raises:
        InputError: the model is neither at hand nor known, nor is the reward, or the questions cannot be read.
    """
    Reward.parse(config.reward)
    family, thinker = outline(config.model)
    freeze(thinker, config.lora, config.train_audio, config.seed)
    half = half_precision(config.precision, torch.device(device)) is not None
    divided = config.divided and processes > 1
    # Held in the precision of the run, but for trained weights; an undivided model without adapters in float32.
    compute = 2 if half and (divided or config.lora) else 4
    memory = pass_memory(
        thinker,
        config.pass_tokens,
        processes if divided else 1,
        half,
        gradient_checkpointing=config.gradient_checkpointing,
        masked=True,
    )
    if divided:
        memory["answering"] = compute * _size(thinker)
    elif not config.lora:
        memory["weights"] = 4 * _size(thinker)
    if config.engine == "vllm":  # which has a copy of its own
        memory["answering"] = (2 if config.precision == "bf16" else 4) * _size(thinker)
    memory["reference"] = compute * _reference(config, thinker, divided) // (processes if divided else 1)
    memory["rollouts"] = compute * _cached(config, thinker)
    data = None
    if config.questions:
        count = len(read_referenced(config.questions, lambda note: None))
        steps = config.steps or config.epochs * steps_of_epoch(count, config.batch_size)
        asked = min(config.batch_size, count)
        data = {
            "questions": float(count),
            "steps": float(steps),
            "answers a step": float(asked * config.group_size),
            "answers a step and process": float(-(-asked // processes) * config.group_size),
            "updates a step, at most": float(-(-asked // config.update_size) * config.inner_epochs),
            "sampled tokens a step, at most": float(asked * config.group_size * config.max_tokens),
        }
    return DryRun(config.model, family is not None, processes, count_parameters(thinker), memory, data)


def _size(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


def _reference(config: GrpoConfig, thinker: Any, divided: bool) -> int:
    """Parameters of the frozen copy. Adapters need none, since they can be switched off; a frozen tower is shared
    with the model in training, unless that is divided."""
    if not config.kl or config.lora_rank:
        return 0
    return _size(thinker) - (0 if config.train_audio or divided else _size(thinker.get_submodule(AUDIO_TOWER)))


def _cached(config: GrpoConfig, thinker: Any) -> int:
    """Numbers in the cache of keys and values while answers are sampled."""
    text = thinker.config.text_config
    width: int = text.num_key_value_heads * (text.hidden_size // text.num_attention_heads)
    layers: int = text.num_hidden_layers
    longest = PROMPT + config.max_tokens + HEARD * config.max_listens
    rows = min(config.max_rows, config.batch_size * config.group_size)
    return rows * longest * 2 * layers * width
