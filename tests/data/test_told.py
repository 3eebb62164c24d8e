"""What tools say, in questions and in responses: quoted where right, passed over where wrong."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from relisten.audio import SAMPLE_RATE, Clip
from relisten.data.manifest import LabelledEvent
from relisten.data.questions import KINDS, make_examples
from relisten.data.scenes import make_scene
from relisten.data.subject import Subject
from relisten.data.told import SUITED, Told, ask_tools, choose_told
from relisten.errors import InputError
from relisten.tools.finding import Moment


def told(tool: str, *moments: tuple[float, float, str]) -> Told:
    return Told(tool, f"[{tool}] something", tuple(Moment(*moment) for moment in moments))


def event(onset: float, label: str, **more: float | bool) -> LabelledEvent:
    return LabelledEvent(onset=onset, offset=onset + 0.4, label=label, **more)  # type: ignore[arg-type]


def subject(*events: LabelledEvent, said: Told) -> Subject:
    clip = Clip(np.zeros(5 * SAMPLE_RATE, np.float32), "scene")
    return Subject("scene", clip, 5.0, events, strays=("bell", "chord", "snare"), told=(said,))


LOUD, SOFT = (
    event(1.0, "kick", level=-6.0, weighted_level=-6.0),
    event(2.0, "clap", level=-30.0, weighted_level=-30.0),
)
LOW, HIGH = event(1.0, "bell", pitch=440.0), event(2.5, "bell", pitch=880.0)
LONG = event(1.0, "high beep", sustained=True)


@pytest.mark.parametrize(
    ("kind", "events", "said", "quote"),
    [
        (
            "louder",
            (LOUD, SOFT),
            told("loudness", (1.05, -6.4, "-6 dB"), (2.0, -29.0, "-29 dB")),
            "tool 2.0 s -29 dB",
        ),
        ("louder", (LOUD, SOFT), told("loudness", (1.05, -31.0, "-31 dB"), (2.0, -29.0, "-29 dB")), None),
        ("louder", (LOUD, SOFT), told("loudness", (1.05, -6.4, "-6 dB"), (2.4, -29.0, "-29 dB")), None),
        ("louder", (LOUD, SOFT), told("pitch", (1.05, 440, "A4"), (2.0, 440, "A4")), None),
        ("higher", (LOW, HIGH), told("pitch", (1.0, 441.0, "A4"), (2.5, 882.0, "A5")), "tool 2.5 s A5"),
        ("higher", (LOW, HIGH), told("pitch", (1.0, 882.0, "A5"), (2.5, 441.0, "A4")), None),
        ("duration", (LONG,), told("silence", (0.96, 0.41, "for 0.4 s")), "tool 1.0 s for 0.4 s"),
        ("duration", (LONG,), told("silence", (0.96, 2.5, "for 2.5 s")), None),
    ],
)
def test_a_tool_is_quoted_where_it_tells_the_truth_of_every_sound_that_counts(
    kind: str, events: tuple[LabelledEvent, ...], said: Told, quote: str | None
) -> None:
    rng = np.random.default_rng(1)
    example = next(filter(None, (KINDS[kind](subject(*events, said=said), rng) for _ in range(30))))
    assert example.question.findings == (said.line,)
    assert (quote in example.response) if quote else (" tool " not in example.response)
    if kind == "louder":  # the answer is the truth, whatever a tool says
        assert example.question.answer == "kick"


def test_a_question_mostly_shows_the_tool_that_suits_it() -> None:
    rng = np.random.default_rng(0)
    said = tuple(told(name) for name in ("loudness", "pitch", "silence"))
    shown: Counter[str] = Counter()
    for _ in range(400):
        shown.update(one.tool for one in choose_told(rng, "higher", said))
    assert shown["pitch"] > 280
    assert shown["loudness"] > 40
    assert "higher" in SUITED
    assert choose_told(rng, "first", said)


def test_tools_are_asked_and_their_failures_are_told() -> None:
    clip = make_scene("train", 0, 0).clip
    (said,) = ask_tools(clip, ["loudness"])
    assert said.line.startswith("[loudness] level ")
    assert said.moments
    with pytest.raises(InputError, match="unknown"):
        ask_tools(clip, ["loudnes"])


def test_without_tools_questions_are_what_they_were() -> None:
    scene = make_scene("train", 0, 1)
    plain = make_examples(scene, np.random.default_rng(0))
    assert all(example.question.findings == () for example in plain)
    shown = make_examples(scene, np.random.default_rng(0), told=ask_tools(scene.clip, ["loudness", "silence"]))
    assert all(example.question.findings for example in shown)
