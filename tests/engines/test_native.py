"""The native engine is exact: its log-probs are those of a plain forward over what the trace says it saw."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.answers import (
    TOLERANCE,
    begin_together,
    listening,
    noise_answer,
    pause_after,
    plain_logits,
    plain_logprobs,
)
from support.sounds import noise_clip, noise_question

from relisten.engines import worker
from relisten.engines.drive import answer
from relisten.engines.native import NativeEngine
from relisten.models import Family, load, tower
from relisten.protocol import Finish, Format, Segment
from relisten.question import Question
from relisten.trace import GeneratedSpan, ListenSpan, Sampling, Trace

HALF_TOLERANCE = 0.06  # a step of bfloat16 is 0.03 between 4 and 8
ROWS = 15
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logprobs_equal_a_plain_forward_and_company_changes_nothing(untrained: Family, temperature: float) -> None:
    async def work() -> None:
        samplings = [Sampling(temperature=temperature, top_p=0.95, seed=i) for i in range(ROWS)]
        with NativeEngine(untrained, max_rows=6) as engine:  # fewer places than answers: rows join and leave
            together = await asyncio.gather(*(noise_answer(engine, i, samplings[i]) for i in range(ROWS)))
        with NativeEngine(untrained) as engine:
            alone = [await noise_answer(engine, i, samplings[i]) for i in range(ROWS)]
        for index, (trace, single) in enumerate(zip(together, alone, strict=True)):
            assert trace.token_ids == single.token_ids
            expected = plain_logprobs(untrained, trace, noise_question(index).clip())
            assert trace.logprobs == pytest.approx(expected, abs=TOLERANCE)
            assert single.logprobs == pytest.approx(expected, abs=TOLERANCE)

    asyncio.run(work())


@pytest.mark.parametrize(
    ("device", "dtype", "tolerance"),
    [
        ("cpu", "bfloat16", HALF_TOLERANCE),
        pytest.param("cuda", "float32", 1e-3, marks=needs_cuda),
        pytest.param("cuda", "bfloat16", HALF_TOLERANCE, marks=needs_cuda),
    ],
)
def test_other_devices_and_precisions_are_as_exact_as_they_can_be(
    untrained_folder: Path, device: str, dtype: str, tolerance: float
) -> None:
    family = load(untrained_folder, dtype=dtype, device=device)

    async def work() -> None:
        with NativeEngine(family) as engine:
            samplings = (Sampling(temperature=1.0, seed=index) for index in range(8))
            traces = await asyncio.gather(
                *(noise_answer(engine, i, sampling) for i, sampling in enumerate(samplings))
            )
        for index, trace in enumerate(traces):
            with torch.device(device):
                expected = plain_logprobs(family, trace, noise_question(index).clip())
            assert trace.logprobs == pytest.approx(expected, abs=tolerance)

    asyncio.run(work())


def test_greedy_takes_the_likeliest_token_that_is_allowed(untrained: Family) -> None:
    with NativeEngine(untrained) as engine:
        trace = asyncio.run(noise_answer(engine, 4, Sampling()))
    logits = plain_logits(untrained, trace, noise_question(4).clip())
    logits[:, list(untrained.banned_ids)] = -torch.inf
    assert logits.argmax(-1).tolist() == [id_ for span in trace.generated for id_ in span.ids]


def watched(family: Family, monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], list[int]]:
    """The tokens of every pass through the language model, and the clips of every encoding, as they come."""
    lengths: list[int] = []
    encoded: list[int] = []
    layer, encode = family.language_model.layers[0].mlp, family.encode_audio
    monkeypatch.setattr(layer, "forward", lambda x, old=layer.forward: (lengths.append(len(x)), old(x))[1])
    monkeypatch.setattr(
        family, "encode_audio", lambda clips, cache=None: (encoded.append(len(clips)), encode(clips, cache))[1]
    )
    return lengths, encoded


def test_what_comes_before_a_listen_is_not_computed_again(
    untrained: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths, _ = watched(untrained, monkeypatch)

    async def work() -> None:
        with NativeEngine(untrained) as engine:
            trace = await noise_answer(engine, 2, Sampling())
        prompt, first, heard, second, again, third = trace.spans
        assert isinstance(first, GeneratedSpan)
        assert isinstance(heard, ListenSpan)
        expected = [len(prompt.ids), *[1] * (len(first.ids) - 1)]
        expected += [1 + len(heard.ids), *[1] * (len(second.ids) - 1)]
        expected += [1 + len(again.ids), *[1] * (len(third.ids) - 1)]
        assert lengths == expected

    asyncio.run(work())


def test_answers_to_one_question_share_its_prompt_and_its_clip(
    untrained: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths, encoded = watched(untrained, monkeypatch)

    async def work() -> None:
        first, second = noise_question(0), noise_question(1)
        asked = [first, second, first, second, first]
        samplings = [Sampling(temperature=1.0, seed=i, max_tokens=6) for i in range(5)]
        with NativeEngine(untrained, lockstep=True) as engine:
            traces = await begin_together(engine, asked, samplings)
        assert lengths == [len(traces[0].spans[0].ids) + len(traces[1].spans[0].ids), 5, 5, 5, 5, 5]
        assert encoded == [1, 1]
        assert len({trace.token_ids for trace in traces}) == 5
        for one, trace in zip(asked, traces, strict=True):
            expected = plain_logprobs(untrained, trace, one.clip())
            assert trace.logprobs == pytest.approx(expected, abs=TOLERANCE)

    asyncio.run(work())


@pytest.mark.parametrize("text", [None, "And what comes last?"])
@pytest.mark.parametrize("rows", [2, 8])
def test_who_begins_later_takes_over_what_was_heard_of_the_clip(
    untrained: Family, monkeypatch: pytest.MonkeyPatch, rows: int, text: str | None
) -> None:
    lengths, encoded = watched(untrained, monkeypatch)

    async def work() -> None:
        first = noise_question(0)
        asked = [first, *[replace(first, text=text or first.text)] * 4]
        samplings = [Sampling(temperature=1.0, seed=i, max_tokens=6 + i) for i in range(5)]
        with NativeEngine(untrained, max_rows=rows, lockstep=True) as engine:
            traces = await begin_together(engine, asked, samplings)
        assert encoded == [1]
        prompts = [trace.spans[0].ids for trace in traces]
        tails = sum(lengths) - len(prompts[0]) - sum(len(span.ids) - 1 for t in traces for span in t.generated)
        end_of_sound = untrained.audio_ids(1)[-1]
        assert tails <= sum(ids[::-1].index(end_of_sound) for ids in prompts[1:])
        for question, trace in zip(asked, traces, strict=True):
            expected = plain_logprobs(untrained, trace, question.clip())
            assert trace.logprobs == pytest.approx(expected, abs=TOLERANCE)
            assert trace.timings.prefill > 0

    asyncio.run(work())


@pytest.mark.parametrize("clips", [7, 2])
def test_in_lockstep_answers_are_the_same_to_the_bit(untrained: Family, clips: int) -> None:
    asked = [noise_question(index) for index in range(clips)]

    async def one(engine: NativeEngine, index: int, slow: float) -> Trace:
        sampling = Sampling(temperature=1.0, seed=index)
        trace = await listening(engine, asked[index % clips], sampling, index, listens=index % 5)
        await asyncio.sleep(slow)
        return trace

    async def work() -> None:
        runs = []
        for slow in (0.0, 0.02):
            with NativeEngine(untrained, max_rows=3, lockstep=True) as engine:
                with engine.together():
                    tasks = [asyncio.ensure_future(one(engine, i, slow)) for i in range(7)]
                    await asyncio.sleep(slow)
                runs.append(await asyncio.gather(*tasks))
        for first, second in zip(*runs, strict=True):
            assert first.token_ids == second.token_ids
            assert first.logprobs == second.logprobs

    asyncio.run(work())


def test_long_answers_stand_beside_short_ones(untrained: Family) -> None:
    """They attend by themselves, in whatever slot they are; and so do few where many slots sit out a step."""

    async def one(engine: NativeEngine, index: int, question: Question) -> Trace:
        return await listening(engine, question, Sampling(), index, listens=index % 3, tokens=3 + 4 * (index % 4))

    async def work() -> None:
        asked = [noise_question(index) for index in range(9)]
        for index in (0, 4):
            asked[index] = replace(asked[index], audio=noise_clip(24.0 + index, index))
        with NativeEngine(untrained) as engine:
            with engine.together():
                tasks = [asyncio.ensure_future(one(engine, i, question)) for i, question in enumerate(asked)]
                await asyncio.sleep(0)
            traces = await asyncio.gather(*tasks)
        for trace, question in zip(traces, asked, strict=True):
            expected = plain_logprobs(untrained, trace, question.clip())
            assert trace.logprobs == pytest.approx(expected, abs=TOLERANCE)

    asyncio.run(work())


def test_a_long_prompt_has_its_turn_while_others_listen(untrained: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "MAX_STEP_TOKENS", 100)

    async def one(engine: NativeEngine, index: int, listens: int) -> int:
        asked = noise_question(index)
        stream = engine.open(asked, asked.clip(), Format.INTERLEAVED, Sampling())
        for _ in range(listens):  # with something to hear in every step
            await stream.decode(pause_after(1))
            stream.listen(Segment(0.0, 0.5))
        stream.close()
        return index

    async def work() -> None:
        with NativeEngine(untrained, lockstep=True) as engine:
            with engine.together():
                works = [asyncio.ensure_future(one(engine, index, 10)) for index in (0, 1)]
                await asyncio.sleep(0)
                works.append(asyncio.ensure_future(one(engine, 4, 1)))
                await asyncio.sleep(0)
            first, *_ = [await done for done in asyncio.as_completed(works)]
        assert first == 4

    asyncio.run(work())


def test_special_tokens_are_never_sampled(untrained: Family) -> None:
    async def work() -> None:
        with NativeEngine(untrained) as engine:
            traces = await asyncio.gather(
                *(
                    answer(engine, noise_question(i), sampling=Sampling(temperature=5.0, seed=i, max_tokens=150))
                    for i in range(8)
                )
            )
        sampled = {t for trace in traces for span in trace.generated for t in span.ids}
        assert len(sampled) > 100
        assert not sampled & set(untrained.banned_ids)

    asyncio.run(work())


@pytest.mark.parametrize("lockstep", [True, False])
def test_sound_encoded_beside_decoding_is_the_same(untrained: Family, lockstep: bool) -> None:
    async def work() -> None:
        runs = []
        for beside in (True, False):
            with NativeEngine(untrained, max_rows=3, lockstep=lockstep, encode_beside=beside) as engine:
                with engine.together():
                    tasks = [
                        asyncio.ensure_future(noise_answer(engine, i, Sampling(1.0, seed=i))) for i in range(6)
                    ]
                    await asyncio.sleep(0)
                runs.append(await asyncio.gather(*tasks))
        for first, second in zip(*runs, strict=True):
            assert first.token_ids == second.token_ids
            # Steps differ in company where rows wait for no one, and only there in the last bits.
            assert first.logprobs == (
                second.logprobs if lockstep else pytest.approx(second.logprobs, abs=TOLERANCE)
            )

    asyncio.run(work())


def test_alignment_is_told_and_reuses_the_clips_chunks(untrained_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(untrained_folder, tmp_path / "short-chunks")
    config = json.loads((folder / "config.json").read_text())
    config["thinker_config"]["audio_config"]["n_window"] = 26  # of 20 ms
    (folder / "config.json").write_text(json.dumps(config))
    family = load(folder, dtype="float32")
    assert family.chunk_seconds == 1.04
    encoded: list[int] = []
    encode = tower.encode_chunks

    def counting(module: object, chunks: list[torch.Tensor]) -> list[torch.Tensor]:
        encoded.append(len(chunks))
        return encode(module, chunks)

    async def work(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tower, "encode_chunks", counting)
        asked = Question("How many?", (), noise_clip(5.5, 0))
        with NativeEngine(family, align=True) as engine:
            stream = engine.open(asked, asked.clip(), Format.INTERLEAVED, Sampling())
            first = await stream.decode(lambda piece, end: True)
            assert sum(encoded) == 6
            heard = stream.listen(Segment(0.5, 4.9))
            assert heard is not None
            assert (heard.segment.start, heard.segment.end) == pytest.approx((0.0, 5.2))
            second = await stream.decode(lambda piece, end: True)
            assert sum(encoded) == 6  # nothing anew: it begins where the clip does
            again = stream.listen(Segment(2.0, 5.5))
            assert again is not None
            third = await stream.decode(lambda piece, end: True)
            assert sum(encoded) == 7  # its first chunk alone: what stands before it is not heard
            spans = (stream.prompt, first, heard, second, again, third)
        trace = Trace("", (), spans, Finish.LENGTH, Format.INTERLEAVED)
        expected = plain_logprobs(family, trace, asked.clip())
        assert trace.logprobs == pytest.approx(expected, abs=TOLERANCE)

    with pytest.MonkeyPatch.context() as monkeypatch:
        asyncio.run(work(monkeypatch))


def test_new_weights_are_heard_as_soon_as_no_answer_is_open(untrained_folder: Path) -> None:
    family = load(untrained_folder, dtype="float32")

    async def work() -> None:
        with NativeEngine(family) as engine:
            before = await answer(engine, noise_question(3), sampling=Sampling(max_tokens=3))
            while engine.open_rows:
                await asyncio.sleep(0.001)
            with torch.no_grad():
                family.audio_tower.get_parameter("conv1.weight").mul_(3.0)
            after = await answer(engine, noise_question(3), sampling=Sampling(max_tokens=3))
        assert after.logprobs != before.logprobs
        expected = plain_logprobs(family, after, noise_question(3).clip())
        assert after.logprobs == pytest.approx(expected, abs=TOLERANCE)

    asyncio.run(work())
