"""Policies on disk, and what all of them share: from probabilities to a decision.

A folder holds `policy.json` (kind, routes, threshold, temperature, and what else the kind needs) and weights as
safetensors. Two kinds: `head` reads the reasoner's own hidden states (`relisten.router.head`), `lm` writes the name
of a route (`relisten.router.lm`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from relisten.errors import InputError
from relisten.files import write_whole
from relisten.models.base import Family
from relisten.router.decision import Decision, Policy
from relisten.router.routes import DIRECT, Route, check_routes

FILE: Final = "policy.json"
_VERSION: Final = 1
Kind = Literal["head", "lm"]


def load_policy(folder: str | Path, family: Family | None = None, *, device: str = "cpu") -> Policy:
    """The policy that a training run left in `folder`, or in the folder `policy` inside it.

    Args:
        family: the reasoner that answers. A head refuses any other than the one that it was trained on, whose
            hidden states it reads; None trusts the caller. An lm does not care.
        device: where an lm runs, if its model is not `family`.

    Raises:
        InputError: there is none, it cannot be read, or `family` is another reasoner.
    """
    from relisten.router.head import HeadPolicy
    from relisten.router.lm import LmPolicy

    folder = find_policy(folder)
    about = read_about(folder)
    if about["kind"] == "head":
        return HeadPolicy.load(folder, about, family)
    if about["kind"] == "lm":
        return LmPolicy.load(folder, about, device)
    raise InputError(f"{folder}: holds a policy of kind {about['kind']!r}; known are head and lm")


def find_policy(folder: str | Path) -> Path:
    """The folder that `load_policy` reads: `folder`, or the folder `policy` inside it."""
    folder = Path(folder)
    inner = folder / "policy"
    return inner if not (folder / FILE).is_file() and (inner / FILE).is_file() else folder


def read_about(folder: Path) -> dict[str, Any]:
    """What `policy.json` says; "routes" as an action set.

    Raises:
        InputError: it is not there, or is no policy's.
    """
    path = folder / FILE
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        if about["version"] != _VERSION:
            raise InputError(f"{path}: is of version {about['version']!r}, this is {_VERSION}; train it again")
        return {**about, "kind": str(about["kind"]), "routes": check_routes(map(Route.parse, about["routes"]))}
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); give the --out of a relisten router train"
        ) from None
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: is no policy ({what}); give the --out of a relisten router train") from None


def write_about(folder: Path, kind: Kind, routes: Sequence[Route], about: Mapping[str, Any]) -> None:
    """Write `policy.json`; the folder is there already."""
    content = {"version": _VERSION, "kind": kind, "routes": [route.name for route in routes], **about}
    write_whole(folder / FILE, json.dumps(content, indent=1) + "\n")


def temper(logprobs: Tensor, temperature: float) -> Tensor:
    """Probabilities of routes (..., routes) at a temperature, from log-probs (..., routes + 1) whose last is that
    of malformed decisions: one more outcome, which is tempered, too."""
    return logprobs.double().div(temperature).softmax(-1)[..., :-1]


def decide(routes: Sequence[Route], probabilities: NDArray[np.floating], threshold: float) -> Decision:
    """The likeliest route; direct where that is not likely enough, or where most of what a language model would
    write names no route at all.

    Args:
        probabilities: (routes,); what is missing to 1 is malformed.
        threshold: least probability of a route other than direct.
    """
    best = int(np.argmax(probabilities))
    confidence = float(probabilities[best])
    by_name = {route.name: float(p) for route, p in zip(routes, probabilities, strict=True)}
    malformed = 1.0 - float(probabilities.sum())
    if malformed > confidence:
        return Decision(DIRECT, confidence, by_name, f"malformed with probability {malformed:.2f}: direct")
    if routes[best] != DIRECT and confidence < threshold:
        note = f"{routes[best].name} at {confidence:.2f} is below the threshold {threshold:.2f}: direct"
        return Decision(DIRECT, confidence, by_name, note)
    return Decision(routes[best], confidence, by_name)
