"""What a supervised run would take, without running it: the model has no weights, the data is only counted."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from relisten.data.examples import Example
from relisten.data.filters import duration
from relisten.errors import InputError
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.protocol import Segment, split_at_listens, system_prompt, user_text
from relisten.train.planning import divide, members_of_step, steps_of_epoch
from relisten.train.sft.config import FinetuneConfig
from relisten.train.sft.reading import TRAIN, read_dataset
from relisten.train.sft.sequences import Layout, ReadySet, make_ready
from relisten.train.sizes import DryRun, count_parameters, outline, pass_memory
from relisten.train.trainable import freeze, half_precision

_BYTES_A_TOKEN: Final = 3.5
"""Of English with tags and numbers, in Qwen's vocabulary; roughly."""
_TOKENS_A_SECOND: Final = 25
_SAMPLED_STEPS: Final = 200


def dry_run(config: FinetuneConfig, processes: int, device: str = "cuda") -> DryRun:
    """Build the model of `config` without weights, and count.

    Raises:
        InputError: the model is neither at hand nor known, or the data cannot be read.
    """
    family, thinker = outline(config.model)
    if config.tag_tokens and family is not None:
        family.add_tag_tokens()
    freeze(thinker, config.lora, config.train_audio, config.seed)
    parameters = count_parameters(thinker)
    half = half_precision(config.precision, torch.device(device)) is not None
    data = None
    if config.data:
        lengths, left_out = _lengths(config, family)
        if not len(lengths):
            raise InputError(f"{config.data}: no example can be trained on ({left_out} left out)")
        data = _work(config, lengths, left_out, processes)
    memory = pass_memory(
        thinker,
        config.pass_tokens,
        processes,
        half,
        gradient_checkpointing=config.gradient_checkpointing,
        masked=config.packing and config.attention != "flash_attention_2",
        reshard=config.reshard,
    )
    return DryRun(config.model, family is not None, processes, parameters, memory, data)


def _lengths(config: FinetuneConfig, family: Qwen2_5Omni | None) -> tuple[NDArray[np.int64], int]:
    """Tokens of every example that fits, and how many are too long or bad."""
    with tempfile.TemporaryDirectory() as folder:
        rows = read_dataset(config.data, TRAIN, Path(folder) / "sounds")
        if family is not None:
            layout = Layout(family, config.format)
            counts = make_ready(rows, Path(folder) / "train.jsonl", layout, config.max_length, config.threads)
            return ReadySet(Path(folder) / "train.jsonl").lengths, counts.bad + counts.too_long
        found, bad = [], 0
        for length in _rough_lengths(rows, config):
            if 0 < length <= config.max_length:
                found.append(length)
            else:
                bad += 1
        return np.array(found, dtype=np.int64), bad


def _rough_lengths(rows: Iterator[Example | InputError], config: FinetuneConfig) -> Iterator[int]:
    for row in rows:
        if isinstance(row, InputError) or not row.response:
            yield 0
            continue
        try:
            seconds = [duration(row)]
        except InputError:
            yield 0
            continue
        parts = split_at_listens(row.response, seconds[0], format=config.format)
        seconds += [part.duration for part in parts if isinstance(part, Segment)]
        written = f"{system_prompt(config.format)}{user_text(row.question)}{row.response}"
        sound = sum(round(_TOKENS_A_SECOND * each) + 2 for each in seconds)
        yield 12 + round(len(written.encode()) / _BYTES_A_TOKEN) + sound


def _work(config: FinetuneConfig, lengths: NDArray[np.int64], left_out: int, processes: int) -> dict[str, float]:
    of_epoch = steps_of_epoch(len(lengths), config.batch_size)
    steps = config.steps or config.epochs * of_epoch
    passes = [
        len(divide(members.tolist(), lengths, processes, config.pass_tokens, config.packing)[0])
        for members in (
            members_of_step(len(lengths), config.batch_size, config.seed, step)
            for step in range(min(steps, _SAMPLED_STEPS))
        )
    ]
    return {
        "examples": len(lengths),
        "left out": left_out,
        "tokens an epoch": int(lengths.sum()),
        "tokens an example": float(lengths.mean()),
        "longest": int(lengths.max()),
        "steps": steps,
        "tokens a step": float(lengths.mean() * min(config.batch_size, len(lengths))),
        "passes a step": float(np.mean(passes)),
    }
