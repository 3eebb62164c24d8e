"""Sequences are what inference produces, and a set is made ready without losing or cutting anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.sounds import noise_clip

from relisten.audio import write_clip
from relisten.data.examples import Example
from relisten.errors import InputError
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.protocol import Format
from relisten.question import Question
from relisten.train.sft.sequences import Layout, ReadySet, make_ready

RESPONSE = "<think>I count in <seg>0.5, 1.5</seg> that makes 2.</think><answer>2</answer>"


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    found = []
    for number, seconds in enumerate((2.0, 3.0, 2.5)):
        path = tmp_path / f"{number}.wav"
        write_clip(path, noise_clip(seconds, number))
        found.append(Example(Question("How many?", ("1", "2"), path, f"q{number}", "2"), RESPONSE, "count"))
    return found


def test_a_sequence_is_prompt_sound_response_and_end_of_turn(family: Qwen2_5Omni, examples: list[Example]) -> None:
    clip = examples[0].question.clip()
    laid = Layout(family, Format.INTERLEAVED).sequence(examples[0], clip)
    prompt = family.prompt(examples[0].question, clip, Format.INTERLEAVED).ids(family)
    assert list(laid.ids[: len(prompt)]) == prompt
    assert not any(laid.weights[: len(prompt)])
    assert (laid.ids[-1], laid.weights[-1]) == (family.end_of_turn_id, 1.0)
    placeholders = sum(i == family.audio_id for i in laid.ids)
    assert placeholders == sum(family.num_audio_tokens(clip.num_samples) for clip in laid.clips)
    assert [clip.duration for clip in laid.clips] == [2.0, 1.0]


def test_nothing_is_inserted_where_segments_are_only_cited(family: Qwen2_5Omni, examples: list[Example]) -> None:
    laid = Layout(family, Format.GROUNDED).sequence(examples[0], examples[0].question.clip())
    assert len(laid.clips) == 1


def test_a_set_is_made_ready_and_read_at_random(
    family: Qwen2_5Omni, examples: list[Example], tmp_path: Path
) -> None:
    layout = Layout(family, Format.INTERLEAVED)
    expected = [layout.sequence(example, example.question.clip()) for example in examples]
    longest = max(len(laid.ids) for laid in expected)
    gone = Example(Question("?", audio=tmp_path / "gone.wav", id="gone"), RESPONSE, "")
    silent = Example(examples[0].question, "", "")
    rows = [examples[0], InputError("row 2 is bad"), gone, silent, examples[1], examples[2]]
    told: list[InputError] = []
    path = tmp_path / "run" / "train.jsonl"
    counts = make_ready(rows, path, layout, longest - 1, on_bad=told.append)
    assert (counts.kept, counts.bad, counts.too_long) == (2, 3, 1)
    assert str(told[0]) == "row 2 is bad"
    ready = ReadySet(path)
    assert ready.lengths.tolist() == [len(expected[0].ids), len(expected[2].ids)]
    assert ready.weights.tolist() == [sum(expected[0].weights), sum(expected[2].weights)]
    again = ready.example(1)
    assert layout.sequence(again, again.question.clip()).ids == expected[2].ids
