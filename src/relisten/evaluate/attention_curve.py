"""Attention on sound by decoding step: what `evaluate.attention` measures, and its file in a run folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from relisten.errors import InputError
from relisten.files import write_whole

FILE: Final = "attention.json"
SETTLED: Final = 25
"""Steps after which the paper finds attention to sound faded where nothing is played again."""


@dataclass(frozen=True, eq=False)
class AttentionShare:
    """One answer: for each of its T sampled tokens the share of attention that went to sound when it was chosen,
    averaged over layers and heads. Both arrays are float64 of shape (T,), with values in 0 to 1."""

    clip: NDArray[np.float64]
    """On the question's clip in the prompt."""
    again: NDArray[np.float64]
    """On what had been played again by then."""

    @property
    def total(self) -> NDArray[np.float64]:
        return self.clip + self.again


@dataclass(frozen=True)
class AttentionCurve:
    """Attention on sound by decoding step, mean over answers; step k counts the answers that reached it."""

    model: str
    answers: int
    counts: tuple[int, ...]
    """(steps,) answers that reached the step; never rises."""
    clip: tuple[float, ...]
    """(steps,) on the question's clip."""
    again: tuple[float, ...]
    """(steps,) on what was played again."""
    settled: tuple[float, ...]
    """For each answer of more than `SETTLED` steps its mean share on sound after them."""

    @classmethod
    def of(cls, model: str, shares: Sequence[AttentionShare], max_steps: int = 200) -> AttentionCurve:
        """The curve of a sample of answers, cut after `max_steps` steps."""
        steps = min(max_steps, max((len(share.clip) for share in shares), default=0))
        counts = [sum(len(share.clip) > step for share in shares) for step in range(steps)]
        return cls(
            model=model,
            answers=len(shares),
            counts=tuple(counts),
            clip=_means([share.clip for share in shares], counts),
            again=_means([share.again for share in shares], counts),
            settled=tuple(float(share.total[SETTLED:].mean()) for share in shares if len(share.clip) > SETTLED),
        )

    def write(self, folder: Path) -> None:
        """Keep it in a run folder.

        Raises:
            InputError: the folder cannot be written to.
        """
        write_whole(folder / FILE, json.dumps(asdict(self)) + "\n")

    @classmethod
    def read(cls, folder: Path) -> AttentionCurve | None:
        """What `write` kept; None where nothing was.

        Raises:
            InputError: the file is there and damaged.
        """
        path = folder / FILE
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
            return cls(**values)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: cannot be read ({error}); delete it and measure again") from None


def _means(rows: Sequence[NDArray[np.float64]], counts: Sequence[int]) -> tuple[float, ...]:
    sums = np.zeros(len(counts))
    for row in rows:
        part = row[: len(counts)]
        sums[: len(part)] += part
    return tuple((sums / np.maximum(counts, 1)).tolist())
