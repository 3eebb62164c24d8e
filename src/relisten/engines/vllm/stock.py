"""vLLM's own Qwen2.5-Omni with our audio front end, for `vllm serve` and `vllm.LLM`: no padding to 300 s.

A prompt with images or videos goes through the stock processor, sounds and all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from transformers import BatchFeature
from vllm.model_executor.models.qwen2_5_omni_thinker import (
    Qwen2_5OmniThinkerDummyInputsBuilder,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2_5OmniThinkerMultiModalProcessor,
    Qwen2_5OmniThinkerProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalKwargsItems
from vllm.multimodal.parse import MultiModalDataItems
from vllm.multimodal.processing.processor import PromptUpdate

from relisten.engines.vllm.audio import LENGTHS, hear, load_mel, place
from relisten.models.mel import LogMel


class Info(Qwen2_5OmniThinkerProcessingInfo):
    @cached_property
    def mel(self) -> LogMel:
        return load_mel(self.ctx.model_config.model)


class Processor(Qwen2_5OmniThinkerMultiModalProcessor[Info]):
    def _call_hf_processor(self, hf_data: Mapping[str, object], hf_kwargs: Mapping[str, object]) -> BatchFeature:
        if hf_data.keys() - {"text"} != {"audio"}:
            return super()._call_hf_processor(hf_data, hf_kwargs)
        heard = hear(self.info.mel, hf_data["audio"])  # type: ignore[arg-type]
        # The model's input check asks for it, but where there are lengths nothing reads it.
        heard["feature_attention_mask"] = torch.ones(len(heard[LENGTHS]), 1, dtype=torch.int64)
        return heard

    def _get_prompt_updates(
        self,
        mm_items: MultiModalDataItems,
        hf_processor_mm_kwargs: Mapping[str, Any],
        out_mm_kwargs: MultiModalKwargsItems,
    ) -> Sequence[PromptUpdate]:
        if {modality for modality, count in mm_items.get_all_counts().items() if count} == {"audio"}:
            return [place(self.info.mel, self.info.get_hf_config().audio_token_id, out_mm_kwargs)]
        stock: Sequence[PromptUpdate] = super()._get_prompt_updates(mm_items, hf_processor_mm_kwargs, out_mm_kwargs)
        return stock


@MULTIMODAL_REGISTRY.register_processor(Processor, info=Info, dummy_inputs=Qwen2_5OmniThinkerDummyInputsBuilder)
class Qwen2_5Omni(Qwen2_5OmniThinkerForConditionalGeneration):  # noqa: N801
    """See the module."""
