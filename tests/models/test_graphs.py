"""Steps that are recorded and repeated give what the steps themselves give. CUDA graphs are played on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from support.recording import Recordings
from torch import Tensor

from relisten import models
from relisten.models import graphs
from relisten.models.decoder import Chunk, KVCache, PackedDecoder
from relisten.models.graphs import Step, StepGraphs
from relisten.models.qwen2_5_omni import Qwen2_5Omni

PASTS = (5, 300, 17, 250, 40, 3)


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> Recordings:
    made = Recordings()
    monkeypatch.setattr(graphs, "record", made.record)
    return made


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(models.decoder, "_CALL", models.decoder._CALL_CUDA)
    with torch.inference_mode():
        yield


@pytest.fixture
def decoder(family: Qwen2_5Omni) -> PackedDecoder:
    return PackedDecoder(family.language_model, family.lm_head)


@pytest.fixture
def steps(family: Qwen2_5Omni, decoder: PackedDecoder) -> StepGraphs:
    return StepGraphs(decoder, family.embed, family.device, max_rows=6, max_length=16_384)


def filled(family: Qwen2_5Omni, decoder: PackedDecoder) -> KVCache:
    """A row for each of `PASTS`."""
    cache = decoder.new_cache(6, 16_384)
    cache.reserve(len(PASTS), max(PASTS))
    ids = torch.randint(0, 300, (sum(PASTS),), generator=torch.Generator().manual_seed(0))
    decoder(family.embed(ids.to(family.device)), [Chunk(row, 0, past) for row, past in enumerate(PASTS)], cache)
    return cache


def one_more(rows: tuple[int, ...], behind: int = 0) -> list[Chunk]:
    return [Chunk(row, PASTS[row] + behind, 1) for row in rows]


def plain(
    family: Qwen2_5Omni, decoder: PackedDecoder, ids: list[int], chunks: list[Chunk], cache: KVCache
) -> Tensor:
    cache.reserve(len(PASTS), max(chunk.end for chunk in chunks))
    return decoder(family.embed(torch.tensor(ids, device=family.device)), chunks, cache)


@pytest.mark.parametrize("rows", [(0,), (1, 3), (5, 0, 2), (0, 1, 2, 3, 4, 5)])
def test_a_recorded_step_is_the_step_whoever_sits_out(
    family: Qwen2_5Omni, decoder: PackedDecoder, steps: StepGraphs, recordings: Recordings, rows: tuple[int, ...]
) -> None:
    ours, theirs = filled(family, decoder), filled(family, decoder)
    for step in range(4):
        ids, chunks = [7 * row + step for row in rows], one_more(rows, step)
        logits = steps.step(ids, chunks, len(PASTS), ours)
        assert logits is not None
        torch.testing.assert_close(logits, plain(family, decoder, ids, chunks, theirs), atol=1e-5, rtol=0)
    assert (recordings.recorded, recordings.repeated) == (1, 6)  # the first is repeated twice more, to compare
    for mine, other in zip((*ours.keys, *ours.values), (*theirs.keys, *theirs.values), strict=True):
        for row, past in enumerate(PASTS):
            length = past + 4 * (row in rows)
            torch.testing.assert_close(mine[row, :, :length], other[row, :, :length], atol=1e-5, rtol=0)


def test_sizes_are_filled_up_and_a_cache_that_moved_is_recorded_anew(
    family: Qwen2_5Omni, decoder: PackedDecoder, steps: StepGraphs, recordings: Recordings
) -> None:
    cache, other = filled(family, decoder), filled(family, decoder)
    seen = []
    for chunk in (Chunk(0, 5, 1), Chunk(0, 6, 1), Chunk(1, 300, 1), Chunk(3, 250, 1), Chunk(1, 301, 1)):
        logits = steps.step([9], [chunk], chunk.slot + 1, cache)
        assert logits is not None
        torch.testing.assert_close(logits, plain(family, decoder, [9], [chunk], other), atol=1e-5, rtol=0)
        seen.append(recordings.recorded)
    assert seen == [1, 1, 2, 3, 3]
    cache.reserve(6, 2000)
    logits = steps.step([9], [Chunk(1, 302, 1)], 2, cache)
    assert logits is not None
    torch.testing.assert_close(logits, plain(family, decoder, [9], [Chunk(1, 302, 1)], other), atol=1e-5, rtol=0)
    assert recordings.recorded == 4


@pytest.mark.parametrize("moved", [False, True])
def test_new_weights_count_where_they_are_and_where_they_go(
    omni_folder: str, recordings: Recordings, moved: bool
) -> None:
    family = Qwen2_5Omni.load(omni_folder, "float32")
    decoder = PackedDecoder(family.language_model, family.lm_head)
    steps = StepGraphs(decoder, family.embed, family.device, max_rows=6, max_length=16_384)
    cache = filled(family, decoder)
    before = steps.step([9], one_more((2,)), 3, cache)
    assert before is not None
    weights = {name: 1.1 * tensor for name, tensor in family.thinker.state_dict().items()}
    family.thinker.load_state_dict(weights, assign=moved)
    steps.forget()
    after = steps.step([9], one_more((2,)), 3, cache)
    assert after is not None
    torch.testing.assert_close(after, plain(family, decoder, [9], one_more((2,)), cache), atol=1e-5, rtol=0)
    assert not torch.allclose(after, before, atol=1e-2)
    assert recordings.recorded == 1 + moved


def test_steps_of_another_kind_are_none_of_a_recordings(
    family: Qwen2_5Omni,
    decoder: PackedDecoder,
    steps: StepGraphs,
    recordings: Recordings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = filled(family, decoder)
    assert steps.step([1, 2, 3], [Chunk(0, 5, 2), Chunk(2, 17, 1)], 3, cache) is None
    assert recordings.recorded == 0
    cache.reserve(6, 10_000)
    long = [*one_more((0, 2)), Chunk(1, 9_999, 1)]
    assert steps.step([1, 2, 3], long, 3, cache) is not None
    monkeypatch.setattr(models.decoder, "_CALL", 256)  # now it had better attend by itself
    assert steps.step([1, 2, 3], long, 3, cache) is None


def test_where_memory_is_short_a_size_is_left_out_until_the_cache_moves(
    family: Qwen2_5Omni, decoder: PackedDecoder, steps: StepGraphs, recordings: Recordings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    tried = []

    def short(*arguments: object) -> Step:
        tried.append(arguments)
        raise torch.OutOfMemoryError

    monkeypatch.setattr(graphs, "record", short)
    cache = filled(family, decoder)
    assert [steps.step([1], one_more((0,)), 1, cache) for _ in range(3)] == [None] * 3
    assert len(tried) == 1
    monkeypatch.setattr(graphs, "record", recordings.record)
    cache.reserve(6, 2000)
    assert steps.step([1], one_more((0,)), 1, cache) is not None


def lies(step: Step, stream: None, pool: object) -> Step:
    return lambda: torch.zeros_like(step())


def idles(step: Step, stream: None, pool: object) -> Step:
    result = step()
    return lambda: result


def reads(step: Step, stream: None, pool: object) -> Step:
    return Recordings().record(lambda: step() * step().sum().item(), stream, pool)


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (graphs.record, "none without a GPU"),
        (idles, "gave other numbers"),
        (lies, "gave other numbers"),
        (reads, "cannot be recorded"),
    ],
)
def test_where_steps_cannot_be_recorded_that_is_said_once(
    family: Qwen2_5Omni, decoder: PackedDecoder, steps: StepGraphs, monkeypatch: pytest.MonkeyPatch, record: object,
    why: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(graphs, "record", record)
    cache = filled(family, decoder)
    with pytest.warns(RuntimeWarning, match=why) as told:
        assert steps.step([1], one_more((0,)), 1, cache) is None
    assert steps.step([1], one_more((0,)), 1, cache) is None
    assert len(told) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.filterwarnings("error:decoding goes on without CUDA graphs")
def test_on_a_gpu_a_recorded_step_is_the_step_before_and_after_the_cache_grows(omni_folder: str) -> None:
    family = Qwen2_5Omni.load(omni_folder, "float32", "cuda")
    decoder = PackedDecoder(family.language_model, family.lm_head)
    for _ in range(2):  # one engine after another
        steps = StepGraphs(decoder, family.embed, family.device, max_rows=6, max_length=16_384)
        ours, theirs = filled(family, decoder), filled(family, decoder)
        for step in range(8):
            if step % 3 == 2:
                ours.reserve(6, 2 * ours.capacity)
            ids, chunks = [7 * row + step for row in range(3)], one_more((0, 1, 2), step)
            logits = steps.step(ids, chunks, len(PASTS), ours)
            assert logits is not None
            torch.testing.assert_close(logits, plain(family, decoder, ids, chunks, theirs), atol=1e-3, rtol=0)
