"""User text stays text; ids become text piece by piece."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omni_checkpoint import NOT_SPECIAL, SPECIAL, VOCABULARY, decoded
from tokenizers import Tokenizer, decoders, models
from transformers import AutoTokenizer

from relisten.errors import InputError
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.models.text import TextCodec

HOSTILE = st.lists(st.one_of(st.text(), st.sampled_from([*SPECIAL, *NOT_SPECIAL, "<|im", "_end|>", " "]))).map(
    "".join
)


@given(HOSTILE)
def test_no_text_becomes_an_added_token(family: Qwen2_5Omni, text: str) -> None:
    ids = family.encode_text(text)
    assert not set(ids) & set(family.text.added.values())
    assert not set(ids) & set(family.banned_ids)
    # Surrogates cannot come from a file; Qwen's tokenizer composes characters.
    assert decoded(family.decoder(), ids) == unicodedata.normalize("NFC", text)


@given(HOSTILE)
def test_a_response_may_hold_tags_but_no_control_token(family: Qwen2_5Omni, text: str) -> None:
    ids = family.encode_response(text)
    tags = {family.text.added[tag] for tag in ("<seg>", "</seg>")}
    assert set(ids) & set(family.text.added.values()) <= tags
    assert decoded(family.decoder(), ids) == "".join(
        part if part in ("<seg>", "</seg>") else unicodedata.normalize("NFC", part)
        for part in family.text._tag_pattern.split(text)  # type: ignore[union-attr]
    )


def test_tags_are_single_tokens_in_a_response_only(family: Qwen2_5Omni) -> None:
    seg, end = family.text.added["<seg>"], family.text.added["</seg>"]
    inner = family.encode_text("2.0, 5.0")
    assert family.encode_response("<seg>2.0, 5.0</seg>") == [seg, *inner, end]
    assert seg not in family.encode_text("<seg>2.0, 5.0</seg>")


@pytest.mark.parametrize("text", ["how many snare hits?", "  two\n\nlines\t", "é鼓 <b>bold</b> don't 12345", ""])
def test_plain_text_has_the_stock_ids(family: Qwen2_5Omni, omni_folder: Path, text: str) -> None:
    stock = AutoTokenizer.from_pretrained(omni_folder, config=family.thinker.config)
    assert family.encode_text(text) == stock(text, add_special_tokens=False).input_ids
    assert family.encode_response(text) == stock(text, add_special_tokens=False).input_ids


@given(st.lists(st.integers(0, VOCABULARY + 10)))
def test_pieces_put_together_are_the_stock_decoding(
    family: Qwen2_5Omni, stock_text: Tokenizer, ids: list[int]
) -> None:
    assert decoded(family.decoder(), ids) == stock_text.decode(ids, skip_special_tokens=False)


@given(st.text())
def test_pieces_hold_whole_characters(family: Qwen2_5Omni, text: str) -> None:
    decoder = family.decoder()
    pieces = [decoder.push(i) for i in family.encode_text(text)]
    assert decoder.flush() == ""
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


def test_a_cut_character_comes_out_at_the_end(family: Qwen2_5Omni) -> None:
    ids = family.encode_text("💡")
    assert len(ids) == 4
    decoder = family.decoder()
    assert [decoder.push(i) for i in ids[:3]] == ["", "", ""]
    assert decoder.flush() == "\ufffd"
    assert "".join(decoder.push(i) for i in ids) == "💡"


def test_half_a_surrogate_pair_is_text_too(family: Qwen2_5Omni) -> None:
    assert decoded(family.decoder(), family.encode_text("a\ud83d b\udca1")) == "a\ufffd b\ufffd"
    assert family.encode_text("\ud83d\udca1") == family.encode_text("💡")


def test_added_tokens_that_also_stand_in_the_vocabulary_are_kept_out_of_text() -> None:
    vocabulary = {"a": 0, "b": 1, "<|x|>": 2}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|x|>"])
    codec = TextCodec(tokenizer.to_str())
    assert codec.added == {"<|x|>": 2}
    assert codec.encode("a<|x|>b") == [0, 1]
    assert decoded(codec.decoder(), [0, 2, 1]) == "a<|x|>b"


def test_control_tokens_made_by_merges_are_refused() -> None:
    spec = {
        "version": "1.0",
        "added_tokens": [{"id": 2, "content": "ab", "special": True, "single_word": False, "lstrip": False,
                          "rstrip": False, "normalized": False}],
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
    }  # fmt: skip
    with pytest.raises(InputError, match="take its merge out"):
        TextCodec(json.dumps(spec))


def test_a_tokenizer_that_does_not_know_every_text_is_refused() -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    with pytest.raises(InputError, match="byte-level"):
        TextCodec(words.to_str())


@pytest.fixture(scope="module")
def stock_text(omni_folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(omni_folder / "tokenizer.json"))
