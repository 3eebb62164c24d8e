"""Qwen2.5-Omni as our engine runs it in vLLM: audio tower and language model, without vision and talker.

vLLM's own class for this family stays for those who send images and videos; `stock` gives it our audio front end.
That class needs torchvision; where torchvision is missing, `vllm serve` runs the class here instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniAudioEncoder
from transformers.utils import is_flash_attn_2_available
from vllm.config import VllmConfig
from vllm.model_executor.models.interfaces import SupportsMRoPE, SupportsMultiModal, SupportsPP
from vllm.model_executor.models.utils import (
    AutoWeightsLoader,
    WeightsMapper,
    init_vllm_registered_model,
    maybe_prefix,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.sequence import IntermediateTensors

from relisten.engines.vllm.audio import FEATURES, LENGTHS, AudioDummies, AudioInfo, AudioProcessor
from relisten.engines.vllm.plugin import ARCHITECTURE
from relisten.models.qwen2_5_omni import count_audio_tokens


def listening(config: PreTrainedConfig) -> PreTrainedConfig:
    """vLLM's `hf_overrides`: the part of a whole or thinker-only checkpoint's configuration that this class runs.

    Without images and videos the three axes of the rotary positions are equal, so plain positions do.
    """
    thinker: PreTrainedConfig = getattr(config, "thinker_config", config)
    text = getattr(thinker, "text_config", None)
    if text is None:  # vLLM also calls this with an empty configuration
        return config
    thinker.architectures = [ARCHITECTURE]
    text.rope_parameters = {key: value for key, value in text.rope_parameters.items() if key != "mrope_section"}
    return thinker


@MULTIMODAL_REGISTRY.register_processor(AudioProcessor, info=AudioInfo, dummy_inputs=AudioDummies)
class ListeningQwen2_5Omni(nn.Module, SupportsMultiModal, SupportsPP):  # noqa: N801
    """See the module. Takes weights by the names of whole checkpoints, of thinker-only ones, and of transformers'
    modules."""

    # Applied in order: each line sees a name as the lines above have changed it.
    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_prefix={
            "talker.": None,
            "token2wav.": None,
            "thinker.": "",
            "visual.": None,
            "model.visual.": None,
            "model.audio_tower.": "audio_tower.",
            "model.language_model.": "model.",
            "model.": "language_model.model.",
            "lm_head.": "language_model.lm_head.",
        }
    )
    packed_modules_mapping: ClassVar = {
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        if modality != "audio":
            raise ValueError(f"{modality} {i}: this class only hears; take vLLM's own for other inputs")
        return "<|audio_bos|><|AUDIO|><|audio_eos|>"

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config = vllm_config.model_config.hf_config
        self.config = getattr(config, "thinker_config", config)
        audio = self.config.audio_config
        if vllm_config.device_config.device_type == "cuda" and is_flash_attn_2_available():
            audio._attn_implementation = "flash_attention_2"
        mark: Any = self  # for the type checker, to which a module's attributes are tensors or modules
        with mark._mark_tower_model(vllm_config, "audio"):
            self.audio_tower = Qwen2_5OmniAudioEncoder(audio)
        with mark._mark_language_model(vllm_config):
            self.language_model = init_vllm_registered_model(
                vllm_config=vllm_config,
                prefix=maybe_prefix(prefix, "language_model"),
                hf_config=self.config.text_config,
                architectures=["Qwen2ForCausalLM"],
            )
        self.make_empty_intermediate_tensors = self.language_model.make_empty_intermediate_tensors

    def embed_multimodal(self, **inputs: Any) -> tuple[Tensor, ...]:
        """For each sound its (n, hidden) embeddings."""
        if FEATURES not in inputs:
            return ()
        features, lengths = inputs[FEATURES], inputs[LENGTHS].flatten()
        tower: Any = self.audio_tower
        heard = tower(features.to(tower.dtype), feature_lens=lengths.to(features.device)).last_hidden_state
        return heard.split([count_audio_tokens(length) for length in lengths.tolist()])  # type: ignore[no-any-return]

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: Tensor | None = None,
        **_: object,
    ) -> Tensor | IntermediateTensors:
        if intermediate_tensors is not None:
            inputs_embeds = None
        return self.language_model.model(input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds)

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        logits: Tensor | None = self.language_model.compute_logits(hidden_states)
        return logits

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        loaded: set[str] = AutoWeightsLoader(self).load_weights(weights, mapper=self.hf_to_vllm_mapper)
        return loaded


@MULTIMODAL_REGISTRY.register_processor(AudioProcessor, info=AudioInfo, dummy_inputs=AudioDummies)
class ServedQwen2_5Omni(ListeningQwen2_5Omni, SupportsMRoPE):  # noqa: N801
    """The same behind a checkpoint's own configuration, which has rotary positions of three axes."""

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[Tensor, int]:
        """(3, n) positions, alike on every axis, and what to add to those of later tokens."""
        return torch.arange(len(input_tokens)).expand(3, -1), 0
