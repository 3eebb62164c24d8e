"""`HeadPolicy`: a route from the frozen reasoner's own hidden states, by one small layer or two.

The reasoner reads system turn, sound and question anyway before it says a word; what it then makes of them (`Look`)
costs nothing more. The head standardises some of those states and maps them to a score for each route. It has far
less than 1 % of the reasoner's parameters (AudioRouter leaves the size of its router open; the bound is ours).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from relisten.audio import Clip
from relisten.engines.base import Look
from relisten.errors import InputError
from relisten.models.base import Family
from relisten.question import Question
from relisten.router.decision import Decision
from relisten.router.policy import decide, write_about
from relisten.router.routes import Route
from relisten.router.weights import weights_hash

PARTS: Final = ("last", "sound")
_WEIGHTS: Final = "head.safetensors"
_OWN: Final = ("version", "kind", "routes", "threshold", "temperature", "reasoner", "layers", "parts", "hidden")


@dataclass(frozen=True)
class Reads:
    """Which hidden states a head reads.

    Raises:
        InputError: none, or an unknown part.
    """

    layers: tuple[int, ...]
    """From 0 for the first; each gives all parts."""
    parts: tuple[str, ...] = PARTS
    """`last`: at the prompt's last token. `sound`: mean over the tokens of its sound."""

    def __post_init__(self) -> None:
        if not self.layers or not self.parts:
            raise InputError("a head that reads nothing decides nothing; name a layer and a part")
        for part in self.parts:
            if part not in PARTS:
                raise InputError(f"part {part!r} is unknown; known are {', '.join(PARTS)}")

    def of(self, look: Look) -> NDArray[np.float32]:
        """(features,) float32.

        Raises:
            InputError: the look has no such layer.
        """
        for layer in self.layers:
            if not 0 <= layer < len(look.last):
                raise InputError(f"layer {layer}: the model has {len(look.last)}, counted from 0")
        return np.concatenate([getattr(look, part)[layer] for layer in self.layers for part in self.parts])


class Head(nn.Module):
    """Scores of routes from features (..., features) -> (..., routes), float32. All routes are equally likely at
    first.

    Args:
        hidden: width of a layer between; 0 for none.
        seed: of that layer's weights.
    """

    def __init__(self, features: int, routes: int, hidden: int = 0, seed: int = 0) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.centre: Tensor
        self.scale: Tensor
        self.inner = nn.Linear(features, hidden) if hidden else None
        self.outer = nn.Linear(hidden or features, routes)
        if self.inner is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.inner.reset_parameters()
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def standardise(self, features: Tensor) -> None:
        """Take over mean and deviation of the training set's (n, features)."""
        self.centre.copy_(features.mean(0))
        # A feature that is always the same tells nothing; it must not blow up where it differs by rounding.
        self.scale.copy_(features.std(0, correction=0).clamp(min=1e-3 * max(1e-6, float(features.abs().mean()))))

    def forward(self, features: Tensor) -> Tensor:
        states = (features - self.centre) / self.scale
        if self.inner is not None:
            states = torch.nn.functional.gelu(self.inner(states))
        scores: Tensor = self.outer(states)
        return scores

    @property
    def num_weights(self) -> int:
        """What is learned; the standardisation is part of it, since it could be folded into the weights."""
        return sum(parameter.numel() for parameter in self.parameters())


class HeadPolicy:
    """See `relisten.router.decision.Policy`.

    Args:
        reasoner: hash of the weights whose states it reads (`weights_hash`, not exact).
        temperature: scores are divided by it, so that probabilities are honest.
        threshold: least probability of a route other than direct.
    """

    looks = True

    def __init__(
        self,
        routes: Sequence[Route],
        head: Head,
        reads: Reads,
        *,
        reasoner: str,
        temperature: float = 1.0,
        threshold: float = 0.0,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.routes = tuple(routes)
        self.head = head.eval().requires_grad_(False)
        self.reads = reads
        self.reasoner = reasoner
        self.temperature = temperature
        self.threshold = threshold
        self.about = dict(about or {})

    def decide(self, question: Question, clip: Clip, look: Look | None = None) -> Decision:
        """See `Policy.decide`; the question and its clip are seen through `look` alone."""
        if look is None:
            raise InputError("this policy reads the model's hidden states, which this engine does not show")
        return self.decide_features(self.reads.of(look))

    def decide_features(self, features: NDArray[np.float32]) -> Decision:
        """The decision from what `reads` made of a look."""
        if len(features) != len(self.head.centre):
            raise InputError(
                f"{len(features)} features, this policy reads {len(self.head.centre)}; "
                "use it with the model that it was trained on"
            )
        scores = self.head(torch.from_numpy(features)) / self.temperature
        return decide(self.routes, scores.double().softmax(-1).numpy(), self.threshold)

    def save(self, folder: Path) -> None:
        """Write the policy into a folder, which is made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in self.head.state_dict().items()}, folder / _WEIGHTS)
        inner = self.head.inner
        about = {
            "threshold": self.threshold,
            "temperature": self.temperature,
            "reasoner": self.reasoner,
            "layers": self.reads.layers,
            "parts": self.reads.parts,
            "hidden": 0 if inner is None else inner.out_features,
            "weights": self.head.num_weights,
        }
        write_about(folder, "head", self.routes, {**about, **self.about})

    @classmethod
    def load(cls, folder: Path, about: Mapping[str, Any], family: Family | None = None) -> HeadPolicy:
        """See `load_policy`."""
        if family is not None and weights_hash(family, exact=False) != about["reasoner"]:
            raise InputError(
                f"{folder}: reads the hidden states of another model than {family.name!r}; answer with the model "
                f"that it was trained on ({about.get('model', 'unknown')}), or train it again"
            )
        try:
            weights = load_file(folder / _WEIGHTS)
            head = Head(len(weights["centre"]), len(about["routes"]), int(about["hidden"]))
            head.load_state_dict(weights)
            reads = Reads(tuple(about["layers"]), tuple(about["parts"]))
            return cls(
                about["routes"],
                head,
                reads,
                reasoner=about["reasoner"],
                temperature=float(about["temperature"]),
                threshold=float(about["threshold"]),
                about={name: value for name, value in about.items() if name not in _OWN},
            )
        except InputError:
            raise
        except Exception as error:  # several libraries' ways to say that a file is damaged
            raise InputError(f"{folder}: is no whole policy ({error}); train it again") from None
