"""Tokens that are never drawn, masked for all requests of an engine at once, in one write a step.

vLLM's two model runners ask for two different classes. Recorded log-probs are taken before either is asked.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import LogitsProcessor
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as LogitsProcessorV2

SETTING = "relisten_banned_ids"
"""Where in vLLM's `additional_config` the ids stand."""


def _banned(config: VllmConfig, device: torch.device) -> Tensor:
    return torch.tensor(config.additional_config[SETTING], dtype=torch.int64, device=device)


class Ban(LogitsProcessor):
    """For model runner V1."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._banned = _banned(vllm_config, device)

    def apply(self, logits: Tensor) -> Tensor:
        return logits.index_fill_(-1, self._banned, -torch.inf)

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: Any) -> None:
        """Nothing to do: the mask is the same for every request."""


class BanV2(LogitsProcessorV2):
    """For model runner V2."""

    def __init__(self, vllm_config: VllmConfig, req_states: Any) -> None:
        self._banned = _banned(vllm_config, req_states.device)

    def apply(self, logits: Tensor, ctx: Any) -> Tensor:
        return logits.index_fill_(-1, self._banned, -torch.inf)
