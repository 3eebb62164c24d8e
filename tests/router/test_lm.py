"""The policy that writes a route's name, on a tiny family with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.sounds import noise_clip

from relisten.errors import InputError
from relisten.models import Family, load
from relisten.protocol import Format
from relisten.question import Question
from relisten.router.lm import LmPolicy, routing_question, with_malformed
from relisten.router.policy import load_policy, temper
from relisten.router.routes import DIRECT, Route
from relisten.router.weights import weights_hash
from relisten.train.shared_settings import LoraSettings
from relisten.train.trainable import add_adapters

ROUTES = (DIRECT, Route(("pitch",)), Route(("pitch", "silence")), Route(("loudness",), listen=False))
QUESTION = Question("Which is higher?", ("first", "second"), answer="first")


@pytest.fixture
def policy(tiny_folder: Path) -> LmPolicy:
    pytest.importorskip("peft")
    family = load(tiny_folder, "float32")
    adapted = add_adapters(family.thinker, LoraSettings(rank=2, alpha=4), seed=0)
    for number, parameter in enumerate(p for p in family.thinker.parameters() if p.requires_grad):
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(number))
    return LmPolicy(ROUTES, family, adapted, model=str(tiny_folder), threshold=0.0)


def test_names_at_once_are_names_one_by_one(policy: LmPolicy) -> None:
    clip = noise_clip(1.3)
    with torch.no_grad():
        at_once = policy.logprobs(QUESTION, clip)
        one_by_one = [_stock(policy.family, clip, route.name) for route in ROUTES]
    torch.testing.assert_close(at_once, torch.stack(one_by_one), atol=1e-4, rtol=1e-5)


def _stock(family: Family, clip: object, name: str) -> torch.Tensor:
    prompt = family.prompt(routing_question(QUESTION, ROUTES), clip, Format.TEXT)
    head = prompt.ids(family)
    written = [*family.encode_response(name), family.end_of_turn_id]
    ids = torch.tensor([head + written])
    embeddings = family.embed(ids)
    heard = torch.cat(family.encode_audio([clip]))
    embeddings = embeddings.masked_scatter((ids == family.audio_id)[..., None], heard)
    logits = family.lm_head(family.language_model(inputs_embeds=embeddings).last_hidden_state)
    logits[..., list(family.banned_ids)] = -torch.inf
    each = logits[0, len(head) - 1 : -1].log_softmax(-1)
    return each.gather(-1, torch.tensor(written)[:, None]).sum()


def test_the_question_lists_routes_with_what_their_tools_tell() -> None:
    text = routing_question(QUESTION, ROUTES).text
    assert text.startswith("Which is higher?\nChoices:\n- first\n- second\n")
    assert "- direct: no tool\n" in text
    assert "- loudness/text: " in text
    assert text.endswith(", without listening again")


def test_what_is_missing_to_one_is_malformed() -> None:
    found = with_malformed(torch.tensor([0.5, 0.25]).log()).exp()
    torch.testing.assert_close(found, torch.tensor([0.5, 0.25, 0.25]))
    certain = with_malformed(torch.zeros(1))
    assert certain.isfinite().all()
    cold = temper(torch.tensor([0.5, 0.25, 0.25]).log(), 0.5)  # squares, over their sum
    torch.testing.assert_close(cold, torch.tensor([4 / 6, 1 / 6]).double())


def test_an_untrained_model_writes_no_name_and_answers_go_direct(policy: LmPolicy) -> None:
    decision = policy.decide(QUESTION, noise_clip(1.0))
    assert decision.route == DIRECT
    assert decision.note.startswith("malformed with probability 1.00")
    assert sum(decision.probabilities.values()) < 0.5


def test_saved_and_loaded_it_decides_the_same(policy: LmPolicy, tiny_folder: Path, tmp_path: Path) -> None:
    policy.about["base"] = weights_hash(load(tiny_folder, "float32"), exact=False)
    policy.save(tmp_path / "policy")
    again = load_policy(tmp_path)
    clip = noise_clip(1.0)
    assert again.routes == ROUTES
    assert again.decide(QUESTION, clip).probabilities == pytest.approx(policy.decide(QUESTION, clip).probabilities)


def test_other_weights_under_the_adapter_are_refused(policy: LmPolicy, tmp_path: Path) -> None:
    policy.about["base"] = "0" * 64
    policy.save(tmp_path)
    with pytest.raises(InputError, match="belongs to other weights"):
        load_policy(tmp_path)


def test_a_clip_that_does_not_fit_is_refused(policy: LmPolicy) -> None:
    policy.family.context_size = 60
    with pytest.raises(InputError, match="the routing model takes fewer than"):
        policy.logprobs(QUESTION, noise_clip(2.0))
