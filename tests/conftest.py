"""What many tests need: a random-weight echo-tiny, and a store of replies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from relisten.llm.store import ReplyStore
    from relisten.models import Family

# Speed is not what tests measure, and shared machines are slow at times.
settings.register_profile("relisten", deadline=None)
settings.load_profile("relisten")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def untrained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of echo-tiny's shape with random weights."""
    from relisten.models.tiny import build

    return build(tmp_path_factory.mktemp("checkpoint") / "untrained", seed=0)


@pytest.fixture(scope="session")
def untrained(untrained_folder: Path) -> Family:
    from relisten.models import load

    return load(untrained_folder, dtype="float32")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReplyStore]:
    from relisten.llm.store import ReplyStore

    with ReplyStore(tmp_path / "replies.sqlite") as store:
        yield store
