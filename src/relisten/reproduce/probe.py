"""Where one pass loses detail: a window told from the whole clip against the same window told from its crop.

For a checkpoint that can tell what is in a window (a base of `relisten reproduce`, echo-tiny), over kinds of scenes
of the validation split. The text to be told is given ("0.4 kick, 0.9 snare, ..."), and what is counted is how often
the model's likeliest next token is the right one: once with the crop inserted behind the tag, once without. The
difference is the head-room that listening again has; a regime for the ablation is chosen where it is large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from relisten.data.scenes import Scene, SceneSpec, make_scene
from relisten.errors import InputError
from relisten.models import load
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.protocol import Format
from relisten.reproduce.plan import HARD
from relisten.train import forward
from relisten.train.batches import Batcher, Target
from relisten.train.scratch.tasks import TASKS

DENSITIES: Final = ((0.6, 1.0), (1.2, 2.0), (2.2, 3.0))
NOISES: Final = ((30.0, 40.0), (12.0, 18.0), (4.0, 8.0))
LENGTHS: Final = (5.0, 10.0, 20.0)
_SCENES: Final = 24
_ASKED: Final = 3


@dataclass(frozen=True)
class Regime:
    """One kind of scenes: all but the named ranges are those of the ablation."""

    seconds: float
    density: tuple[float, float]
    snr: tuple[float, float]

    def spec(self) -> SceneSpec:
        most = max(4, round(self.density[1] * self.seconds))
        return replace(
            HARD, duration=(self.seconds, self.seconds), density=self.density, snr=self.snr, events=(3, most)
        )


def regimes() -> Iterator[Regime]:
    """Every density at every noise, and every length in the middle of both."""
    middle = Regime(LENGTHS[1], DENSITIES[1], NOISES[1])
    yield from (replace(middle, density=density, snr=snr) for density in DENSITIES for snr in NOISES)
    yield from (replace(middle, seconds=seconds) for seconds in LENGTHS if seconds != middle.seconds)


def measure(model: str, on_row: Callable[[str], None] | None = None, scenes: int = _SCENES) -> list[dict[str, Any]]:
    """A row for every regime: shares of tokens told right, of labels alone, from the crop and from the clip.

    Raises:
        InputError: there is no such checkpoint, or it is of another kind.
    """
    family = load(model, "float32")
    if not isinstance(family, Qwen2_5Omni):
        raise InputError(f"model {model}: only Qwen2.5-Omni's like can be probed")
    batcher = Batcher(family)
    rows = []
    if on_row is not None:
        on_row(f"{'seconds':>8}{'events/s':>12}{'SNR dB':>12}{'crop':>8}{'slow':>8}{'clip':>8}{'room':>8}   n")
    for regime in regimes():
        found = [make_scene("validation", 500, index, regime.spec()) for index in range(scenes)]
        crop, count = _told(family, batcher, found, "transcribe", Format.INTERLEAVED)
        slow, _ = _told(family, batcher, found, "transcribe slowly", Format.INTERLEAVED)
        clip, _ = _told(family, batcher, found, "transcribe", Format.GROUNDED)
        row = {
            "seconds": regime.seconds, "density": list(regime.density), "snr": list(regime.snr),
            "tokens": count, "crop": round(crop, 4), "slow_crop": round(slow, 4), "clip": round(clip, 4),
            "room": round(crop - clip, 4),
        }  # fmt: skip
        rows.append(row)
        if on_row is not None:
            density, snr = ("-".join(f"{v:g}" for v in pair) for pair in (regime.density, regime.snr))
            on_row(
                f"{regime.seconds:>8g}{density:>12}{snr:>12}{crop:>8.3f}{slow:>8.3f}{clip:>8.3f}"
                f"{crop - clip:>8.3f}   {count}"
            )
    return rows


@torch.no_grad()
def _told(
    family: Qwen2_5Omni, batcher: Batcher, scenes: list[Scene], task: str, format: Format
) -> tuple[float, int]:
    """Share of the tokens behind the first tag that are likeliest, and how many there are."""
    right = total = 0
    for number in range(0, len(scenes), 8):
        some = scenes[number : number + 8]
        rng = np.random.default_rng([7, number])  # the same windows for every way of hearing them
        asked = [[_listing(target) for target in TASKS[task].make(scene, rng, _ASKED)] for scene in some]
        batch = batcher.batch([scene.clip for scene in some], asked, format)
        states = forward.hidden_states(family.thinker, batch)[batch.target_slots]
        likeliest: Tensor = F.linear(states, family.thinker.lm_head.weight).argmax(-1)
        right += int((likeliest == batch.targets).sum())
        total += len(batch.targets)
    return right / max(1, total), total


def _listing(target: Target) -> Target:
    """Only what is told behind the first tag counts."""
    return replace(target, given=((0, target.response.find("</seg>") + len("</seg>")),))
