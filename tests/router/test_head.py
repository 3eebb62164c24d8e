"""The head: what it reads, how it decides, that it comes back from disk, and whose states it takes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.sounds import noise_clip

from relisten.engines.base import Look
from relisten.errors import InputError
from relisten.models import Family
from relisten.question import Question
from relisten.router.head import Head, HeadPolicy, Reads
from relisten.router.policy import decide, load_policy
from relisten.router.routes import DIRECT, Route
from relisten.router.weights import count_weights, weights_hash

ROUTES = (DIRECT, Route(("pitch",)), Route(("loudness",)))
QUESTION = Question("Which is higher?")
LOOK = Look(
    last=np.arange(8, dtype=np.float32).reshape(2, 4), sound=10 + np.arange(8, dtype=np.float32).reshape(2, 4)
)


def policy_of(reasoner: str = "r", hidden: int = 0, threshold: float = 0.0) -> HeadPolicy:
    head = Head(8, 3, hidden, seed=1)
    for number, parameter in enumerate(head.parameters()):
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(number))
    return HeadPolicy(ROUTES, head, Reads((1,)), reasoner=reasoner, threshold=threshold, temperature=5.0)


def test_it_reads_the_layers_and_parts_that_it_names() -> None:
    assert Reads((1,)).of(LOOK).tolist() == [4, 5, 6, 7, 14, 15, 16, 17]
    assert Reads((1, 0), ("sound",)).of(LOOK).tolist() == [14, 15, 16, 17, 10, 11, 12, 13]
    with pytest.raises(InputError, match="layer 2: the model has 2"):
        Reads((2,)).of(LOOK)
    with pytest.raises(InputError, match="reads nothing"):
        Reads(())
    with pytest.raises(InputError, match="'mean' is unknown"):
        Reads((0,), ("mean",))


@pytest.mark.parametrize("hidden", [0, 5])
def test_a_fresh_head_takes_every_route_alike(hidden: int) -> None:
    head = Head(8, 3, hidden)
    assert torch.equal(head(torch.randn(4, 8)), torch.zeros(4, 3))
    assert head.num_weights == (8 * 3 + 3 if not hidden else 8 * 5 + 5 + 5 * 3 + 3)


def test_features_are_standardised_and_constant_ones_do_no_harm() -> None:
    head = Head(2, 3)
    head.standardise(torch.tensor([[1.0, 7.0], [3.0, 7.0]]))
    states = (torch.tensor([3.0, 7.0]) - head.centre) / head.scale
    assert states.tolist() == [1.0, 0.0]
    assert bool((head.scale > 0).all())


def test_the_likeliest_route_is_taken_if_it_is_likely_enough() -> None:
    pitched = np.array([0.3, 0.6, 0.1])
    sure = decide(ROUTES, pitched, 0.6)
    assert (sure.route, sure.confidence, sure.note) == (ROUTES[1], 0.6, "")
    assert sure.probabilities == {"direct": 0.3, "pitch": 0.6, "loudness": 0.1}
    unsure = decide(ROUTES, pitched, 0.61)
    assert (unsure.route, unsure.confidence) == (DIRECT, 0.6)
    assert unsure.note == "pitch at 0.60 is below the threshold 0.61: direct"


def test_direct_needs_no_threshold_and_malformed_is_direct() -> None:
    assert decide(ROUTES, np.array([0.4, 0.3, 0.3]), 0.9).note == ""
    malformed = decide(ROUTES, np.array([0.1, 0.3, 0.1]), 0.0)
    assert malformed.route == DIRECT
    assert malformed.note == "malformed with probability 0.50: direct"


@pytest.mark.parametrize("hidden", [0, 5])
def test_saved_and_loaded_it_decides_the_same(hidden: int, tmp_path: Path) -> None:
    policy = policy_of(hidden=hidden, threshold=0.2)
    policy.save(tmp_path / "policy")
    again = load_policy(tmp_path)  # the folder of a run, which has it inside
    assert again.looks
    assert again.routes == ROUTES
    assert again.decide(QUESTION, noise_clip(1), LOOK) == policy.decide(QUESTION, noise_clip(1), LOOK)


def test_without_a_look_or_with_another_models_it_cannot_decide() -> None:
    with pytest.raises(InputError, match="does not show"):
        policy_of().decide(QUESTION, noise_clip(1))
    with pytest.raises(InputError, match="12 features, this policy reads 8"):
        policy_of().decide(
            QUESTION, noise_clip(1), Look(np.zeros((2, 6), np.float32), np.zeros((2, 6), np.float32))
        )


def test_it_refuses_the_states_of_another_reasoner(untrained: Family, tmp_path: Path) -> None:
    policy_of(weights_hash(untrained, exact=False)).save(tmp_path / "own")
    policy_of("0" * 64).save(tmp_path / "other")
    load_policy(tmp_path / "own", untrained)
    with pytest.raises(InputError, match="another model"):
        load_policy(tmp_path / "other", untrained)


def test_a_hash_is_of_every_bit_or_of_what_all_precisions_share(untrained: Family) -> None:
    exact, shared = weights_hash(untrained), weights_hash(untrained, exact=False)
    weight = next(untrained.thinker.parameters())
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.flatten()[0] += 1e-7 * weight.flatten()[0].abs() + 1e-12
        assert weights_hash(untrained) != exact
        assert weights_hash(untrained, exact=False) == shared
    finally:
        with torch.no_grad():
            weight.copy_(before)
    assert weights_hash(untrained) == exact
    assert count_weights(untrained) == sum(p.numel() for p in untrained.thinker.parameters())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("{", "is no policy"),
        ("[]", "is no policy"),
        ({"version": 2}, "is of version 2"),
        ({"routes": ["pitch"]}, "direct must be among them"),
        ({"kind": "oracle"}, "kind 'oracle'"),
        ({"hidden": "many"}, "is no whole policy"),
    ],
)
def test_what_is_no_policy_is_told(content: object, said: str, tmp_path: Path) -> None:
    policy_of().save(tmp_path)
    file = tmp_path / "policy.json"
    if content is None:
        file.unlink()
    elif isinstance(content, dict):
        file.write_text(json.dumps({**json.loads(file.read_text()), **content}))
    else:
        file.write_text(str(content))
    with pytest.raises(InputError, match=said):
        load_policy(tmp_path)


def test_a_damaged_head_is_told(tmp_path: Path) -> None:
    policy_of().save(tmp_path)
    (tmp_path / "head.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="is no whole policy"):
        load_policy(tmp_path)
