"""The native engine shows what a prompt looks like from inside, and goes on from there."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.answers import TOLERANCE, pause_after
from support.sounds import noise_question

from relisten.engines.drive import answer
from relisten.engines.native import NativeEngine
from relisten.models import Family
from relisten.protocol import Finish, Format
from relisten.trace import GeneratedSpan, Sampling


def test_a_look_is_what_a_plain_forward_has_behind_each_layer(
    untrained: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        with NativeEngine(untrained) as engine:
            asked = [noise_question(index) for index in (3, 4, 3)]
            streams = [engine.open(one, one.clip(), Format.INTERLEAVED, Sampling()) for one in asked]
            plain = asyncio.ensure_future(answer(engine, noise_question(1), sampling=Sampling(max_tokens=5)))
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
    asked = noise_question(2)
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


def test_a_look_keeps_lockstep(untrained: Family) -> None:
    async def looked(engine: NativeEngine, index: int) -> GeneratedSpan:
        asked = noise_question(index)
        stream = engine.open(asked, asked.clip(), Format.INTERLEAVED, Sampling(temperature=1.0, seed=index))
        if index % 2:
            await stream.look()
            await asyncio.sleep(0.02)  # the others wait for what it decides
        span = await stream.decode(pause_after(6))
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
