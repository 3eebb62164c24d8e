"""What a reproduction is: scenes, sizes of the sets, steps of every training. Plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from relisten.data.scenes import SceneSpec
from relisten.errors import InputError
from relisten.models import ECHO_TINY

CLIP_SECONDS: Final = 10.0
LONG_SECONDS: Final = 25.0
"""Of the clips on which generalisation is measured: 2.5 times those of training."""
MAX_TOKENS: Final = 240
"""Sampled tokens of an answer: all of a clip of 25 s, sound by sound, takes fewer."""

HARD: Final = SceneSpec(
    duration=(CLIP_SECONDS, CLIP_SECONDS),
    long_share=0.0,
    events=(8, 26),
    density=(1.2, 2.4),
    distinct=(4, 8),
    gap=(0.16, 0.3),
    gain=(-20.0, 0.0),
    snr=(4.0, 20.0),
    silent_share=0.0,
    dry_share=0.2,
    pattern_share=0.25,
    pause_share=0.1,
)
"""Scenes in which one pass should lose detail: dense, soft beside loud, above a noise floor that is near."""


@dataclass(frozen=True)
class Budget:
    """How much of everything. Learning rates and mixes of exercises are the same for all budgets."""

    name: str
    seeds: int
    scenes: int
    """Of each of the base's lengths; 10 s clips are twice as many."""
    base_steps: int
    sft_clips: int
    sft_steps: int
    rl_clips: int
    rl_steps: int
    validation: int
    validate_every: int
    test: int
    long_test: int
    base_processes: int = 2
    """Of one thread each, whatever the machine has: the base's data depends on them."""
    rows: int = 8
    sft_batch: int = 32
    rl_batch: int = 16
    group: int = 8
    alone: int = 20
    """Questions asked one at a time, for latency."""


BUDGETS: Final[Mapping[str, Budget]] = {
    budget.name: budget
    for budget in (
        Budget(
            "quick", 1, scenes=150, base_steps=60, sft_clips=200, sft_steps=20,
            rl_clips=150, rl_steps=6, validation=48, validate_every=3, test=200, long_test=60, rl_batch=8,
        ),
        Budget(
            "full", 3, scenes=1500, base_steps=400, sft_clips=1000, sft_steps=60,
            rl_clips=1200, rl_steps=50, validation=128, validate_every=5, test=1000, long_test=500,
        ),
        # For tests: shows that everything runs.
        Budget(
            "smoke", 1, scenes=4, base_steps=1, sft_clips=3, sft_steps=1, rl_clips=3,
            rl_steps=1, validation=2, validate_every=1, test=3, long_test=2, base_processes=1, rows=2, sft_batch=2,
            rl_batch=2, group=2, alone=1,
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """One reproduction.

    Raises:
        InputError: it has no seed.
    """

    budget: Budget
    seeds: tuple[int, ...]
    arms: tuple[str, ...]
    start: str = ECHO_TINY
    """The checkpoint that the base starts from, its tags forgotten."""
    scenes: SceneSpec = field(default_factory=lambda: HARD)

    def __post_init__(self) -> None:
        if not self.seeds:
            raise InputError("no seed: give --seeds 1 or more")

    def to_json(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """The plan that `to_json` wrote.

        Raises:
            InputError: it is none, or of another version.
        """
        try:
            told: dict[str, Any] = data["scenes"]
            spec: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
            return cls(
                Budget(**data["budget"]),
                tuple(data["seeds"]),
                tuple(data["arms"]),
                data["start"],
                SceneSpec(**spec),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"no plan of this version ({error}); begin in a new --out") from None
