"""A reward that a random model earns in different amounts."""

from __future__ import annotations

from relisten.question import Question
from relisten.trace import Trace

EVENNESS = f"{__name__}:evenness"


def evenness(trace: Trace, question: Question) -> float:
    """The share of an answer's tokens with even ids: hardly any two answers have the same."""
    ids = [i for span in trace.generated for i in span.ids]
    return sum(i % 2 == 0 for i in ids) / len(ids)
