"""Engines that several tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.vllm import SharedVllm


@pytest.fixture(scope="session")
def untrained_vllm(untrained_folder: Path) -> Iterator[SharedVllm]:
    """On random weights, with as many tokens of context as the contract's other engines."""
    shared = SharedVllm(untrained_folder, max_context=700, max_rows=8)
    yield shared
    shared.close()


@pytest.fixture(scope="session")
def tiny_vllm() -> Iterator[SharedVllm]:
    """On echo-tiny; with a setting that stands where one of ours does."""
    shared = SharedVllm("echo-tiny", max_context=1024, additional_config={"somebody": "else's"})
    yield shared
    shared.close()
