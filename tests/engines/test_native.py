"""The native engine is exact: its log-probs are those of a plain forward over what the trace says it saw."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.sounds import noise_clip

from relisten.audio import Clip
from relisten.engines.drive import answer
from relisten.engines.native import NativeEngine
from relisten.engines.sampling import draw
from relisten.errors import EngineError
from relisten.models import Family, load, tower
from relisten.models.tower import ChunkCache
from relisten.protocol import Finish, Format, Segment
from relisten.question import Question
from relisten.trace import GeneratedSpan, ListenSpan, Sampling, Span, Trace

TOLERANCE = 1e-4  # float32, sums in another order
ROWS = 15


def question(index: int) -> Question:
    seconds = 2.0 + index % 5
    return Question(f"How many {index}?", ("one", "two")[: index % 3], noise_clip(seconds, index))


async def drive(engine: NativeEngine, index: int, sampling: Sampling) -> tuple[Trace, Clip]:
    """An answer that listens `index % 5` times, at points of its own, whatever the model writes."""
    asked = question(index)
    clip = asked.clip()
    stream = engine.open(asked, clip, Format.INTERLEAVED, sampling)
    spans: list[Span] = [stream.prompt]
    for listen in range(index % 5 + 1):
        left = 3 + (index + listen) % 6

        def feed(piece: str, end_of_turn: bool) -> bool:
            nonlocal left
            left -= 1
            return left == 0

        spans.append(await stream.decode(feed))
        if listen < index % 5:
            heard = stream.listen(Segment(0.2 * listen, 0.2 * listen + 0.3 + 0.25 * (index % 4)))
            assert heard is not None
            spans.append(heard)
    stream.close()
    trace = Trace(asked.text, asked.choices, tuple(spans), Finish.LENGTH, Format.INTERLEAVED, sampling=sampling)
    return trace, clip


@torch.no_grad()
def plain_logprobs(family: Family, trace: Trace, clip: Clip) -> torch.Tensor:
    """Log-probs of the sampled tokens by transformers' own forward over the whole sequence at once."""
    ids = torch.tensor(trace.token_ids)
    embeddings = family.embed(ids).clone()
    sounds = [clip, *(clip.crop(s.start, s.end) for s in trace.segments)]
    embeddings[ids == family.audio_id] = torch.cat(family.encode_audio(sounds))
    positions = torch.arange(len(ids)).expand(3, 1, -1)
    hidden = family.language_model(
        inputs_embeds=embeddings[None], position_ids=positions, use_cache=False
    ).last_hidden_state
    sampled = torch.tensor(trace.loss_mask).nonzero()[:, 0]
    logprobs = family.lm_head(hidden)[0].log_softmax(-1)
    return logprobs[sampled - 1, ids[sampled]]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logprobs_equal_a_plain_forward_and_company_changes_nothing(untrained: Family, temperature: float) -> None:
    async def work() -> None:
        samplings = [Sampling(temperature=temperature, top_p=0.95, seed=i) for i in range(ROWS)]
        with NativeEngine(untrained, max_rows=6) as engine:  # fewer places than answers: rows join and leave
            together = await asyncio.gather(*(drive(engine, i, samplings[i]) for i in range(ROWS)))
        with NativeEngine(untrained) as engine:
            alone = [await drive(engine, i, samplings[i]) for i in range(ROWS)]
        for (trace, clip), (single, _) in zip(together, alone, strict=True):
            assert trace.token_ids == single.token_ids
            expected = plain_logprobs(untrained, trace, clip)
            assert torch.tensor(trace.logprobs) == pytest.approx(expected, abs=TOLERANCE)
            assert torch.tensor(single.logprobs) == pytest.approx(expected, abs=TOLERANCE)

    asyncio.run(work())


def test_greedy_takes_the_likeliest_token_that_is_allowed(untrained: Family) -> None:
    async def work() -> None:
        with NativeEngine(untrained) as engine, torch.no_grad():
            trace, clip = await drive(engine, 4, Sampling())
            ids = torch.tensor(trace.token_ids)
            embeddings = untrained.embed(ids).clone()
            sounds = [clip, *(clip.crop(s.start, s.end) for s in trace.segments)]
            embeddings[ids == untrained.audio_id] = torch.cat(untrained.encode_audio(sounds))
            hidden = untrained.language_model(
                inputs_embeds=embeddings[None],
                position_ids=torch.arange(len(ids)).expand(3, 1, -1),
                use_cache=False,
            ).last_hidden_state
            logits = untrained.lm_head(hidden)[0]
            logits[:, list(untrained.banned_ids)] = -torch.inf
            sampled = torch.tensor(trace.loss_mask).nonzero()[:, 0]
            assert torch.equal(logits[sampled - 1].argmax(-1), ids[sampled])

    asyncio.run(work())


def test_what_comes_before_a_listen_is_not_computed_again(
    untrained: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    layer = untrained.language_model.layers[0].mlp
    monkeypatch.setattr(layer, "forward", lambda x, old=layer.forward: (lengths.append(len(x)), old(x))[1])

    async def work() -> None:
        with NativeEngine(untrained) as engine:
            trace, _ = await drive(engine, 2, Sampling())
        prompt, first, heard, second, again, third = trace.spans
        assert isinstance(first, GeneratedSpan)
        assert isinstance(heard, ListenSpan)
        expected = [len(prompt.ids), *[1] * (len(first.ids) - 1)]
        expected += [1 + len(heard.ids), *[1] * (len(second.ids) - 1)]
        expected += [1 + len(again.ids), *[1] * (len(third.ids) - 1)]
        assert lengths == expected

    asyncio.run(work())


async def begin_together(engine: NativeEngine, asked: list[Question], samplings: list[Sampling]) -> list[Trace]:
    with engine.together():
        tasks = [
            asyncio.ensure_future(answer(engine, one, sampling=sampling))
            for one, sampling in zip(asked, samplings, strict=True)
        ]
        await asyncio.sleep(0)
    return await asyncio.gather(*tasks)


def test_answers_to_one_question_share_its_prompt_and_its_clip(
    untrained: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    encoded: list[int] = []
    layer, encode = untrained.language_model.layers[0].mlp, untrained.encode_audio
    monkeypatch.setattr(layer, "forward", lambda x, old=layer.forward: (lengths.append(len(x)), old(x))[1])
    monkeypatch.setattr(
        untrained, "encode_audio", lambda clips, cache=None: (encoded.append(len(clips)), encode(clips, cache))[1]
    )

    async def work() -> None:
        first, second = question(0), question(1)
        asked = [first, second, first, second, first]
        samplings = [Sampling(temperature=1.0, seed=i, max_tokens=6) for i in range(5)]
        with NativeEngine(untrained, lockstep=True) as engine:
            traces = await begin_together(engine, asked, samplings)
        assert lengths == [len(traces[0].spans[0].ids) + len(traces[1].spans[0].ids), 5, 5, 5, 5, 5]
        assert encoded == [1, 1]
        assert len({trace.token_ids for trace in traces}) == 5
        for one, trace in zip(asked, traces, strict=True):
            expected = plain_logprobs(untrained, trace, one.clip())
            assert torch.tensor(trace.logprobs) == pytest.approx(expected, abs=TOLERANCE)

    asyncio.run(work())


def test_in_lockstep_answers_are_the_same_to_the_bit(untrained: Family) -> None:
    async def listening(engine: NativeEngine, index: int, slow: float) -> Trace:
        trace, _ = await drive(engine, index, Sampling(temperature=1.0, seed=index))
        await asyncio.sleep(slow)
        return trace

    async def work() -> None:
        runs = []
        for slow in (0.0, 0.02):
            with NativeEngine(untrained, max_rows=3, lockstep=True) as engine:
                with engine.together():
                    tasks = [asyncio.ensure_future(listening(engine, i, slow)) for i in range(7)]
                    await asyncio.sleep(slow)
                runs.append(await asyncio.gather(*tasks))
        for first, second in zip(*runs, strict=True):
            assert first.token_ids == second.token_ids
            assert first.logprobs == second.logprobs

    asyncio.run(work())


def test_one_failing_clip_fails_its_answer_alone(untrained: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    real = untrained.encode_audio

    def encode(clips: list[Clip], cache: ChunkCache | None = None) -> list[torch.Tensor]:
        if any(clip.name == "noise-1" for clip in clips):
            raise MemoryError("out of memory")
        return real(clips, cache)

    monkeypatch.setattr(untrained, "encode_audio", encode)

    async def work() -> None:
        with NativeEngine(untrained) as engine:
            first = asyncio.ensure_future(drive(engine, 0, Sampling()))
            await asyncio.sleep(0.05)
            with pytest.raises(EngineError, match="out of memory"):
                await drive(engine, 1, Sampling())
            await first
            trace = await answer(engine, question(1), sampling=Sampling(max_tokens=4))
            assert trace.finish is Finish.FAILED
            assert (await answer(engine, question(2), sampling=Sampling(max_tokens=4))).finish is Finish.LENGTH

    asyncio.run(work())


def test_special_tokens_are_never_sampled(untrained: Family) -> None:
    async def work() -> None:
        with NativeEngine(untrained) as engine:
            traces = await asyncio.gather(
                *(
                    answer(engine, question(i), sampling=Sampling(temperature=5.0, seed=i, max_tokens=150))
                    for i in range(8)
                )
            )
        sampled = {t for trace in traces for span in trace.generated for t in span.ids}
        assert len(sampled) > 100
        assert not sampled & set(untrained.banned_ids)

    asyncio.run(work())


def uniforms(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_draw_by_hand() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().repeat(6, 1)
    banned = torch.tensor([False, False, False, False])
    ones = torch.ones(6)
    drawn = draw(logits, banned, ones, ones, uniforms(0, 0.49, 0.51, 0.79, 0.81, 0.99))
    assert drawn.tokens == [0, 0, 1, 1, 2, 3]
    assert drawn.logprobs == pytest.approx(np.log([0.5, 0.5, 0.3, 0.3, 0.15, 0.05]), abs=1e-6)
    # The smallest set with mass 0.7 is {0, 1}, renormalised to 0.625 and 0.375.
    drawn = draw(logits, banned, ones, ones * 0.7, uniforms(0, 0.6, 0.62, 0.63, 0.9, 0.999))
    assert drawn.tokens == [0, 0, 0, 1, 1, 1]
    # A temperature of 0.5 squares the odds: 25 : 9 : 2.25 : 0.25.
    edges = np.cumsum([25, 9, 2.25, 0.25]) / 36.5
    drawn = draw(logits[:4], banned, ones[:4] / 2, ones[:4], uniforms(*(edges - 1e-4)))
    assert drawn.tokens == [0, 1, 2, 3]
    # A banned token is not drawn, yet the log-probs stay those of the whole distribution.
    drawn = draw(
        logits[:2], torch.tensor([True, False, False, False]), uniforms(0, 1).float(), ones[:2], uniforms(0, 0)
    )
    assert drawn.tokens == [1, 1]
    assert drawn.logprobs == pytest.approx([np.log(0.3)] * 2, abs=1e-6)


def test_draws_follow_the_distribution() -> None:
    probs = torch.tensor([0.6, 0.3, 0.1])
    values = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    drawn = draw(
        probs.log().repeat(1000, 1), torch.zeros(3, dtype=torch.bool), torch.ones(1000), torch.ones(1000), values
    )
    counts = np.bincount(drawn.tokens)
    assert counts.tolist() == [600, 300, 100]
    assert all(a <= b for a, b in pairwise(drawn.tokens))


def test_closing_before_the_first_step_moves_nothing(untrained: Family) -> None:
    async def work() -> None:
        with NativeEngine(untrained) as engine:
            with engine.together():
                streams = [engine.open(one, one.clip(), Format.TEXT, Sampling()) for one in map(question, range(3))]
                tasks = [asyncio.ensure_future(stream.decode(lambda piece, end: True)) for stream in streams]
                await asyncio.sleep(0.05)
                streams[0].close()
                await asyncio.sleep(0.05)
            assert [len(span.ids) for span in await asyncio.gather(*tasks[1:])] == [1, 1]
            assert tasks[0].cancelled()

    asyncio.run(work())


def test_cancelling_at_random_moments_leaks_no_slot(untrained: Family) -> None:
    async def one(engine: NativeEngine, index: int, random: np.random.Generator) -> str:
        task = asyncio.ensure_future(answer(engine, question(index), sampling=Sampling(max_tokens=12)))
        await asyncio.sleep(random.uniform(0, 0.4))
        if index % 2:
            task.cancel()
        try:
            return str((await task).finish)
        except asyncio.CancelledError:
            return "cancelled"

    async def work() -> None:
        random = np.random.default_rng(0)
        with NativeEngine(untrained, max_rows=5) as engine:
            ends = await asyncio.gather(*(one(engine, index, random) for index in range(40)))
            assert set(ends) <= {"cancelled", *map(str, Finish)}
            assert ends.count("length") >= 20
            after = await asyncio.gather(
                *(answer(engine, question(i), sampling=Sampling(max_tokens=3)) for i in range(5))
            )
            assert all(trace.finish is Finish.LENGTH for trace in after)
            for _ in range(500):
                if engine.open_rows == 0:
                    break
                await asyncio.sleep(0.01)
            assert engine.open_rows == 0

    asyncio.run(work())


def test_a_look_is_what_a_plain_forward_has_behind_each_layer(
    untrained: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        with NativeEngine(untrained) as engine:
            asked = [question(index) for index in (3, 4, 3)]
            streams = [engine.open(one, one.clip(), Format.INTERLEAVED, Sampling()) for one in asked]
            plain = asyncio.ensure_future(answer(engine, question(1), sampling=Sampling(max_tokens=5)))
            looks = await asyncio.gather(*(stream.look() for stream in streams))
            assert (await plain).finish is Finish.LENGTH
            for stream, look, one in zip(streams, looks, asked, strict=True):
                ids = torch.tensor(stream.prompt.ids)
                embeddings = untrained.embed(ids).clone()
                heard = ids == untrained.audio_id
                embeddings[heard] = untrained.encode_audio([one.clip()])[0]
                layers: list[torch.Tensor] = []
                with monkeypatch.context() as patched:
                    for layer in untrained.language_model.layers:
                        forward = layer.forward

                        def kept(*args: Any, forward: Any = forward, to: list[Any] = layers, **options: Any) -> Any:
                            to.append(out := forward(*args, **options))
                            return out

                        patched.setattr(layer, "forward", kept)
                    untrained.language_model(
                        inputs_embeds=embeddings[None],
                        position_ids=torch.arange(len(ids)).expand(3, 1, -1),
                        use_cache=False,
                    )
                hidden = torch.stack([(out[0] if isinstance(out, tuple) else out)[0] for out in layers])
                assert look.last == pytest.approx(hidden[:, -1].numpy(), abs=TOLERANCE)
                assert look.sound == pytest.approx(hidden[:, heard].mean(1).numpy(), abs=TOLERANCE)

    with torch.no_grad():
        asyncio.run(work())


def test_after_a_look_only_what_is_new_is_computed(untrained: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    layer = untrained.language_model.layers[0].mlp
    monkeypatch.setattr(layer, "forward", lambda x, old=layer.forward: (lengths.append(len(x)), old(x))[1])
    asked = question(2)
    finding = replace(asked, findings=("[length] 4 s",))

    async def work() -> None:
        with NativeEngine(untrained) as engine:
            stream = engine.open(asked, asked.clip(), Format.INTERLEAVED, Sampling(temperature=1.0, seed=5))
            plain = stream.prompt
            await stream.look()
            assert lengths == [len(plain.ids)]
            assert stream.ask_again(finding)
            span = await stream.decode(lambda piece, end: len(lengths) >= 4)
            head = stream.prompt.findings[0][0]  # everything up to the first finding is in the cache already
            assert plain.ids[:head] == stream.prompt.ids[:head]
            assert lengths[1:] == [len(stream.prompt.ids) - head, 1, 1]
            alone = engine.open(finding, finding.clip(), Format.INTERLEAVED, Sampling(temperature=1.0, seed=5))
            lengths.clear()
            expected = await alone.decode(lambda piece, end: len(lengths) >= 3)
            assert span.ids == expected.ids  # the look has not used up any chance

    asyncio.run(work())


@pytest.mark.parametrize("lockstep", [True, False])
def test_sound_encoded_beside_decoding_is_the_same(untrained: Family, lockstep: bool) -> None:
    async def work() -> None:
        runs = []
        for beside in (True, False):
            with NativeEngine(untrained, max_rows=3, lockstep=lockstep, encode_beside=beside) as engine:
                with engine.together():
                    tasks = [asyncio.ensure_future(drive(engine, i, Sampling(1.0, seed=i))) for i in range(6)]
                    await asyncio.sleep(0)
                runs.append([trace for trace, _ in await asyncio.gather(*tasks)])
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
        assert torch.tensor(trace.logprobs) == pytest.approx(expected, abs=TOLERANCE)

    with pytest.MonkeyPatch.context() as monkeypatch:
        asyncio.run(work(monkeypatch))


def test_new_weights_are_heard_as_soon_as_no_answer_is_open(untrained_folder: Path) -> None:
    family = load(untrained_folder, dtype="float32")

    async def work() -> None:
        with NativeEngine(family) as engine:
            before = await answer(engine, question(3), sampling=Sampling(max_tokens=3))
            while engine.open_rows:
                await asyncio.sleep(0.001)
            with torch.no_grad():
                family.audio_tower.get_parameter("conv1.weight").mul_(3.0)
            after = await answer(engine, question(3), sampling=Sampling(max_tokens=3))
        assert after.logprobs != before.logprobs
        expected = plain_logprobs(family, after, question(3).clip())
        assert torch.tensor(after.logprobs) == pytest.approx(expected, abs=TOLERANCE)

    asyncio.run(work())


def test_a_look_keeps_lockstep(untrained: Family) -> None:
    async def looked(engine: NativeEngine, index: int) -> GeneratedSpan:
        asked = question(index)
        stream = engine.open(asked, asked.clip(), Format.INTERLEAVED, Sampling(temperature=1.0, seed=index))
        if index % 2:
            await stream.look()
            await asyncio.sleep(0.02)  # the others wait for what it decides
        left = 6

        def feed(piece: str, end_of_turn: bool) -> bool:
            nonlocal left
            left -= 1
            return left == 0

        span = await stream.decode(feed)
        stream.close()
        return span

    async def work(lockstep: bool) -> list[GeneratedSpan]:
        with NativeEngine(untrained, lockstep=lockstep) as engine:
            with engine.together():
                tasks = [asyncio.ensure_future(looked(engine, index)) for index in range(4)]
                await asyncio.sleep(0)
            return await asyncio.gather(*tasks)

    first, second, free = (asyncio.run(asyncio.wait_for(work(lockstep), 120)) for lockstep in (True, True, False))
    assert first == second  # to the bit
    assert [span.ids for span in first] == [span.ids for span in free]
