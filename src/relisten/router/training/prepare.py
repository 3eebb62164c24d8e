"""What training needs to know of its questions: what comes of each on every route, and what the reasoner sees of
it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from relisten.engines.base import Engine, Look
from relisten.errors import InputError
from relisten.question import Question
from relisten.router.looks import LookStore, look_at
from relisten.router.outcomes import Outcomes, measure_routes
from relisten.router.routes import Route, default_routes
from relisten.router.training.config import RouterConfig
from relisten.tools.cache import ToolCache
from relisten.trace import Sampling
from relisten.train.references import read_referenced
from relisten.train.watch import Watch

_HELD_OUT: Final = 5  # one in so many questions, where no validation set is given
OUTCOMES, FINDINGS, LOOKS = "outcomes.jsonl", "findings.sqlite", "looks.sqlite"


@dataclass(frozen=True, eq=False)
class Known:
    """Questions with their outcomes."""

    questions: tuple[Question, ...]
    outcomes: Outcomes
    looks: tuple[Look, ...] = field(default=())
    """Empty where nobody asked for them."""

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(questions, routes)."""
        return self.outcomes.as_arrays().correct


def read_sets(config: RouterConfig, on_note: Callable[[str], None]) -> tuple[list[Question], list[Question]]:
    """Training and validation questions.

    Raises:
        InputError: a file cannot be read, or there are too few.
    """
    questions = read_referenced(config.questions, on_note)
    if config.validation:
        return questions, read_referenced(config.validation, on_note)
    held = len(questions) // _HELD_OUT
    if not held:
        raise InputError(
            f"{config.questions}: has {len(questions)} of the {_HELD_OUT} questions needed; give more, or a "
            "validation set"
        )
    on_note(f"no validation set is given: the last {held} of {len(questions)} questions are held out for it")
    return questions[:-held], questions[-held:]


def routes_of(config: RouterConfig) -> tuple[Route, ...]:
    """The action set.

    Raises:
        InputError: an unknown tool, or no tool at all.
    """
    names = [name.strip() for name in config.tools.split(",")] if config.tools else None
    routes = default_routes(names, text=config.text, longest=config.longest)
    if len(routes) < 2:
        raise InputError('there is no tool to choose: pip install "relisten[tools]", or name some in tools')
    return routes


def sampling_of(config: RouterConfig) -> Sampling:
    """How answers are sampled: greedily, so that an outcome is one and the same whenever it is measured."""
    return Sampling(max_tokens=config.max_tokens, max_listens=config.max_listens)


def learn_about(
    engine: Engine,
    questions: Sequence[Question],
    routes: Sequence[Route],
    config: RouterConfig,
    folder: Path,
    reasoner: str,
    *,
    looks: bool,
    watch: Watch,
    what: str,
) -> Known:
    """Measure what `folder` does not know yet. Direct answers, tools and looks are computed once.

    Args:
        reasoner: exact hash of the weights.
        looks: whether hidden states are wanted.
        what: the set's name, for the watch.
    """
    with ToolCache(folder / FINDINGS) as cache:
        outcomes = measure_routes(
            engine,
            questions,
            routes,
            folder / OUTCOMES,
            reasoner=reasoner,
            cache=cache,
            format=config.format,
            sampling=sampling_of(config),
            at_once=config.at_once,
            on_progress=lambda done, total: watch.on_progress(f"{what}: answers on all routes", done, total),
        )
    if not looks:
        return Known(tuple(questions), outcomes)
    seen = 0

    def count() -> None:
        nonlocal seen
        seen += 1
        watch.on_progress(f"{what}: hidden states", seen, len(questions))

    with LookStore(folder / LOOKS) as store:
        found = look_at(engine, questions, reasoner, store, format=config.format, on_look=count)
    return Known(tuple(questions), outcomes, tuple(found))
