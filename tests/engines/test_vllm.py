"""vLLM gives what the native engine gives: prompts, tokens, log-probs; and nothing old after new weights."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.answers import listening, pause_after, plain_logprobs
from support.processes import children_after_a_kill
from support.sounds import noise_clip
from support.vllm import (
    TOLERANCE,
    SharedVllm,
    answers,
    assert_nothing_twice,
    assert_same,
    needs_vllm,
    scenes,
    watched,
)

from relisten.audio import Clip, seconds_to_samples
from relisten.engines.base import Engine
from relisten.engines.drive import answer
from relisten.engines.native import NativeEngine
from relisten.errors import EngineError, InputError
from relisten.models import Family, load
from relisten.protocol import Finish, Format, Segment
from relisten.question import Question
from relisten.trace import ListenSpan, Sampling, Trace

pytestmark = needs_vllm
ANSWERS = 300
KILLED = """
import multiprocessing, time
import relisten.engines.vllm

if __name__ == "__main__":
    engine = relisten.engines.vllm.load("echo-tiny", max_context=1024)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def tiny() -> Family:
    return load("echo-tiny", dtype="float32")


def questions(count: int) -> list[Question]:
    asked = ("How many sounds are there?", "Which sound comes first?", "How long is the clip?")
    return [
        Question(asked[i % 3], ("2", "3", "kick") if i % 2 else (), noise_clip(2.0 + i % 4, i))
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("format", "crop_speed"),
    [(Format.INTERLEAVED, 1.0), (Format.INTERLEAVED, 0.5), (Format.GROUNDED, 1.0), (Format.TEXT, 1.0)],
)
def test_answers_are_those_of_the_native_engine(
    tiny_vllm: SharedVllm, tiny: Family, format: Format, crop_speed: float
) -> None:
    asked = scenes(8)
    with NativeEngine(tiny) as native:
        expected = asyncio.run(answers(native, asked, format, crop_speed=crop_speed))
    found = asyncio.run(answers(tiny_vllm.engine(), asked, format, crop_speed=crop_speed))
    assert_same(found, expected)
    listens = [listen for trace in found for listen in trace.listens]
    assert bool(listens) is (format is Format.INTERLEAVED)
    for listen in listens:
        played = seconds_to_samples(listen.segment.duration / crop_speed)
        assert listen.num_audio_tokens == pytest.approx(tiny.num_audio_tokens(played), abs=1)


def test_pauses_nobody_foresaw_and_several_listens(tiny_vllm: SharedVllm, tiny: Family) -> None:
    async def work(engine: Engine) -> list[Trace]:
        works = (listening(engine, one, Sampling(), i, listens=i % 4) for i, one in enumerate(questions(16)))
        return list(await asyncio.gather(*works))

    with NativeEngine(tiny) as native:
        expected = asyncio.run(work(native))
    assert_same(asyncio.run(work(tiny_vllm.engine())), expected)


def test_a_seed_repeats_an_answer_and_its_logprobs_are_the_models_own(tiny_vllm: SharedVllm, tiny: Family) -> None:
    engine, asked = tiny_vllm.engine(), questions(8)
    once, twice, other = (
        asyncio.run(answers(engine, asked, temperature=1.0, top_p=0.95, seed=seed, max_tokens=40))
        for seed in (1, 1, 2)
    )
    assert [trace.token_ids for trace in once] == [trace.token_ids for trace in twice]
    assert [trace.token_ids for trace in once] != [trace.token_ids for trace in other]
    for trace, question in zip(once, asked, strict=True):
        assert trace.logprobs == pytest.approx(plain_logprobs(tiny, trace, question.clip()), abs=TOLERANCE)
        assert not set(tiny.banned_ids) & {id_ for span in trace.generated for id_ in span.ids}


def test_hundreds_in_flight_and_cancelled_ones_free_their_place(tiny_vllm: SharedVllm) -> None:
    engine, asked = tiny_vllm.engine(), questions(8)
    assert engine.max_rows == 256
    random = np.random.default_rng(0)
    cancelled = set(random.permutation(ANSWERS)[: ANSWERS // 2].tolist())

    async def one(index: int) -> str:
        task = asyncio.ensure_future(answer(engine, asked[index % 8], sampling=Sampling(max_tokens=24)))
        if index in cancelled:
            await asyncio.sleep(random.uniform(0, 2))
            task.cancel()
        try:
            return str((await task).finish)
        except asyncio.CancelledError:
            return "cancelled"

    async def work() -> list[str]:
        ends = await asyncio.gather(*map(one, range(ANSWERS)))
        for _ in range(500):
            if engine.open_rows == 0:
                break
            await asyncio.sleep(0.01)
        return ends

    ends = asyncio.run(work())
    assert engine.open_rows == 0
    assert set(ends) <= {"cancelled", "length", "answer", "no_answer"}
    assert sum(end != "cancelled" for end in ends) >= ANSWERS // 2
    after = asyncio.run(answers(engine, asked, max_tokens=3))
    assert all(trace.finish is Finish.LENGTH for trace in after)


def test_answers_that_paused_in_a_full_cache_all_go_on() -> None:
    """vLLM alone would wait for ever: those that have paused hold all blocks, and each needs more."""
    from relisten.engines.vllm import load as load_vllm

    async def one(engine: Engine, asked: Question, full: asyncio.Event) -> None:
        stream = engine.open(asked, asked.clip(), Format.INTERLEAVED, Sampling())
        text = ""

        def cited(piece: str, end: bool) -> bool:
            nonlocal text
            text += piece
            return "</seg>" in text

        await stream.decode(cited)
        await full.wait()
        assert stream.listen(Segment(0.0, 4.0)) is not None
        await stream.decode(lambda piece, end: True)
        stream.close()

    async def work(engine: Engine) -> None:
        full = asyncio.Event()
        asked = [Question("How many sounds are there?", (), noise_clip(4.0, index)) for index in range(16)]
        works = [asyncio.ensure_future(one(engine, question, full)) for question in asked]
        await asyncio.sleep(5)  # as many pause as there is room for
        full.set()
        await asyncio.wait_for(asyncio.gather(*works), 60)

    with load_vllm("echo-tiny", max_context=1024, num_gpu_blocks_override=40) as engine:
        asyncio.run(work(engine))


def test_earlier_sound_is_not_prepared_again(tiny_vllm: SharedVllm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither when an answer goes on, nor when another one asks about the same clip."""
    from relisten.engines.vllm import audio

    prepared: list[int] = []
    hear = audio.hear
    monkeypatch.setattr(
        audio, "hear", lambda mel, sounds: (prepared.extend(map(len, sounds)), hear(mel, sounds))[1]
    )
    clip = noise_clip(3.3, seed=991)
    asyncio.run(listening_to(tiny_vllm.engine(), clip, Segment(1.0, 2.0)))
    assert prepared == [clip.num_samples, 16_000]
    asyncio.run(listening_to(tiny_vllm.engine(), clip, Segment(1.0, 1.5)))
    assert prepared == [clip.num_samples, 16_000, 8_000]


def test_a_listen_computes_its_crop_alone(tiny_vllm: SharedVllm, tiny: Family) -> None:
    engine = tiny_vllm.engine()
    engine.update_weights(tiny.thinker.state_dict())  # nothing that other tests asked is known
    with watched(engine) as computed:
        (trace,) = asyncio.run(answers(engine, scenes(1)))
    assert trace.listens
    assert_nothing_twice(computed, trace, tiny)


def test_a_pause_nobody_foresaw_computes_less_than_a_block_again(tiny_vllm: SharedVllm) -> None:
    engine, clip = tiny_vllm.engine(), noise_clip(3.3, seed=992)

    async def work() -> int:
        stream = engine.open(Question("What?", (), clip), clip, Format.INTERLEAVED, Sampling())
        await stream.decode(pause_after(4))
        heard = stream.listen(Segment(1.0, 2.0))
        await stream.decode(pause_after(1))
        stream.close()
        assert heard is not None
        return len(heard.ids)

    with watched(engine) as computed:
        added = asyncio.run(work())
    again = max(computed.tokens[1:]) - added
    assert 0 < again <= engine.llm.vllm_config.cache_config.block_size
    assert len(computed.sounds) == 2


def test_a_sound_that_vllm_has_lost_is_sent_again(tiny_vllm: SharedVllm) -> None:
    engine = tiny_vllm.engine()
    asked = questions(3)
    before = asyncio.run(answers(engine, asked))
    engine._loop.run(engine.llm.engine_core.reset_mm_cache_async())  # its core forgets, those who send do not
    assert_same(asyncio.run(answers(engine, asked)), before)


def test_new_weights_leave_nothing_of_the_old(tiny_vllm: SharedVllm, tiny: Family) -> None:
    """Asked before, the same questions would find prefixes and sounds in vLLM's caches."""
    engine, asked = tiny_vllm.engine(), questions(6)
    old = asyncio.run(answers(engine, asked, max_tokens=40))
    kept = {name: tensor.clone() for name, tensor in tiny.thinker.state_dict().items()}
    for part in (tiny.audio_tower, tiny.language_model):
        changed = load("echo-tiny", dtype="float32")
        disturb(changed, part is tiny.audio_tower)
        assert engine.update_weights(changed.thinker.state_dict()) > 0
        with NativeEngine(changed) as native:
            expected = asyncio.run(answers(native, asked, max_tokens=40))
        new = asyncio.run(answers(engine, asked, max_tokens=40))
        assert_same(new, expected)
        assert [trace.logprobs for trace in new] != [trace.logprobs for trace in old]
    engine.update_weights(kept.items())
    assert_same(asyncio.run(answers(engine, asked, max_tokens=40)), old)


def test_new_weights_leave_no_features_of_before(
    tiny_vllm: SharedVllm, tiny: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They follow from no weight, so every sound is made silence for a while: those kept from before would tell."""
    from relisten.engines.vllm import audio

    engine, asked = tiny_vllm.engine(), questions(4)
    old = asyncio.run(answers(engine, asked, max_tokens=20))
    with monkeypatch.context() as patch:
        hear = audio.hear
        patch.setattr(audio, "hear", lambda mel, sounds: hear(mel, [np.zeros_like(sound) for sound in sounds]))
        engine.update_weights(tiny.thinker.state_dict())
        deaf = asyncio.run(answers(engine, asked, max_tokens=20))
    engine.update_weights(tiny.thinker.state_dict())
    for one, other in zip(deaf, old, strict=True):
        assert one.logprobs != pytest.approx(other.logprobs, abs=TOLERANCE)
    assert_same(asyncio.run(answers(engine, asked, max_tokens=20)), old)


def test_weights_change_only_between_answers(tiny_vllm: SharedVllm, tiny: Family) -> None:
    engine, (asked,) = tiny_vllm.engine(), questions(1)
    stream = engine.open(asked, asked.clip(), Format.INTERLEAVED, Sampling())
    with pytest.raises(EngineError, match="1 answers are open"):
        engine.update_weights(tiny.thinker.state_dict())
    stream.close()
    before = asyncio.run(answers(engine, [asked], max_tokens=20))
    with pytest.raises(EngineError, match="not taken"):
        engine.update_weights({"model.nothing.weight": torch.zeros(2)})
    q = {name: tensor for name, tensor in tiny.thinker.state_dict().items() if "layers.0.self_attn.q_proj" in name}
    with pytest.raises(EngineError, match="in part"):
        engine.update_weights(q)
    assert_same(asyncio.run(answers(engine, [asked], max_tokens=20)), before)
    assert engine.update_weights({"lm_head.weight": tiny.lm_head.weight}) == 1
    assert_same(asyncio.run(answers(engine, [asked], max_tokens=20)), before)


def test_tied_weights_are_handed_over() -> None:
    from relisten.engines.vllm.weights import written

    embedding = torch.arange(6.0).view(2, 3)
    tied = {"model.embed_tokens.weight": embedding, "lm_head.weight": embedding}
    [found] = [load_file(path) for path in written(tied)]
    assert found.keys() == tied.keys()
    assert all(torch.equal(tensor, embedding) for tensor in found.values())


def test_what_this_vllm_cannot_do_is_said_at_once() -> None:
    from relisten.engines.vllm import load as load_vllm

    with pytest.raises(InputError, match="runs on cpu"):
        load_vllm("echo-tiny", device="cuda:1")
    with pytest.raises(InputError, match="no_such_setting"):
        load_vllm("echo-tiny", no_such_setting=1)
    with pytest.raises(InputError, match="max_model_len 300: give it as max_context"):
        load_vllm("echo-tiny", max_model_len=300)
    with pytest.raises(InputError, match="additional_config on: it must be an object"):
        load_vllm("echo-tiny", additional_config="on")
    with pytest.raises(InputError, match="no folder"):
        load_vllm("no-such-model")


async def listening_to(engine: Engine, clip: Clip, segment: Segment) -> None:
    stream = engine.open(Question("What?", (), clip), clip, Format.INTERLEAVED, Sampling())
    await stream.decode(lambda piece, end: True)
    assert isinstance(stream.listen(segment), ListenSpan)
    await stream.decode(lambda piece, end: True)
    stream.close()


def disturb(family: Family, tower: bool) -> None:
    """Change either the audio tower or the language model."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (family.audio_tower if tower else family.language_model).parameters():
            parameter += 0.02 * parameter.std() * torch.randn(parameter.shape, generator=generator)


def test_its_processes_end_when_this_one_is_killed() -> None:
    before, after = children_after_a_kill(KILLED)
    assert before
    assert not after
