"""vLLM's entry point `vllm.general_plugins`. Every process of vLLM calls it, so it loads nothing."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os

from relisten.processes import end_with_parent

ARCHITECTURE = "RelistenQwen2_5Omni"
"""What the engine runs; its configuration names it."""

OURS = "RELISTEN_VLLM"
"""Set in the environment of processes that our engine starts."""

_STOCK = ("Qwen2_5OmniModel", "Qwen2_5OmniForConditionalGeneration")
_THINKER_ONLY = "Qwen2_5OmniThinkerForConditionalGeneration"
"""Of checkpoints without a talker, as trainers write them; vLLM itself has no class for it."""


def register() -> None:
    """Make our model known to vLLM, and give our audio front end to Qwen2.5-Omni as vLLM serves it. Without
    torchvision, which vLLM's own class needs, it then serves sound and text only."""
    from vllm import ModelRegistry

    if OURS in os.environ and multiprocessing.parent_process() is not None:
        end_with_parent()  # else vLLM's core would outlive us and keep the GPU's memory
    ModelRegistry.register_model(ARCHITECTURE, "relisten.engines.vllm.model:ListeningQwen2_5Omni")
    sees = importlib.util.find_spec("torchvision") is not None
    served = "stock:Qwen2_5Omni" if sees else "model:ServedQwen2_5Omni"
    ModelRegistry.register_model(_THINKER_ONLY, "relisten.engines.vllm.model:ServedQwen2_5Omni")
    for name in _STOCK:
        ModelRegistry.register_model(name, f"relisten.engines.vllm.{served}")
