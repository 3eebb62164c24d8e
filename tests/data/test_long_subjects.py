"""Of a long clip only that is asked which an answer can listen to: it has eight listens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.imagined_labels import SET, imagined

from relisten.data.compose import KINDS, ComposeOptions, subject_of
from relisten.data.structure import response_flaws
from relisten.data.subject import Style, Subject

SECONDS = 90.0
WHOLE = {"count_all", "share", "speakers", "speaker_turns", "speaks_most", "chord_changes"}
"""Kinds that take the whole clip, and too many listens for this one."""


def lengthened(seed: int, style: Style) -> Subject:
    """An imagined clip made 90 s long, drawn out or with silence in front; all its sounds have levels and some
    a pitch."""
    record = imagined(seed)
    assert record.music is not None
    factor, shift = (SECONDS / record.duration, 0.0) if seed % 2 else (1.0, (seed * 7.3) % (SECONDS - 26))

    def at(time: float) -> float:
        return factor * time + shift

    events = tuple(
        replace(
            event,
            onset=at(event.onset),
            offset=at(event.offset),
            label="low beep" if event.label == "Cat" else event.label,
            pitch=220.0 * 2 ** (number % 3 / 2),
            level=-5.0 - 9 * len(event.label) % 40,
            weighted_level=-5.0 - 9 * len(event.label) % 40,
        )
        for number, event in enumerate(record.events or ())
    )
    turns = tuple(replace(turn, start=at(turn.start), end=at(turn.end)) for turn in record.turns or ())
    chords = tuple(replace(chord, start=at(chord.start)) for chord in record.music.chords)
    music = replace(record.music, chords=chords)
    long = replace(record, duration=SECONDS, events=events, turns=turns, music=music)
    subject = subject_of(long, SET, ComposeOptions(style=style), np.random.default_rng(seed))
    assert isinstance(subject, Subject)
    return subject


@pytest.mark.parametrize("style", list(Style))
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_no_answer_listens_more_often_than_it_may(kind: str, style: Style) -> None:
    made = 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        example = KINDS[kind](lengthened(seed, style), rng)
        if example is not None:
            made += 1
            assert response_flaws(example, SECONDS) == [], example.response
        if made > 25:
            break
    assert made or kind in WHOLE
