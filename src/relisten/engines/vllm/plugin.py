"""vLLM's entry point `vllm.general_plugins`. Every process of vLLM calls it, so it loads nothing."""

from __future__ import annotations

import importlib.util

ARCHITECTURE = "RelistenQwen2_5Omni"
"""What the engine runs; its configuration names it."""

_STOCK = ("Qwen2_5OmniModel", "Qwen2_5OmniForConditionalGeneration")


def register() -> None:
    """Make our model known to vLLM, and have it hear with our front end where it serves Qwen2.5-Omni itself
    (sound and text alone where torchvision is missing, which vLLM's own class needs)."""
    from vllm import ModelRegistry

    ModelRegistry.register_model(ARCHITECTURE, "relisten.engines.vllm.model:ListeningQwen2_5Omni")
    sees = importlib.util.find_spec("torchvision") is not None
    served = "stock:Qwen2_5Omni" if sees else "model:ServedQwen2_5Omni"
    for name in _STOCK:
        ModelRegistry.register_model(name, f"relisten.engines.vllm.{served}")
