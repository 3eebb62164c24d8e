"""Parts of a random-weight Omni checkpoint that looks like the 7B's: config, tokenizer, front end."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

from relisten.audio import Clip
from relisten.models.text import TextDecoder

SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"),
    *("<|vision_bos|>", "<|vision_eos|>", "<|vision_pad|>", "<|IMAGE|>", "<|VIDEO|>"),
)
NOT_SPECIAL = ("<tool_call>", "</tool_call>", "<seg>", "</seg>")
VOCABULARY = 400
CORPUS = "system user assistant how many snare hits between two and five seconds é 鼓 <seg>2.0, 5.0</seg>"


def noise(seconds: float, seed: int = 0) -> Clip:
    """A clip of noise that is `seconds` long."""
    rng = np.random.default_rng(seed)
    samples = rng.uniform(0.01, 0.5) * rng.standard_normal(max(1, round(seconds * 16_000)))
    return Clip(samples.astype(np.float32))


def decoded(decoder: TextDecoder, ids: Iterable[int]) -> str:
    """The text of all of `ids`."""
    return "".join(map(decoder.push, ids)) + decoder.flush()


def write_tokenizer(folder: Path, leave_out: str = "") -> dict[str, int]:
    """Tokenizer files as Qwen's, with a small vocabulary; returns the ids of the added tokens."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator([CORPUS], trainer)
    bpe = json.loads(trained.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=bpe["vocab"],
        merges=[tuple(merge) for merge in bpe["merges"]],
        eos_token="<|im_end|>",
        split_special_tokens=False,
    )
    special = [AddedToken(t, special=True, normalized=False) for t in SPECIAL if t != leave_out]
    tokenizer.add_tokens(special, special_tokens=True)
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in NOT_SPECIAL])
    tokenizer.save_pretrained(folder)
    return dict(tokenizer.get_added_vocab())


def thinker_config(ids: dict[str, int]) -> dict[str, Any]:
    """As in the 7B's config.json, older key names included."""
    return {
        "model_type": "qwen2_5_omni_thinker",
        "audio_config": {
            "model_type": "qwen2_5_omni_audio_encoder",
            "num_mel_bins": 32,
            "d_model": 32,
            "output_dim": 48,
            "n_window": 50,
            "max_source_positions": 100,
            "encoder_layers": 2,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
        },
        "vision_config": {
            "model_type": "qwen2_5_omni_vision_encoder",
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 48,
            "fullatt_block_indexes": [0],
        },
        "text_config": {
            "model_type": "qwen2_5_omni_text",
            "vocab_size": VOCABULARY,
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "initializer_range": 0.2,
            "tie_word_embeddings": False,
            "rope_theta": 1000000.0,
            "rope_scaling": {"mrope_section": [2, 2, 2], "rope_type": "default", "type": "default"},
        },
        "audio_token_index": ids["<|AUDIO|>"],
        "audio_start_token_id": ids["<|audio_bos|>"],
        "audio_end_token_id": ids["<|audio_eos|>"],
        "image_token_index": ids["<|IMAGE|>"],
        "video_token_index": ids["<|VIDEO|>"],
        "vision_start_token_id": ids["<|vision_bos|>"],
        "initializer_range": 0.2,
        "torch_dtype": "float32",
    }


PREPROCESSOR_CONFIG = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": 32,
    "n_fft": 400,
    "hop_length": 160,
    "sampling_rate": 16000,
    "chunk_length": 30,
    "padding_side": "right",
    "padding_value": 0.0,
    "dither": 0.0,
    "return_attention_mask": True,
}
