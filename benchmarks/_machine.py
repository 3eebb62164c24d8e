"""On what a benchmark ran."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

from relisten.evaluate.provenance import git_state, versions
from relisten.processes import usable_processors


def machine() -> dict[str, Any]:
    """Processors, memory, GPU, versions, commit, and how busy it was when this was asked."""
    found: dict[str, Any] = {
        "processor": _processor(),
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


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
