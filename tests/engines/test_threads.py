"""The engine's threads take the processors they should, and leave those of other threads alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
import torch
from support.answers import noise_answer

from relisten.engines.native import NativeEngine
from relisten.errors import InputError
from relisten.models import Family
from relisten.trace import Sampling


@pytest.fixture(autouse=True)
def three() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("asked", "taken"), [(None, 1), (2, 2), (3, 3)])
def test_threads_of_an_engine_are_its_own(
    untrained: Family, monkeypatch: pytest.MonkeyPatch, asked: int | None, taken: int
) -> None:
    seen: list[int] = []
    for name in ("embed", "encode_audio"):
        real = getattr(untrained, name)
        monkeypatch.setattr(
            untrained, name, lambda *given, real=real: (seen.append(torch.get_num_threads()), real(*given))[1]
        )
    with NativeEngine(untrained, threads=asked, encode_beside=True) as engine:
        asyncio.run(noise_answer(engine, 2, Sampling()))
        other = threading.Thread(target=lambda: seen.append(10 * torch.get_num_threads()))
        other.start()
        other.join()
    assert set(seen) == {taken, 30}
    assert torch.get_num_threads() == 3


def test_no_threads_are_refused(untrained: Family) -> None:
    with pytest.raises(InputError, match="threads 0"):
        NativeEngine(untrained, threads=0)
