"""`echo-tiny`: an untrained checkpoint folder in the layout of Qwen2.5-Omni-7B, a thousand times smaller.

The folder holds what the 7B's holds for listening and answering: `config.json` with a `thinker_config`,
`preprocessor_config.json`, the tokenizer's files and `thinker.*` weights in `model.safetensors`. Stock transformers
classes and vLLM load it. Three choices differ from the 7B, all within what its configuration can say:

* One mel frame for 20 ms (hop 320) and towers that see up to 30 s as one chunk (`n_window` 750). The position
  signal then runs over the whole clip, where the 7B's starts again every 2 s: the only sense of time it has.
* A tokenizer of its own, small enough for an embedding of some hundred rows.
* `<seg>`, `<think>`, `<answer>` and their closing tags are single tokens.

The vision tower is the smallest that loads and is never trained: it only keeps stock classes from missing keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, Qwen2_5OmniConfig, Qwen2_5OmniForConditionalGeneration

from relisten.audio import SAMPLE_RATE
from relisten.models.text import RESPONSE_TAGS
from relisten.protocol import Format, system_prompt

CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|AUDIO|>",
    "<|audio_bos|>",
    "<|audio_eos|>",
    "<|vision_bos|>",
    "<|vision_eos|>",
    "<|vision_pad|>",
    "<|IMAGE|>",
    "<|VIDEO|>",
)
"""The strings of Qwen2.5-Omni."""

HOP_LENGTH = 320
CHUNK_SECONDS = 30

# A word takes the space before it along; a number never does, so that "5" is one token wherever it stands. A
# time such as 12.5 is two tokens, seconds and tenths.
_WORD = r"[^\s\d\p{P}\p{S}]+"
_PIECES = rf"\.\d| ?{_WORD}(?:-{_WORD})*|\d{{1,2}}|, (?=\d)| ?(?:(?!\.\d)[\p{{P}}\p{{S}}])+|\s+(?!\S)|\s"


@dataclass(frozen=True)
class TinyShape:
    """Sizes of the two towers; heads are 32 wide in both."""

    audio_width: int = 160
    audio_layers: int = 3
    width: int = 160
    layers: int = 4
    feed_forward: int = 448
    vocabulary: int = 943
    """Byte-level BPE tokens, before control and tag tokens."""


def build(folder: str | Path, seed: int = 0, texts: Iterable[str] = (), shape: TinyShape | None = None) -> Path:
    """Write an untrained checkpoint.

    Args:
        folder: created if need be; files of the same names are replaced.
        seed: of the weights.
        texts: what the tokenizer learns its words from, beside the system prompts and all numbers up to 99.9.
        shape: sizes of the towers.

    Returns:
        The folder.
    """
    folder = Path(folder)
    shape = shape or TinyShape()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(texts, shape.vocabulary)
    write_tokenizer(folder, tokenizer)
    config = make_config(tokenizer, shape)
    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(seed)
        model = Qwen2_5OmniForConditionalGeneration(config)
    finally:
        torch.random.set_rng_state(state)
    end = tokenizer.token_to_id("<|im_end|>")
    pad = tokenizer.token_to_id("<|endoftext|>")
    model.generation_config = GenerationConfig(eos_token_id=[end, pad], pad_token_id=pad)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSOR, indent=2) + "\n")
    # The stock class refuses a folder without a file of speakers, even where there is no talker. Nothing
    # here ever reads it.
    torch.save({}, folder / "spk_dict.pt")
    return folder


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE: any text encodes, and the words of `texts` become single tokens as far as room allows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=2,
        show_progress=False,
    )
    # Repeated so that each becomes a token whatever else is there.
    numbers = [" ".join(f"{n}.{n % 10}, 5" for n in range(100))] * 1000
    prompts = [system_prompt(format) for format in Format] * 1000
    roles = ["system\n", "user\n", "assistant\n", "\nChoices:\n- "] * 1000
    tokenizer.train_from_iterator(chain(texts, numbers, prompts, roles), trainer)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in (*CONTROL_TOKENS, *RESPONSE_TAGS)]
    )
    return tokenizer


def write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """`tokenizer.json` and `tokenizer_config.json`."""
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "additional_special_tokens": [*CONTROL_TOKENS, *RESPONSE_TAGS],
        "audio_token": "<|AUDIO|>",
        "audio_bos_token": "<|audio_bos|>",
        "audio_eos_token": "<|audio_eos|>",
        "image_token": "<|IMAGE|>",
        "video_token": "<|VIDEO|>",
        "vision_bos_token": "<|vision_bos|>",
        "vision_eos_token": "<|vision_eos|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
        "chat_template": _CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def make_config(tokenizer: Tokenizer, shape: TinyShape) -> Qwen2_5OmniConfig:
    """The configuration of the 7B with the sizes of `shape` and the ids of `tokenizer`."""
    ids = {token: tokenizer.token_to_id(token) for token in CONTROL_TOKENS}
    rows = -(-tokenizer.get_vocab_size() // 64) * 64  # matrix products like even sizes
    text = {
        "vocab_size": rows,
        "hidden_size": shape.width,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.width // 32,
        "num_key_value_heads": shape.width // 32,
        "max_position_embeddings": 4096,
        "initializer_range": 0.05,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
        "tie_word_embeddings": False,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    audio = {
        "d_model": shape.audio_width,
        "encoder_layers": shape.audio_layers,
        "encoder_attention_heads": shape.audio_width // 32,
        "encoder_ffn_dim": 4 * shape.audio_width,
        "num_mel_bins": _PREPROCESSOR["feature_size"],
        "n_window": CHUNK_SECONDS * SAMPLE_RATE // HOP_LENGTH // 2,
        "max_source_positions": 1500,
        "output_dim": shape.width,
        "initializer_range": 0.05,
    }
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 1,
        "out_hidden_size": shape.width,
        "fullatt_block_indexes": [0],
    }
    thinker = {
        "audio_config": audio,
        "vision_config": vision,
        "text_config": text,
        "audio_token_index": ids["<|AUDIO|>"],
        "audio_start_token_id": ids["<|audio_bos|>"],
        "audio_end_token_id": ids["<|audio_eos|>"],
        "image_token_index": ids["<|IMAGE|>"],
        "video_token_index": ids["<|VIDEO|>"],
        "user_token_id": tokenizer.encode("user").ids[0],
        "initializer_range": 0.05,
        "vision_start_token_id": ids["<|vision_bos|>"],
        "vision_end_token_id": ids["<|vision_eos|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "tie_word_embeddings": False,
    }
    return Qwen2_5OmniConfig(thinker_config=thinker, enable_audio_output=False, dtype="float32")


_PREPROCESSOR = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "processor_class": "Qwen2_5OmniProcessor",
    "image_processor_type": "Qwen2VLImageProcessor",  # stock servers ask for it
    "feature_size": 128,
    "sampling_rate": SAMPLE_RATE,
    "n_fft": 512,
    "hop_length": HOP_LENGTH,
    "chunk_length": CHUNK_SECONDS,
    "n_samples": CHUNK_SECONDS * SAMPLE_RATE,
    "nb_max_frames": CHUNK_SECONDS * SAMPLE_RATE // HOP_LENGTH,
    "padding_side": "right",
    "padding_value": 0.0,
    "dither": 0.0,
    "return_attention_mask": True,
}

_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
