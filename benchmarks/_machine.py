"""On what a benchmark ran."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

from relisten.evaluate.provenance import git_state, versions
from relisten.processes import usable_processors

_INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")
"""Those that decide how fast a dtype is, as Linux calls them on x86 and on ARM."""


def machine() -> dict[str, Any]:
    """Processors, memory, GPU, versions, commit, and how busy it was when this was asked."""
    names, flags = _told_of_processors("model name"), _told_of_processors("flags", "Features").split()
    found: dict[str, Any] = {
        "processor": names or platform.processor() or platform.machine(),
        "instructions": [name for name in _INSTRUCTIONS if name in flags],
        "processors": usable_processors(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load": round(os.getloadavg()[0], 1),
        "versions": versions(),
        "git": git_state(),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
        found["gpu_memory_gib"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
    return found


def _told_of_processors(*keys: str) -> str:
    """The first value that Linux tells under one of these keys; "" elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in pairs if key.strip() in keys), "")
