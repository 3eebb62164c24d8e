"""Text to token ids and back, so that user text never becomes a control token.

A tokenizer has a byte-level vocabulary, which any text goes through, and added tokens (`<|im_end|>`,
`<|AUDIO|>`, tags), which are matched in front of it. Here text is tokenised by a copy of the tokenizer that has
no added tokens at all, so that no wording can reach one; control tokens are looked up by name.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from relisten.errors import InputError

RESPONSE_TAGS = ("<think>", "</think>", "<seg>", "</seg>", "<answer>", "</answer>")
"""What a model writes to structure its response; each is one token where a checkpoint added it as one."""

_BYTES = {character: byte for byte, character in bytes_to_unicode().items()}


class TextDecoder:
    """Turns token ids into text as they come, in whole characters.

    Bytes of a character that is not complete wait for the next token. Pieces put together equal the decoded whole:
    bytes that are not UTF-8 become U+FFFD at the same places. Ids without a token are empty text.
    """

    def __init__(self, table: Mapping[int, bytes]) -> None:
        self._table = table
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """The characters that `token_id` completes."""
        return self._utf8.decode(self._table.get(token_id, b""))

    def flush(self) -> str:
        """What is left at the end: U+FFFD for an incomplete character, else nothing. The decoder starts anew."""
        return self._utf8.decode(b"", final=True)


def load_tokenizer(folder: Path, config: PreTrainedConfig) -> PreTrainedTokenizerFast:
    """A checkpoint folder's tokenizer, offline and without running code from it.

    Given the model's `config`, transformers does not parse `config.json` again with all that is not loaded.

    Raises:
        InputError: it cannot be read, or only as Python code.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, config=config, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the libraries raise bare Exception, too
        raise InputError(
            f"{folder}: its tokenizer cannot be loaded ({error}); copy tokenizer.json and "
            "tokenizer_config.json from the original checkpoint"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(f"{folder}: its tokenizer has no tokenizer.json form; save it as a fast tokenizer")
    return tokenizer


class TextCodec:
    """A byte-level tokenizer, split into plain text and added tokens.

    Attributes:
        added: ids of the added tokens by their content.
        special: those of `added` that are marked special.
        size: number of ids, the highest one + 1.

    Raises:
        InputError: if the tokenizer is not byte-level, since then some text has no tokens.
    """

    def __init__(self, tokenizer_json: str) -> None:
        spec = json.loads(tokenizer_json)
        if spec["model"].get("type") != "BPE" or '"ByteLevel"' not in json.dumps(spec["decoder"]):
            raise InputError(
                "the checkpoint's tokenizer is no byte-level BPE, so that not every text has tokens; "
                "use a checkpoint with such a tokenizer"
            )
        self.added: dict[str, int] = {token["content"]: token["id"] for token in spec["added_tokens"]}
        self.special = frozenset(t["content"] for t in spec["added_tokens"] if t["special"])
        vocabulary: dict[str, int] = spec["model"]["vocab"]
        for content in self.added:
            vocabulary.pop(content, None)
        merges = spec["model"].get("merges", ())
        merged = {"".join(m) if isinstance(m, list) else m.replace(" ", "") for m in merges}
        if clash := self.added.keys() & merged:
            raise InputError(
                f"the checkpoint's tokenizer builds {min(clash)!r} from smaller pieces, so that user text could "
                "become that control token; take its merge out"
            )
        # Truncation, padding and templates would alter the ids of a text.
        spec |= {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
        self._plain = Tokenizer.from_str(json.dumps(spec))
        self._table = {id_: _token_bytes(token) for token, id_ in vocabulary.items()}
        self._table |= {id_: content.encode() for content, id_ in self.added.items()}
        self.size = max(self._table) + 1
        self._tags = {tag: self.added[tag] for tag in RESPONSE_TAGS if tag in self.added}
        self._tag_pattern = re.compile(f"({'|'.join(map(re.escape, self._tags))})") if self._tags else None

    def encode(self, text: str) -> list[int]:
        """Ids of `text` as plain text: never one of `added`. Half a surrogate pair counts as U+FFFD."""
        if not text.isascii():
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    def encode_response(self, text: str) -> list[int]:
        """Ids of text that the model itself writes: `RESPONSE_TAGS` may be tokens of their own, nothing else."""
        if self._tag_pattern is None:
            return self.encode(text)
        ids: list[int] = []
        for part in self._tag_pattern.split(text):
            if part:
                ids += [self._tags[part]] if part in self._tags else self.encode(part)
        return ids

    def decoder(self) -> TextDecoder:
        return TextDecoder(self._table)

    def completing(self, tag: str) -> frozenset[int]:
        """Ids of the tokens that may complete `tag`, whichever tokens it began with."""
        whole = tag.encode()

        def may_complete(token: bytes) -> bool:
            ends = (token[: at + 1] for at, byte in enumerate(token) if byte == whole[-1])
            return any(whole.endswith(part) or part.endswith(whole) for part in ends)

        return frozenset(id_ for id_, token in self._table.items() if may_complete(token))

    def has(self, token_id: int) -> bool:
        """Whether `token_id` stands for a token at all; vocabularies are padded to round sizes."""
        return token_id in self._table


def _token_bytes(token: str) -> bytes:
    """What a token of a byte-level vocabulary stands for: each of its characters is one byte."""
    try:
        return bytes(_BYTES[character] for character in token)
    except KeyError:
        return token.encode()
