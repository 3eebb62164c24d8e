from __future__ import annotations

from pathlib import Path

import pytest

from relisten.models.tiny import TinyShape, build

SHAPE = TinyShape(audio_width=32, audio_layers=2, width=64, layers=3, feed_forward=64, vocabulary=420)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained checkpoint that loads and runs in no time."""
    return build(tmp_path_factory.mktemp("tiny"), seed=1, shape=SHAPE)
