"""Filters: what they drop, what they keep, and that a lucky guess drops nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relisten.audio import Clip, write_clip
from relisten.data.examples import Example
from relisten.data.filters import (
    Sifted,
    drop_answered_without_sound,
    drop_duplicates,
    drop_shared,
    same_question_key,
)
from relisten.engines.scripted import ScriptedEngine
from relisten.errors import InputError
from relisten.listener import Listener
from relisten.question import Question

CHOICES = ("dog", "cat", "bell", "door")


def example(text: str = "Which sound is first?", *, answer: str | None = "dog", **metadata: Any) -> Example:
    known = {"hash": "aa", "source": "tape", "duration": 2.0} | metadata
    question = Question(text, CHOICES, Path("clips/a.wav"), id=text[:9], answer=answer, metadata=known)
    return Example(question, "<think>x</think><answer>dog</answer>", "llm")


def kept(rows: Iterator[Sifted]) -> list[str]:
    return [row.reason for row in rows]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("which  sound is FIRST", True),
        ("Which sound is last?", False),
        ("Which sound is first, then?", False),
    ],
)
def test_the_same_question(other: str, same: bool) -> None:
    rows = [Sifted(example()), Sifted(example(other)), Sifted(example(other, hash="bb"))]
    assert kept(drop_duplicates(rows)) == ["", "duplicate" if same else "", ""]


def test_choices_in_another_order_are_the_same_question_and_other_choices_are_not() -> None:
    one = example()
    turned = replace(one, question=replace(one.question, choices=CHOICES[::-1]))
    other = replace(one, question=replace(one.question, choices=("dog", "C# minor")))
    sharp = replace(one, question=replace(one.question, choices=("dog", "C minor")))
    assert same_question_key(one) == same_question_key(turned)
    assert len({same_question_key(item) for item in (one, other, sharp)}) == 3


def test_clips_and_sources_of_another_split_are_dropped() -> None:
    test_split = [example(hash="t1", source="s1"), example(hash="t2", source="")]
    rows = [
        example(hash="t1", source="x"),
        example(hash="n1", source="s1"),
        example(hash="t2", source=""),
        example(hash="n2", source="s2"),
        example(hash="n3", source=""),
    ]
    reasons = kept(drop_shared(test_split)(map(Sifted, rows)))
    assert reasons == ["shared clip t1", "shared source s1", "shared clip t2", "", ""]


def test_a_clip_without_a_hash_is_hashed(tmp_path: Path) -> None:
    sound = Clip(np.full(1600, 0.25, np.float32))
    for name in ("a.wav", "b.flac"):
        write_clip(tmp_path / name, sound)
    one, two = (
        replace(row, question=replace(row.question, audio=tmp_path / name))
        for row, name in ((example(hash="", source="a"), "a.wav"), (example(hash="", source="b"), "b.flac"))
    )
    gone = replace(two, question=replace(two.question, audio=tmp_path / "gone.wav"))
    shared, unreadable = kept(drop_shared([one])([Sifted(two), Sifted(gone)]))
    assert shared == f"shared clip {two.question.clip().hash}"
    assert unreadable.startswith(f"unreadable ({tmp_path / 'gone.wav'}: no such file")


def listener(script: Any) -> Listener:
    return Listener(ScriptedEngine(script))


def says(answer: str) -> str:
    return f"<think>quiet</think><answer>{answer}</answer>"


def test_what_is_answered_without_sound_goes_and_luck_does_not_count() -> None:
    heard: list[Question] = []

    def script(question: Question) -> str:
        heard.append(question)
        if question.text.startswith("known"):
            return says("Dog")
        if question.text.startswith("first"):
            return says(question.choices[0])
        if question.text.startswith("broken"):
            raise ValueError("out of memory")
        return says("cat")

    rows = [
        example("known from text", duration=0.5),
        example("first choice is taken", duration=1.5),
        example("wrong", duration=1.0),
        example("broken"),
        example("known but no reference", answer=None),
        example("known and dropped before"),
    ]
    sifted = [Sifted(row) for row in rows]
    sifted[5] = replace(sifted[5], reason="duplicate")
    with listener(script) as model:
        results = list(drop_answered_without_sound(model, tries=4, temperature=0.7, seed=1)(sifted))
    assert [row.example for row in results] == rows
    assert [row.reason for row in results] == ["answered without sound (4 of 4)", "", "", "", "", "duplicate"]
    first = [question for question in heard if question.text.startswith("first")]
    assert {question.choices[0] for question in first} == set(CHOICES)
    assert all(not question.clip().samples.any() for question in heard)
    assert {question.clip().duration for question in heard} == {0.5, 1.0, 1.5, 2.0}


def test_a_sound_that_is_slow_to_measure_is_judged_all_the_same(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.wav", Clip(np.zeros(160_000, np.float32)))
    row = example(duration=None)
    row = replace(row, question=replace(row.question, audio=tmp_path / "a.wav"))
    with listener(lambda question: says("dog")) as model:
        reasons = kept(drop_answered_without_sound(model, tries=2)([Sifted(row)] * 30))
    assert reasons == ["answered without sound (2 of 2)"] * 30


def test_a_lower_bar(tmp_path: Path) -> None:
    with listener(lambda question: says(question.choices[0])) as model:
        sift = drop_answered_without_sound(model, tries=4, at_least=0.25)
        assert kept(sift([Sifted(example())])) == ["answered without sound (1 of 4)"]


def test_many_rows_stay_in_order_and_do_not_pile_up() -> None:
    alive = 0
    most = 0

    def rows() -> Iterator[Sifted]:
        nonlocal alive, most
        for number in range(600):
            alive += 1
            most = max(most, alive)
            yield Sifted(example(f"{number} {'known' if number % 3 == 0 else 'open'}"))

    with listener(lambda question: says("dog" if "known" in question.text else "cat")) as model:
        for number, row in enumerate(drop_answered_without_sound(model, tries=2)(rows())):
            alive -= 1
            assert row.example.question.text.startswith(f"{number} ")
            assert bool(row.reason) == (number % 3 == 0)
    assert alive == 0
    assert most < 400


@pytest.mark.parametrize(("tries", "share"), [(0, 1.0), (4, 0.0), (4, 1.5)])
def test_numbers_out_of_range(tries: int, share: float) -> None:
    with listener(lambda question: says("dog")) as model, pytest.raises(InputError, match="tries"):
        drop_answered_without_sound(model, tries=tries, at_least=share)


def test_a_tag_keeps_the_rest() -> None:
    row = Sifted(example(), "duplicate").tagged()
    assert row.question.metadata == {"hash": "aa", "source": "tape", "duration": 2.0, "filtered": "duplicate"}
    assert Sifted(example()).tagged() == example()
