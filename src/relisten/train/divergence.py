"""What is left of a run whose weights are of no use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from relisten.errors import DivergedError
from relisten.train.states import States


def stepped_back(states: States, export: Callable[[int], Path], why: str, remedy: str) -> DivergedError:
    """The error for weights that an update spoilt; a checkpoint has those of the newest state, if there is one.

    Every process calls this. A state of the spoilt weights must have been dropped.

    Args:
        export: writes a checkpoint of the weights in memory, given the steps they have done; returns its folder.
        why: what happened, with the step.
        remedy: settings to go on with.
    """
    done = states.restore()
    kept = f"The last good weights are in {export(done)}" if done else "None before them were kept"
    return DivergedError(
        f"{why}. {kept}: go on from them, or from the model at the start, with --model, {remedy}, and another --out"
    )
