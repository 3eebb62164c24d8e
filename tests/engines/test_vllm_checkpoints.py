"""Checkpoints that are not as echo-tiny is shipped, on vLLM and on the native engine: tags in several tokens,
bfloat16."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest
from support.sounds import noise_clip
from support.untagged import untag
from support.vllm import SharedVllm, answers, assert_nothing_twice, assert_same, needs_vllm, scenes, watched

from relisten.audio import write_clip
from relisten.data.examples import Example, write_examples
from relisten.engines.native import NativeEngine
from relisten.models import load
from relisten.models.tiny import TinyShape, build
from relisten.protocol import Format
from relisten.question import Question
from relisten.train.sft.config import FinetuneConfig
from relisten.train.sft.trainer import finetune

pytestmark = needs_vllm
BFLOAT16 = 0.1
"""Of log-probs in bfloat16, whose numbers have less than three digits; 0.05 was seen."""


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    folder = tmp_path_factory.mktemp("examples")
    made = []
    for n in range(4):
        write_clip(path := folder / f"{n}.wav", noise_clip(2.0 + n, n))
        response = (
            f"<think>I hear <seg>0.{n + 1}, 1.5</seg> and <seg>1.0, 1.{5 + n}</seg></think><answer>1</answer>"
        )
        made.append(Example(Question("How many?", ("1", "2"), path, f"q{n}", "1"), response, "count"))
    return made


@pytest.fixture(scope="module")
def untagged(examples: list[Example], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of small towers, trained until it knows the examples by heart."""
    folder = tmp_path_factory.mktemp("untagged")
    shape = TinyShape(audio_width=32, audio_layers=2, width=64, layers=2, feed_forward=64, vocabulary=420)
    model = untag(build(folder / "model", seed=1, shape=shape))
    write_examples(folder / "train.jsonl", examples)
    config = FinetuneConfig(
        model=str(model), data=str(folder / "train.jsonl"), format=Format.INTERLEAVED, batch_size=4, max_length=600,
        lr=1e-2, epochs=60, gradient_checkpointing=False, device="cpu", tensorboard=False,
    )  # fmt: skip
    return finetune(config, folder / "run").checkpoint


def test_a_checkpoint_that_writes_tags_in_several_tokens_listens_alike(
    untagged: Path, examples: list[Example]
) -> None:
    family = load(untagged, dtype="float32")
    assert len(family.encode_response("</seg>")) > 1
    asked = [example.question for example in examples]
    with NativeEngine(family) as native:
        expected = asyncio.run(answers(native, asked))
    with closing(SharedVllm(untagged, max_context=1024)) as shared:
        engine = shared.engine()
        found = asyncio.run(answers(engine, asked))
        engine.update_weights(family.thinker.state_dict())
        with watched(engine) as computed:
            (again,) = asyncio.run(answers(engine, asked[:1]))
    assert [trace.text for trace in found] == [example.response for example in examples]
    assert_same(found, expected)
    assert_same([again], expected[:1])
    assert_nothing_twice(computed, again, family)


def test_bfloat16_answers_are_those_of_the_native_engine_in_bfloat16() -> None:
    with NativeEngine(load("echo-tiny", dtype="bfloat16")) as native:
        expected = asyncio.run(answers(native, scenes(8)))
    with closing(SharedVllm("echo-tiny", max_context=1024, dtype="bfloat16")) as shared:
        found = asyncio.run(answers(shared.engine(), scenes(8)))
    assert_same(found, expected, BFLOAT16, most_ties=2)
