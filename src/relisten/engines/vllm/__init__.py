"""vLLM as an engine: `load`. Nothing of vLLM is imported before."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relisten.errors import InputError

if TYPE_CHECKING:
    from relisten.engines.vllm.engine import VllmEngine

ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",  # vLLM would send them somewhere
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a forked process would have the locks of our threads
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # other processes may be on the same cores
}
"""What vLLM reads from the environment; anything already set there stays."""


def load(model: str | Path, **options: Any) -> VllmEngine:
    """Start vLLM with a model; see `VllmEngine`. Its workers are other processes, so a script that calls this needs
    `if __name__ == "__main__":`.

    Raises:
        InputError: vLLM is not installed, or as `VllmEngine`.
    """
    if importlib.util.find_spec("vllm") is None:
        raise InputError('vLLM is not installed; run pip install "relisten[vllm]", or take the native engine')
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from relisten.engines.vllm.engine import VllmEngine

    return VllmEngine(model, **options)
