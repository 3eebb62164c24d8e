"""Sound for vLLM: our log-mel front end as vLLM's multimodal processor, without padding.

vLLM's stock processor for Qwen2.5-Omni calls transformers', which pads every sound to 300 s and needs torchvision.
Here a 3 s crop costs the work of 3 s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BatchFeature, Qwen2_5OmniThinkerConfig
from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems
from vllm.multimodal.parse import MultiModalDataItems, MultiModalDataParser
from vllm.multimodal.processing import BaseDummyInputsBuilder, BaseMultiModalProcessor, BaseProcessingInfo
from vllm.multimodal.processing.processor import PromptReplacement, PromptUpdate

from relisten.audio import SAMPLE_RATE, Clip
from relisten.models.checkpoint import find_folder, read_json
from relisten.models.mel import LogMel
from relisten.models.qwen2_5_omni import count_audio_tokens

FEATURES, LENGTHS = "input_audio_features", "audio_feature_lengths"
"""The model's inputs: features of all sounds, (n_mels, sum of frames) float32, and frames of each, (sounds,)."""


def load_mel(model: str) -> LogMel:
    """The front end that a checkpoint folder or hub id asks for."""
    folder: Path = find_folder(model)
    return LogMel.from_config(read_json(folder / "preprocessor_config.json"))


def hear(mel: LogMel, sounds: Sequence[NDArray[Any]]) -> BatchFeature:
    """Features of mono sounds at 16 kHz, each of its own length."""
    # A clip makes its samples read-only; the view keeps the caller's array writable.
    clips = [Clip(np.asarray(sound, np.float32).view()) for sound in sounds]
    features, lengths = mel(clips)
    return BatchFeature({FEATURES: features, LENGTHS: lengths})


def place(mel: LogMel, audio_id: int, heard: MultiModalKwargsItems) -> PromptReplacement:
    """The rule by which vLLM replaces a sound's one placeholder token by as many as the sound has embeddings."""
    lengths = heard.get_data().get(LENGTHS, ())

    def placeholders(index: int) -> list[int]:
        count = count_audio_tokens(int(lengths[index]))
        if count < 1:
            raise ValueError(
                f"sound {index} is too short to be heard; give at least {2 * mel.hop_length + 1} samples"
            )
        return [audio_id] * count

    return PromptReplacement(modality="audio", target=[audio_id], replacement=placeholders)


class AudioInfo(BaseProcessingInfo):
    """What vLLM asks about a model before it processes anything."""

    def get_hf_config(self) -> Qwen2_5OmniThinkerConfig:
        config = self.ctx.get_hf_config()
        return getattr(config, "thinker_config", config)

    @cached_property
    def mel(self) -> LogMel:
        return load_mel(self.ctx.model_config.model)

    def get_data_parser(self) -> MultiModalDataParser:
        return MultiModalDataParser(target_sr=SAMPLE_RATE, target_channels=1)

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {"audio": None}

    def get_supported_mm_processor_kwargs(self) -> dict[str, set[str]]:
        return {}

    def get_mm_max_tokens_per_item(
        self, seq_len: int, mm_counts: Mapping[str, int] | None = None
    ) -> Mapping[str, int]:
        """A single sound may fill the whole context."""
        return {"audio": seq_len} if mm_counts is None or mm_counts.get("audio") else {}


class AudioDummies(BaseDummyInputsBuilder[AudioInfo]):
    """What vLLM measures memory with: the longest sounds that there can be."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        tokenizer = self.info.get_tokenizer()
        token: str = tokenizer.convert_ids_to_tokens(self.info.get_hf_config().audio_token_id)
        return token * mm_counts.get("audio", 0)

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Any) -> dict[str, Any]:
        samples = 4 * seq_len * self.info.mel.hop_length
        audio = self._get_dummy_audios(
            length=samples, num_audios=mm_counts.get("audio", 0), overrides=mm_options.get("audio")
        )
        return {"audio": audio}


class AudioProcessor(BaseMultiModalProcessor[AudioInfo]):
    """Sounds to features and placeholders."""

    def _call_hf_processor(self, hf_data: Mapping[str, object], hf_kwargs: Mapping[str, object]) -> BatchFeature:
        return hear(self.info.mel, hf_data["audio"])  # type: ignore[arg-type]

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        lengths = hf_inputs.get(LENGTHS, torch.zeros(0, dtype=torch.int64))
        return {
            FEATURES: MultiModalFieldConfig.flat_from_sizes("audio", lengths, dim=1),
            LENGTHS: MultiModalFieldConfig.batched("audio", keep_on_cpu=True),
        }

    def _get_prompt_updates(
        self,
        mm_items: MultiModalDataItems,
        hf_processor_mm_kwargs: Mapping[str, Any],
        out_mm_kwargs: MultiModalKwargsItems,
    ) -> Sequence[PromptUpdate]:
        return [place(self.info.mel, self.info.get_hf_config().audio_token_id, out_mm_kwargs)]
