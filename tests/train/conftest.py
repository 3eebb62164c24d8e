from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.untagged import untag

from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.models.tiny import TinyShape, build

SHAPE = TinyShape(audio_width=32, audio_layers=2, width=64, layers=2, feed_forward=64, vocabulary=420)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("tiny"), seed=1, shape=SHAPE)


@pytest.fixture(scope="session")
def untagged_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a tokenizer that writes tags in several tokens, as Qwen's does."""
    return untag(shutil.copytree(tiny_folder, tmp_path_factory.mktemp("untagged") / "model"))


@pytest.fixture
def family(tiny_folder: Path) -> Qwen2_5Omni:
    return Qwen2_5Omni.load(tiny_folder, dtype="float32")
