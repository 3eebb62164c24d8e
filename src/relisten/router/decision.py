"""The seam between answering and whatever decides on a route."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from relisten.audio import Clip
from relisten.engines.base import Look
from relisten.question import Question
from relisten.router.routes import Route


@dataclass(frozen=True)
class Decision:
    """The route for one question."""

    route: Route
    confidence: float
    """Probability of the route that the policy would take, 0 to 1: also where that was too low and `route` is
    direct for it."""
    probabilities: Mapping[str, float] = field(default_factory=dict)
    """Of each route by its name."""
    note: str = ""
    """Why `route` is not the likeliest one: below the threshold, malformed, ..."""


class Policy(Protocol):
    """Decides on routes. It is asked from one thread at a time."""

    @property
    def routes(self) -> tuple[Route, ...]:
        """The action set, direct among them."""

    @property
    def looks(self) -> bool:
        """Whether `decide` needs a `Look`: the reasoner's own hidden states behind sound and question."""

    def decide(self, question: Question, clip: Clip, look: Look | None = None) -> Decision:
        """The route for a question; `look` is there where `looks` says so.

        Raises:
            RelistenError: it cannot decide; the answer then is a direct one, and is marked.
        """
