"""Questions with exact answers, and the grounded reasoning that leads there, made from what is known of a clip.

Every kind is a function of (subject, rng) that returns an `Example`, or None where the subject allows no question
of that kind whose answer is beyond doubt: near ties, onsets closer than 0.12 s where order matters (or closer than
the labels are exact), sounds that cross the edge of a window, labels that may mean one another's sound. Responses
follow the grammar of `relisten.protocol`: a reason to listen, a segment, then, within the same sentence, what is
heard there in order with a running count of what was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from relisten.data.examples import Example
from relisten.data.occurrences import after, before, count_all, count_window, exists, first, last
from relisten.data.qualities import duration, higher, longest_gap, louder
from relisten.data.scenes import Scene
from relisten.data.subject import Subject, as_subject
from relisten.data.told import Told, choose_told
from relisten.data.wording import Rng

Kind = Callable[[Subject, Rng], Example | None]
"""Makes one example, or None where the subject allows none that is beyond doubt."""


def make_examples(
    scene: Scene | Subject,
    rng: Rng,
    kinds: Sequence[str] | Mapping[str, float] | None = None,
    per_scene: int = 4,
    told: Sequence[Told] = (),
) -> tuple[Example, ...]:
    """Up to `per_scene` different questions about one scene.

    Args:
        kinds: kinds to draw from, or their weights; every kind alike by default. A kind the scene does not allow
            is passed over, one that it allows may come again with another window or label.
        told: what tools say about the scene; every question gets some of it to read.
    """
    subject = as_subject(scene)
    weights = dict(kinds) if isinstance(kinds, Mapping) else dict.fromkeys(kinds or KINDS, 1.0)
    names = [name for name, weight in weights.items() if weight > 0]
    share = np.array([weights[name] for name in names]) / sum(weights[name] for name in names)
    found: dict[str, Example] = {}
    for _ in range(3):
        for number in rng.choice(len(names), size=len(names), replace=False, p=share):
            if len(found) == per_scene:
                break
            kind = names[number]
            given = replace(subject, told=choose_told(rng, kind, told)) if told else subject
            example = KINDS[kind](given, rng)
            if example is not None and example.question.text not in found:
                named = replace(example.question, id=f"{subject.name}-{len(found)}")
                found[example.question.text] = replace(example, question=named)
    return tuple(found.values())


KINDS: Final[Mapping[str, Kind]] = {
    make.__name__: make
    for make in (
        count_window, count_all, first, last, after, exists, before, duration, longest_gap, louder, higher,
    )
}  # fmt: skip
"""What is asked about scenes, by name."""
