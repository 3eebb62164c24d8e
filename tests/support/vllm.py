"""A vLLM that tests share (it takes half a minute to start), and comparisons with the native engine."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import runpy
import sys
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from relisten.engines.base import Engine, Stream
from relisten.engines.drive import answer
from relisten.evaluate.benchmarks.registry import find_benchmark
from relisten.protocol import Format
from relisten.question import Question
from relisten.trace import Sampling, Trace

if TYPE_CHECKING:
    from relisten.engines.vllm.engine import VllmEngine
    from relisten.models import Family

needs_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM is not installed here; make test-vllm has its own"
)

TORCHVISION = Path(sys.prefix) / "torchvision"
"""Where `make test-vllm` puts torchvision's Python files."""

TOLERANCE = 1e-4
"""Of log-probs of one model in two engines: float32, sums in another order."""


def scenes(count: int) -> list[Question]:
    """Questions that echo-tiny has learned to answer."""
    rows = (row for row in find_benchmark("scenes").rows(None, None) if isinstance(row, Question))
    return [replace(row, audio=row.clip()) for row in islice(rows, count)]


async def answers(
    engine: Engine, asked: Sequence[Question], format: Format = Format.INTERLEAVED, **options: object
) -> list[Trace]:
    """To all questions, side by side; `options` are of `Sampling`."""
    sampling = Sampling(**options)  # type: ignore[arg-type]
    return list(await asyncio.gather(*(answer(engine, one, format=format, sampling=sampling) for one in asked)))


def assert_same(
    ours: Sequence[Trace], theirs: Sequence[Trace], tolerance: float = TOLERANCE, most_ties: int = 1
) -> None:
    """Token for token, log-probs to rounding.

    Where two tokens are equally likely to rounding each engine may take its own, and goes another way from there:
    one answer of a test may do that, and is compared up to that token.
    """
    ties = 0
    for one, other in zip(ours, theirs, strict=True):
        assert one.spans[0] == other.spans[0]
        ids, wanted = ([id_ for span in trace.generated for id_ in span.ids] for trace in (one, other))
        parted = next((i for i, pair in enumerate(zip(ids, wanted, strict=False)) if pair[0] != pair[1]), None)
        end = None if parted is None else parted + 1
        assert one.logprobs[:end] == pytest.approx(other.logprobs[:end], abs=tolerance)
        if parted is None:
            assert (one.text, one.token_ids, one.listens) == (other.text, other.token_ids, other.listens)
        else:
            ties += 1
    assert ties <= most_ties


def assert_nothing_twice(computed: Computed, trace: Trace, family: Family) -> None:
    """vLLM computed the prompt, then token by token, and of every listen the crop alone, behind the one token that
    vLLM drops when it stops; and encoded each sound once."""
    tokens: list[int] = []
    for told, written in zip(trace.spans[::2], trace.spans[1::2], strict=True):
        tokens += [len(told.ids) + bool(tokens), *[1] * (len(written.ids) - 1)]
    assert computed.tokens == tokens
    assert computed.sounds == [span.ids.count(family.audio_id) for span in trace.spans[::2]]


@dataclass
class Computed:
    """Tokens of each forward of the language model, and embeddings of each sound that was encoded."""

    tokens: list[int] = field(default_factory=list)
    sounds: list[int] = field(default_factory=list)


@contextlib.contextmanager
def watched(engine: VllmEngine) -> Iterator[Computed]:
    """What a `SharedVllm` computes inside, told when it is left."""
    computed = Computed()
    engine._loop.run(engine.llm.collective_rpc("relisten_watch"))
    try:
        yield computed
    finally:
        [(computed.tokens, computed.sounds)] = engine._loop.run(engine.llm.collective_rpc("relisten_watched"))


def torchvision(scratch: Path) -> dict[str, str]:
    """The environment in which a new process imports torchvision, as it is where vLLM runs on a GPU; its operators
    do not load beside vLLM's build for CPUs, and are declared."""
    if importlib.util.find_spec("torchvision") is not None:
        return {}
    if not TORCHVISION.is_dir():
        pytest.skip(
            f"no torchvision: pip install --no-deps --target {TORCHVISION} torchvision, as make test-vllm does"
        )
    stock = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "_stock_vllm.py"))
    environment: dict[str, str] = stock["torchvision_beside_cpu"](scratch, TORCHVISION)
    return environment


class SharedVllm:
    """Starts vLLM when it is first asked for, and again where a test has closed it."""

    def __init__(self, model: str | Path, **options: Any) -> None:
        self._model = model
        self._options = {"worker_extension_cls": "support.vllm_worker.Watch"} | options
        self._engine: VllmEngine | None = None
        self._opened: weakref.WeakSet[Stream] = weakref.WeakSet()

    def engine(self) -> VllmEngine:
        from relisten.engines.vllm import load

        if self._engine is None or self._engine.closed:
            engine = load(self._model, **self._options)
            open_stream = engine.open

            def noted(*given: Any) -> Stream:
                self._opened.add(stream := open_stream(*given))
                return stream

            engine.open = noted  # type: ignore[method-assign]
            self._engine = engine
        return self._engine

    def tidy(self) -> None:
        """End what a test left open."""
        for stream in tuple(self._opened):
            stream.close()
        if self._engine is not None:
            ends = time.monotonic() + 30
            while self._engine.open_rows and time.monotonic() < ends:
                time.sleep(0.01)
            assert not self._engine.open_rows

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
