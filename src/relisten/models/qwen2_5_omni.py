"""Qwen2.5-Omni: the Thinker, hearing and writing. Its vision, talker and token2wav parts are never loaded.

Positions are a plain count from 0 over text and audio alike: without images and videos the three axes of the
model's rotary positions (TMRoPE) are equal, also behind inserted crops.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration
from transformers.initialization import no_init_weights

from relisten.audio import SAMPLE_RATE, Clip
from relisten.errors import InputError
from relisten.models.base import Prompt
from relisten.models.checkpoint import Checkpoint, find_folder, read_json, stored_dtype, write_checkpoint
from relisten.models.mel import LogMel
from relisten.models.text import RESPONSE_TAGS, TextCodec, TextDecoder, load_tokenizer
from relisten.models.tower import ChunkCache, encode_features
from relisten.protocol import Format, system_prompt, user_parts
from relisten.question import Question

WHOLE, THINKER = "qwen2_5_omni", "qwen2_5_omni_thinker"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_PREFIX = "thinker."
_NESTED = "language_model" in Qwen2_5OmniThinkerForConditionalGeneration._tied_weights_keys["lm_head.weight"]
"""Whether transformers keeps tower and language model inside `model` (from 5.20 on) or beside it."""
AUDIO_TOWER = "model.audio_tower" if _NESTED else "audio_tower"
LANGUAGE_MODEL = "model.language_model" if _NESTED else "model"
"""Where they are in a thinker."""


def count_audio_tokens(frames: int) -> int:
    """Embeddings of a sound of `frames` mel frames: one convolution and one pooling, each of stride 2. Counted
    chunk by chunk it is the same, since a whole chunk leaves no remainder in either."""
    return (((frames - 1) // 2 + 1) - 2) // 2 + 1


class Qwen2_5Omni:  # noqa: N801
    """The family; see `relisten.models.base.Family` for what its methods promise. Made by `load`."""

    name = WHOLE

    def __init__(
        self,
        thinker: Qwen2_5OmniThinkerForConditionalGeneration,
        text: TextCodec,
        mel: LogMel,
        source: Checkpoint,
    ) -> None:
        self.thinker = thinker
        self.text = text
        self.mel = mel
        self.source = source
        config = thinker.config
        self.chunk_seconds: float = 2 * config.audio_config.n_window * mel.hop_length / SAMPLE_RATE
        self.context_size: int = config.text_config.max_position_embeddings
        self.audio_id: int = config.audio_token_id
        self._audio_begin: int = config.audio_start_token_id
        self._audio_end: int = config.audio_end_token_id
        self._start = self._control("<|im_start|>")
        self.end_of_turn_id = self._control("<|im_end|>")
        self.eos_ids = frozenset({self.end_of_turn_id, text.added.get("<|endoftext|>", self.end_of_turn_id)})
        self._vocabulary: int = config.text_config.vocab_size
        audio = {"<|AUDIO|>": self.audio_id, "<|audio_bos|>": self._audio_begin, "<|audio_eos|>": self._audio_end}
        found = {content: text.added.get(content) for content in audio}
        if text.size > self._vocabulary or found != audio:
            raise InputError(
                f"{source.folder}: tokenizer ({text.size} ids, {found}) and config.json ({self._vocabulary} ids, "
                f"{audio}) do not fit together; copy the tokenizer that belongs to the weights"
            )
        self._new_files: Mapping[str, bytes] = {}  # of the checkpoint, where they are not those of the source

    @property
    def banned_ids(self) -> tuple[int, ...]:
        text = self.text
        control = {text.added[content] for content in text.special if content not in RESPONSE_TAGS}
        control |= {self.audio_id, self._audio_begin, self._audio_end}
        control |= {i for i in range(self._vocabulary) if not text.has(i)}
        return tuple(sorted(control - self.eos_ids))

    @classmethod
    def load(
        cls,
        path: str | Path,
        dtype: torch.dtype | str = "auto",
        device: torch.device | str = "cpu",
    ) -> Qwen2_5Omni:
        """Load a whole Omni checkpoint or a thinker-only one.

        Args:
            path: a folder, or a hub id (which is downloaded unless it is in the hub's cache).
            dtype: float32 or bfloat16, also as a text; "auto" takes bfloat16 for weights stored in half
                precision, else float32.
            device: where the weights go.

        Raises:
            InputError: for anything in the checkpoint that is missing, unreadable or does not fit.
        """
        folder = find_folder(path, wanted=_is_heard)
        source = Checkpoint.open(folder)
        config, text, mel = _front(source, device)
        thinker = build_outline(config)
        _fill(thinker, source, dtype, torch.device(device))
        return cls(thinker.eval(), text, mel, source)

    @classmethod
    def outline(cls, path: str | Path) -> Qwen2_5Omni:
        """The model without its weights: prompts, token counts and sizes, its modules on torch's "meta" device.

        Raises:
            InputError: as `load`; the weights need not be there.
        """
        folder = find_folder(path)
        source = Checkpoint(folder, read_json(folder / "config.json"), {})
        config, text, mel = _front(source, "cpu")
        return cls(build_outline(config), text, mel, source)

    def save(
        self,
        folder: str | Path,
        whole: bool = False,
        *,
        weights: Mapping[str, Tensor] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Write a thinker-only checkpoint that stock `Qwen2_5OmniThinkerForConditionalGeneration` loads.

        The vision tower, which is not loaded, is carried over from the source folder tensor by tensor, and so are
        the tokenizer and the other text files.

        Args:
            folder: a new or empty folder.
            whole: write a whole Omni checkpoint instead: talker, token2wav and every other file of the source
                folder go along untouched.
            weights: the thinker's tensors by the names of its own `state_dict`, for a trainer that holds them
                elsewhere (sharded, or with adapters to be merged); None takes its own.
            dtype: what the tensors are written in; None keeps theirs.

        Raises:
            InputError: `folder` is not empty, the source folder is gone, or `whole` for a source without a
                talker.
        """
        self.check_savable(whole)
        is_whole = self.source.config["model_type"] == WHOLE
        inner = dict(self.source.config["thinker_config"] if is_whole else self.source.config)
        inner.pop("torch_dtype", None)
        inner["dtype"] = str(dtype or self.dtype).removeprefix("torch.")
        parameters = self.thinker.state_dict() if weights is None else weights
        tied = self.thinker.config.tie_word_embeddings

        def in_dtype(tensor: Tensor) -> Tensor:
            return tensor if dtype is None else tensor.detach().to(dtype)

        def rename(name: str) -> str | None:
            if tied and _module_name(name) == "lm_head.weight":  # the same tensor as the embedding
                return None
            return name if whole else _thinker_name(name)

        write_checkpoint(
            self.source,
            Path(folder),
            config={**self.source.config, "thinker_config": inner}
            if whole
            else {**inner, "model_type": THINKER, "architectures": [type(self.thinker).__name__]},
            rename=rename,
            changed={
                name: in_dtype(parameters[_module_name(name)]) for name in self.source.files if _is_heard(name)
            },
            keep_file=lambda file: whole or file.suffix in (".json", ".txt", ".jinja"),
            new_files=self._new_files,
        )

    def add_tag_tokens(self) -> tuple[str, ...]:
        """Make one token of each of `RESPONSE_TAGS` that is none yet; checkpoints are then saved with them.

        They take ids in the vocabulary's padding, so that nothing is resized. What the model has for them, as input
        and as output, begins as the mean of what it has for the pieces that they were written in: train it.

        Returns:
            The tags that are new.

        Raises:
            InputError: there is no room for them.
        """
        new = [tag for tag in RESPONSE_TAGS if tag not in self.text.added]
        if not new:
            return ()
        tokenizer = load_tokenizer(self.source.folder, self.thinker.config)
        tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in new])
        text = TextCodec(tokenizer.backend_tokenizer.to_str())
        if text.size > self._vocabulary:
            raise InputError(
                f"{self.source.folder}: its vocabulary has {self._vocabulary} places for {self.text.size} tokens, "
                f"which leaves no room for {len(new)} tags; train without tag_tokens"
            )
        with torch.no_grad():
            for rows in (self.thinker.get_input_embeddings().weight, self.lm_head.weight):
                for tag in new:
                    rows[text.added[tag]] = rows[self.encode_text(tag)].float().mean(0)
        self.text = text
        with TemporaryDirectory() as folder:
            tokenizer.save_pretrained(folder)
            self._new_files = {file.name: file.read_bytes() for file in Path(folder).iterdir()}
        return tuple(new)

    def check_savable(self, whole: bool) -> None:
        """Raises InputError where `save` would have nothing to carry over; a trainer asks before it starts."""
        folder = self.source.folder
        if not whole:
            return
        if self.source.config["model_type"] != WHOLE:
            raise InputError(f"{folder}: is thinker-only and has no talker to carry over; save with whole=False")
        speaks = self.source.config.get("enable_audio_output", True)
        if speaks and not (folder / "spk_dict.pt").is_file():
            raise InputError(
                f"{folder}: has no spk_dict.pt, without which a whole Omni checkpoint cannot speak; "
                "download it there, or save with whole=False"
            )
        if missing := sorted(file for file in set(self.source.files.values()) if not (folder / file).is_file()):
            raise InputError(
                f"{folder}: has no {missing[0]}, which a whole Omni checkpoint carries over; download it there, or "
                "save with whole=False"
            )

    @property
    def device(self) -> torch.device:
        return self.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.lm_head.weight.dtype

    @property
    def stored_dtype(self) -> torch.dtype:
        """What the source's weights are stored in, half precision taken for bfloat16."""
        return _resolve_dtype("auto", self.source)

    @property
    def audio_tower(self) -> nn.Module:
        return cast(nn.Module, self.thinker.get_submodule(AUDIO_TOWER))

    @property
    def language_model(self) -> nn.Module:
        return cast(nn.Module, self.thinker.get_submodule(LANGUAGE_MODEL))

    @property
    def lm_head(self) -> nn.Linear:
        return cast(nn.Linear, self.thinker.lm_head)

    def prompt(self, question: Question, clip: Clip, format: Format = Format.INTERLEAVED) -> Prompt:
        """System turn, then the user's turn with sound and question, then the head of the model's turn."""
        newline = self.encode_text("\n")
        head = [self._start, *self.encode_response(f"system\n{system_prompt(format)}")]
        head += [self.end_of_turn_id, *newline, self._start, *self.encode_text("user\n")]
        asked, *findings = (self.encode_text(part) for part in user_parts(question))
        ends = [*itertools.accumulate(map(len, findings), initial=len(asked))]
        tail = [*asked, *itertools.chain.from_iterable(findings), self.end_of_turn_id, *newline]
        tail += [self._start, *self.encode_text("assistant\n")]
        return Prompt((tuple(head), clip, tuple(tail)), tuple(itertools.pairwise(ends)))

    def encode_text(self, text: str) -> list[int]:
        return self.text.encode(text)

    def encode_response(self, text: str) -> list[int]:
        return self.text.encode_response(text)

    def decoder(self) -> TextDecoder:
        return self.text.decoder()

    def completing(self, tag: str) -> frozenset[int]:
        return self.text.completing(tag)

    def num_audio_tokens(self, num_samples: int) -> int:
        return count_audio_tokens(self.mel.num_frames(num_samples))

    def audio_ids(self, num_tokens: int) -> list[int]:
        return [self._audio_begin, *[self.audio_id] * num_tokens, self._audio_end]

    def encode_audio(self, clips: Sequence[Clip], cache: ChunkCache | None = None) -> list[Tensor]:
        """For each clip its (n, hidden) embeddings in the model's dtype; features are float32 until the tower.

        In inference mode the tower is `models.tower`'s, and chunks in `cache` are not encoded again. Else it is the
        stock module, whose hooks training needs (adapters, sharding, checkpointing), and `cache` is not used.
        """
        counts = [self.num_audio_tokens(clip.num_samples) for clip in clips]
        heard = [clip for clip, count in zip(clips, counts, strict=True) if count]
        nothing = self.lm_head.weight.new_zeros(0, self.lm_head.in_features)
        if not heard:
            return [nothing for _ in clips]
        features, lengths = self.mel(heard)
        if torch.is_inference_mode_enabled():
            encoded = iter(encode_features(self.audio_tower, features, lengths.tolist(), cache))
            return [next(encoded) if count else nothing for count in counts]
        embeddings = self.audio_tower(features, feature_lens=lengths).last_hidden_state
        return list(embeddings.split(counts))

    def embed(self, ids: Tensor) -> Tensor:
        return cast(Tensor, self.thinker.get_input_embeddings()(ids))

    def _control(self, content: str) -> int:
        if content not in self.text.added:
            raise InputError(
                f"{self.source.folder}: its tokenizer has no token {content}; "
                "copy the tokenizer that belongs to the weights"
            )
        return self.text.added[content]


def _front(source: Checkpoint, device: torch.device | str) -> tuple[Qwen2_5OmniThinkerConfig, TextCodec, LogMel]:
    """All of a checkpoint but its weights."""
    folder = source.folder
    config = _thinker_config(source)
    mel = LogMel.from_config(read_json(folder / "preprocessor_config.json"), device)
    if mel.n_mels != config.audio_config.num_mel_bins:
        raise InputError(
            f"{folder}: preprocessor_config.json has {mel.n_mels} mel bands, config.json "
            f"{config.audio_config.num_mel_bins}; copy both from the original checkpoint"
        )
    return config, TextCodec(load_tokenizer(folder, config).backend_tokenizer.to_str()), mel


def _thinker_config(source: Checkpoint) -> Qwen2_5OmniThinkerConfig:
    kind = source.config.get("model_type")
    content: Any = source.config if kind == THINKER else source.config.get("thinker_config")
    if kind not in (WHOLE, THINKER) or not isinstance(content, Mapping):
        raise InputError(
            f"{source.folder}: config.json has model_type {kind!r}; this family needs {THINKER!r}, or {WHOLE!r} "
            "with a thinker_config"
        )
    try:
        return Qwen2_5OmniThinkerConfig.from_dict(dict(content))
    except Exception as error:  # validators of several libraries
        raise InputError(
            f"{source.folder}: config.json is not valid for {THINKER} ({error}); copy it from the original"
        ) from error


def build_outline(config: Qwen2_5OmniThinkerConfig) -> Qwen2_5OmniThinkerForConditionalGeneration:
    """The module without its vision tower and without memory for its weights."""
    with torch.device("meta"), no_init_weights():
        thinker = Qwen2_5OmniThinkerForConditionalGeneration(config)
    del (thinker.model if _NESTED else thinker).visual
    return thinker


def _fill(
    thinker: Qwen2_5OmniThinkerForConditionalGeneration,
    source: Checkpoint,
    dtype: torch.dtype | str,
    device: torch.device,
) -> None:
    """Give `thinker` the weights of `source`; every one must be there, and none be left over."""
    expected = {name: parameter.shape for name, parameter in thinker.named_parameters()}
    stored = {_module_name(name): name for name in source.files if _is_heard(name)}
    if thinker.config.tie_word_embeddings:  # the same tensor as the embedding
        expected.pop("lm_head.weight", None)
        stored.pop("lm_head.weight", None)
    missing, unknown = expected.keys() - stored.keys(), stored.keys() - expected.keys()
    for what, names in (("lacks", missing), ("has unknown", unknown)):
        if names:
            raise InputError(
                f"{source.folder}: {what} {len(names)} weights of the model that config.json describes, such as "
                f"{min(names)!r}; use config.json and weights of the same checkpoint"
            )
    dtype = _resolve_dtype(dtype, source)
    weights = {}
    for stored_name, tensor in source.read(stored.values()):
        name = _module_name(stored_name)
        if tensor.shape != expected[name]:
            raise InputError(
                f"{source.folder}: {stored_name!r} has shape {tuple(tensor.shape)}, config.json asks for "
                f"{tuple(expected[name])}; use config.json and weights of the same checkpoint"
            )
        # Copied out of the file's memory map, so that the file may change or go.
        weights[name] = tensor.to(device, dtype, copy=True)
    thinker.load_state_dict(weights, strict=False, assign=True)
    thinker.config.dtype = dtype
    if thinker.config.tie_word_embeddings:
        thinker.tie_weights()
    for module in thinker.modules():
        buffers = list(module.named_buffers(recurse=False))
        for name, buffer in buffers:
            module.register_buffer(name, torch.empty_like(buffer, device=device), persistent=False)
        if buffers:
            thinker._init_weights(module)  # position tables are computed, not stored


def _resolve_dtype(dtype: torch.dtype | str, source: Checkpoint) -> torch.dtype:
    if dtype == "auto":
        (_, tensor), *_ = source.read([min(name for name in source.files if _is_heard(name))])
        return stored_dtype(tensor)
    resolved = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if resolved not in DTYPES.values():
        raise InputError(f"dtype {dtype}: weights are held as float32 or bfloat16; give one of them or 'auto'")
    return cast(torch.dtype, resolved)


def _thinker_name(name: str) -> str | None:
    """Name in a thinker-only checkpoint; None for the talker and the like."""
    if name.startswith(_PREFIX):
        return name.removeprefix(_PREFIX)
    return None if name.startswith(("talker.", "token2wav.")) else name


def _is_heard(name: str) -> bool:
    """Whether a stored tensor belongs to the part that is loaded."""
    inner = _thinker_name(name)
    return inner is not None and not inner.startswith(("visual.", "model.visual."))


def _module_name(name: str) -> str:
    """The module's name of a stored tensor. Checkpoints keep older names: there, `model` is the language model."""
    name = name.removeprefix(_PREFIX)
    if not _NESTED:
        return name.replace("model.audio_tower.", "audio_tower.").replace("model.language_model.", "model.")
    if name.startswith("audio_tower."):
        return f"model.{name}"
    if name.startswith("model.") and not name.startswith(("model.audio_tower.", "model.language_model.")):
        return f"model.language_model.{name.removeprefix('model.')}"
    return name
