"""Whom a run tells what happens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Functions that a run calls, of several processes the first one alone; what is not given does nothing."""

    on_step: Callable[[int, int, Mapping[str, float]], None] = lambda done, steps, values: None
    """After every step, with the steps done, all steps, and the step's numbers."""
    on_note: Callable[[str], None] = lambda note: None
    """What a user should know, such as rows that were left out."""
    on_answer: Callable[[], None] = lambda: None
    """After every answer that is sampled to learn from (GRPO)."""
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None
    """While a router's run asks its reasoner: what is counted, how many are done, how many there are."""
