"""What a run of GRPO leaves in its folder, as tests compare it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from support.cli import lines

from relisten import models

TIMES = ("seconds_rollout", "seconds_prepare", "seconds_update", "peak_megabytes")


def rows(out: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in lines(out / "metrics.jsonl")]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(models.load(folder, dtype="float32").thinker.state_dict())
