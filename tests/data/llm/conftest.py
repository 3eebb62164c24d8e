from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relisten.data.llm.store import ReplyStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReplyStore]:
    with ReplyStore(tmp_path / "replies.sqlite") as store:
        yield store
