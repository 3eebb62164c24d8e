"""A vLLM that tests share: it takes half a minute to start."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from relisten.engines.vllm.engine import VllmEngine

needs_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM is not installed here; make test-vllm has its own"
)


class SharedVllm:
    """Starts vLLM when it is first asked for, and again where a test has closed it."""

    def __init__(self, model: str | Path, **options: Any) -> None:
        self._model = model
        self._options = options
        self._engine: VllmEngine | None = None

    def engine(self) -> VllmEngine:
        from relisten.engines.vllm import load

        if self._engine is None or self._engine.closed:
            self._engine = load(self._model, **self._options)
        return self._engine

    def tidy(self) -> None:
        """End what a test left open."""
        if self._engine is not None and not self._engine.closed:
            self._engine.close_streams()

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
