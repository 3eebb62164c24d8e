from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.models.text import RESPONSE_TAGS
from relisten.models.tiny import TinyShape, build

SHAPE = TinyShape(audio_width=32, audio_layers=2, width=64, layers=2, feed_forward=64, vocabulary=420)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("tiny"), seed=1, shape=SHAPE)


@pytest.fixture(scope="session")
def untagged_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a tokenizer that writes tags in several tokens, as Qwen's does."""
    folder = shutil.copytree(tiny_folder, tmp_path_factory.mktemp("untagged") / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        content = json.loads((folder / name).read_text())
        for key in ("added_tokens", "additional_special_tokens"):
            if key in content:
                content[key] = [token for token in content[key] if _content(token) not in RESPONSE_TAGS]
        (folder / name).write_text(json.dumps(content))
    return folder


def _content(token: str | dict[str, str]) -> str:
    return token if isinstance(token, str) else token["content"]


@pytest.fixture
def family(tiny_folder: Path) -> Qwen2_5Omni:
    return Qwen2_5Omni.load(tiny_folder, dtype="float32")
