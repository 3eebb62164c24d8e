"""Settings of a training from scratch: stages, data and sizes of the model. Plain data; nothing runs here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

from relisten.errors import InputError
from relisten.models.tiny import TinyShape
from relisten.train.scratch.pool import PoolConfig
from relisten.train.scratch.tasks import TASKS


@dataclass(frozen=True)
class Stage:
    """A number of steps with one mix of tasks.

    `mix` maps tasks (`tasks.TASKS`) to their shares of the steps; a stage without one trains the audio tower alone.
    The learning rate rises over `warmup` steps, stays, and falls linearly to `last_lr` x `lr` over the last `decay`
    share of the steps.

    Raises:
        InputError: for an unknown task or numbers that make no stage.
    """

    name: str
    steps: int
    lr: float
    mix: tuple[tuple[str, float], ...] = ()
    rows: int = 8
    """Clips a process sees each step."""
    asked: int = 4
    """Questions about each clip."""
    longest: float = 10.0
    """Clips longer than this many seconds are left out."""
    shortest: float = 0.0
    warmup: int = 50
    decay: float = 1.0
    last_lr: float = 0.05
    heard: float = 1.0
    """Loss weight of text that follows an inserted crop and so tells what is heard in it."""
    onsets: float = 0.0
    """Weight of the audio tower's onset loss, which is added to that of the responses."""
    traits: float = 0.0
    """Weight within the onset loss of the traits of each sound (`encoder.TRAITS`)."""

    def __post_init__(self) -> None:
        unknown = [task for task, _ in self.mix if task not in TASKS]
        if unknown:
            raise InputError(f"stage {self.name}: unknown task {unknown[0]!r}; use some of {', '.join(TASKS)}")
        if self.steps < 1 or self.lr <= 0 or min(self.rows, self.asked) < 1 or not 0 <= self.decay <= 1:
            raise InputError(
                f"stage {self.name}: steps {self.steps}, lr {self.lr}, rows {self.rows}, asked {self.asked}, decay "
                f"{self.decay}; all must be positive and decay at most 1"
            )

    def lr_at(self, step: int) -> float:
        """Learning rate of step 0 .. steps - 1."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        falling = max(1.0, self.decay * self.steps)
        left = min(1.0, (self.steps - step) / falling)
        return self.lr * rise * (self.last_lr + (1 - self.last_lr) * left)


@dataclass(frozen=True)
class ScratchConfig:
    """One run from an untrained model to a checkpoint."""

    stages: tuple[Stage, ...]
    pool: PoolConfig
    validation: PoolConfig
    shape: TinyShape = field(default_factory=TinyShape)
    seed: int = 0
    processes: int = 2
    """Data-parallel processes of one thread each."""
    tokenizer_scenes: int = 3000
    answer_weight: float = 4.0
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip_norm: float = 1.0
    muon: float = 2.0
    """Muon's learning rate as a multiple of AdamW's."""
    average: float = 0.99
    """Decay per step of the running mean of the weights, which is what is saved in the end."""
    save_every: int = 250
    check_every: int = 100
    log_every: int = 20

    @property
    def digest(self) -> str:
        """Names the configuration; a run goes on only with the same."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


_TOOLS = ("loudness", "onsets", "pitch", "silence")

_HEAR = (("transcribe", 0.8), ("describe", 0.1), ("reason", 0.1))

_ANSWER = (
    ("interleaved", 0.58),
    ("reason", 0.22),
    ("transcribe", 0.1),
    ("grounded", 0.06),
    ("text", 0.03),
    ("describe", 0.01),
)

_REASON = (("reason", 0.55), ("interleaved", 0.37), ("transcribe", 0.05), ("grounded", 0.03))

_LAST = (("interleaved", 0.6), ("reason", 0.3), ("transcribe", 0.04), ("grounded", 0.04), ("text", 0.02))

_READ = (("read", 0.4), ("quote", 0.2), ("interleaved", 0.3), ("read text", 0.05), ("text", 0.05))

_RECITE = (("recite", 0.85), ("interleaved", 0.15))

_SETTLE = (
    ("read", 0.36),
    ("quote", 0.14),
    ("recite", 0.1),
    ("interleaved", 0.34),
    ("read text", 0.03),
    ("text", 0.03),
)

_COMPARE = (
    ("compare", 0.5),
    ("read", 0.16),
    ("quote", 0.07),
    ("interleaved", 0.22),
    ("read text", 0.03),
    ("text", 0.02),
)

_CONCLUDE = (("conclude", 0.65), ("interleaved", 0.35))

_LENGTHEN = (
    ("interleaved", 0.42),
    ("qualities", 0.12),
    ("read", 0.13),
    ("quote", 0.05),
    ("recite", 0.03),
    ("compare", 0.03),
    ("conclude", 0.06),
    ("transcribe", 0.08),
    ("text", 0.03),
    ("read text", 0.02),
    ("grounded", 0.03),
)

_MEASURE = (
    ("measure", 0.36),
    ("qualities", 0.2),
    ("interleaved", 0.28),
    ("read", 0.08),
    ("quote", 0.04),
    ("text", 0.02),
    ("grounded", 0.02),
)

_REREAD = (
    ("read", 0.28),
    ("quote", 0.12),
    ("recite", 0.08),
    ("compare", 0.14),
    ("interleaved", 0.22),
    ("qualities", 0.08),
    ("measure", 0.04),
    ("text", 0.02),
    ("read text", 0.02),
)

PRESETS: Final[Mapping[str, ScratchConfig]] = {
    "echo-tiny": ScratchConfig(
        pool=PoolConfig(
            counts=((4.0, 1200), (5.0, 1500), (6.0, 2000), (7.0, 1500), (8.0, 4500), (9.0, 1500), (10.0, 3500),
                    (14.0, 1600), (20.0, 1300), (28.0, 1000)),
            seed=100, tools=_TOOLS, told_share=0.2,
        ),
        validation=PoolConfig(
            counts=((5.0, 60), (8.0, 100), (10.0, 100)), split="validation", seed=200, tools=_TOOLS, told_share=1.0
        ),
        stages=(
            Stage("encoder", 1000, 2e-3, rows=16, decay=0.5, last_lr=0.3, traits=0.05),
            Stage("hear", 500, 1.5e-3, _HEAR, decay=0.0, onsets=5.0, traits=0.05),
            Stage("answer", 1000, 1.5e-3, _ANSWER, decay=0.0, heard=2.0, onsets=5.0, traits=0.05),
            Stage("reason", 800, 1.5e-3, _REASON, decay=0.0, heard=2.0, onsets=5.0, traits=0.05, warmup=1),
            Stage("anneal", 1000, 1.5e-3, _LAST, heard=2.0, onsets=5.0, traits=0.05, longest=30.0, warmup=1,
                  last_lr=0.208),
            Stage("conclude", 600, 8e-4, _CONCLUDE, heard=2.0, onsets=5.0, traits=0.05, warmup=20),
            Stage("read", 1250, 1e-3, _READ, heard=2.0, onsets=5.0, traits=0.05, last_lr=0.4),
            Stage("recite", 450, 1.5e-3, _RECITE, decay=0.0, heard=2.0, onsets=5.0, traits=0.05),
            Stage("settle", 250, 1e-3, _SETTLE, heard=2.0, onsets=5.0, traits=0.05, warmup=20, last_lr=0.41),
            Stage("compare", 320, 8e-4, _COMPARE, heard=2.0, onsets=5.0, traits=0.05, warmup=20),
            Stage("lengthen", 600, 1e-3, _LENGTHEN, heard=2.0, onsets=5.0, traits=0.05, shortest=7.0, longest=30.0),
            Stage("measure", 300, 1e-3, _MEASURE, heard=2.0, onsets=5.0, traits=0.05, warmup=20, longest=30.0),
            Stage("reread", 250, 1e-3, _REREAD, heard=2.0, onsets=5.0, traits=0.05, warmup=20, longest=30.0),
        ),
    ),
    # Seconds long: shows that everything runs, learns next to nothing.
    "smoke": ScratchConfig(
        shape=TinyShape(audio_width=32, audio_layers=1, width=32, layers=1, feed_forward=64, vocabulary=400),
        pool=PoolConfig(counts=((4.0, 6),)),
        validation=PoolConfig(counts=((4.0, 2),), split="validation"),
        stages=(
            Stage("encoder", 2, 1e-3, rows=2, traits=0.05),
            Stage("listen", 2, 1e-3, (("describe", 0.5), ("transcribe", 0.5)), rows=2, asked=2),
            Stage("answer", 2, 1e-3, (("interleaved", 1.0),), rows=2, asked=2, onsets=1.0, traits=0.05),
        ),
        processes=1, tokenizer_scenes=6, save_every=2, check_every=2, log_every=1,
    ),
}  # fmt: skip
