"""`echo-tiny`'s architecture and tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoTokenizer,
    Qwen2_5OmniForConditionalGeneration,
    Qwen2_5OmniThinkerForConditionalGeneration,
)

from relisten import models
from relisten.models.text import RESPONSE_TAGS
from relisten.models.tiny import CONTROL_TOKENS, TinyShape, build

SHAPE = TinyShape(audio_width=32, audio_layers=1, width=32, layers=1, feed_forward=64, vocabulary=420)
TEXTS = ["i hear snare 1, hi-hat, snare 2, so there is a hi-hat."] * 5000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("tiny"), seed=3, texts=TEXTS, shape=SHAPE)


@pytest.mark.parametrize("stock", [Qwen2_5OmniForConditionalGeneration, Qwen2_5OmniThinkerForConditionalGeneration])
def test_stock_classes_load_every_weight(folder: Path, stock: type) -> None:
    if stock is Qwen2_5OmniForConditionalGeneration:
        model = stock.from_pretrained(folder)
        expected = model.state_dict()
        stored = models.load(folder, dtype="float32").thinker.state_dict()
        assert all(torch.equal(expected[f"thinker.{name}"], value) for name, value in stored.items())
    else:
        _, info = stock.from_pretrained(folder, output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        assert not info["mismatched_keys"]


def test_weights_follow_the_seed(folder: Path, tmp_path: Path) -> None:
    again = build(tmp_path / "same", seed=3, texts=TEXTS, shape=SHAPE)
    other = build(tmp_path / "other", seed=4, texts=TEXTS, shape=SHAPE)
    weights = [models.load(f, dtype="float32").lm_head.weight for f in (folder, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_building_leaves_the_random_state_alone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    build(tmp_path, shape=SHAPE)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("<seg>2.0, 12.5</seg>", ["<seg>", "2", ".0", ", ", "12", ".5", "</seg>"]),
        ("snare 2, hi-hat, clap", None),
        ("from 3 to 4.5 s.", None),
    ],
)
def test_a_time_is_seconds_and_tenths(folder: Path, text: str, tokens: list[str] | None) -> None:
    family = models.load(folder, dtype="float32")
    ids = family.encode_response(text)
    pieces = ["".join(d.push(i)) for i in ids for d in [family.decoder()]]
    assert "".join(pieces) == text
    if tokens is not None:
        assert pieces == tokens
    # A number is the same token wherever it stands, so none takes a space along.
    assert not any(piece.startswith(" ") and piece.strip().isdigit() for piece in pieces)


@pytest.mark.parametrize(
    "text", ["Zürich 日本語 🎵\n\n  x\t", "2..5 .. .5 a.5 1234,5", "--(a)-b- ''", " ", "ẞ\u200b\u0301"]
)
def test_any_text_survives(folder: Path, text: str) -> None:
    family = models.load(folder, dtype="float32")
    decoder = family.decoder()
    assert "".join(decoder.push(i) for i in family.encode_text(text)) + decoder.flush() == text


def test_words_of_the_corpus_are_single_tokens(folder: Path) -> None:
    family = models.load(folder, dtype="float32")
    for word in (" snare", " hi-hat", " there"):
        assert len(family.encode_text(word)) == 1


def test_control_tokens_in_user_text_stay_text(folder: Path) -> None:
    family = models.load(folder, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    special = set(tokenizer.convert_tokens_to_ids([*CONTROL_TOKENS, *RESPONSE_TAGS]))
    assert len(special) == len(CONTROL_TOKENS) + len(RESPONSE_TAGS)
    assert not special & set(family.encode_text("".join((*CONTROL_TOKENS, *RESPONSE_TAGS))))


def test_a_clip_of_thirty_seconds_is_one_chunk(folder: Path) -> None:
    family = models.load(folder, dtype="float32")
    assert family.num_audio_tokens(30 * 16_000) == 375
    assert family.thinker.config.audio_config.n_window * 2 == 1500
