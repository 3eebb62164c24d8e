from __future__ import annotations

import itertools
import math
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relisten.audio import SAMPLE_RATE, Clip
from relisten.data.examples import Example
from relisten.data.questions import KINDS, make_examples
from relisten.data.scenes import Event, Scene, simulate
from relisten.data.subject import as_subject
from relisten.data.timbres import LABELS
from relisten.data.wording import HITS, NAMES, NUMBERS, QUESTIONS
from relisten.protocol import MAX_LISTENS, MIN_SEGMENT, Segment, parse_answer, split_at_listens

SUSTAINED = {"low beep", "high beep", "chirp", "noise burst", "voice", "chord"}


def scene_of(*events: Event, seconds: float = 8.0) -> Scene:
    return Scene(Clip.from_samples(np.zeros(int(seconds * SAMPLE_RATE), np.float32)), events)


def imagined(seed: int) -> Scene:
    """A scene without its sound, faster to make than a simulated one and less well behaved."""
    rng = np.random.default_rng(seed)
    seconds = round(float(rng.uniform(4, 12)), 1)
    names = [LABELS[i] for i in rng.permutation(len(LABELS))[: rng.integers(1, 6)]]
    events = []
    for onset in np.sort(rng.uniform(0, seconds - 0.2, rng.integers(1, 17))):
        label = names[int(rng.integers(len(names)))]
        level = float(rng.uniform(-30, -5))
        events.append(
            Event(
                onset=float(onset),
                offset=min(seconds, float(onset + rng.uniform(0.05, 1.5))),
                label=label,
                pitch=float(rng.uniform(200, 400)) if label.endswith(("beep", "bell")) else None,
                level=level,
                weighted_level=level + float(rng.uniform(-6, 3)),
                sustained=label in SUSTAINED,
            )
        )
    return scene_of(*events, seconds=seconds)


def make(kind: str, scene: Scene, rng: np.random.Generator) -> Example | None:
    return KINDS[kind](as_subject(scene), rng)


# Answers worked out again, from the words of the question and not from what made it


def labels_named(text: str) -> list[str]:
    """The labels a question names, in order, each called by any of its names."""
    names = {name: label for label, pairs in NAMES.items() for pair in pairs for name in pair}
    names |= {hit: label for label, hit in HITS.items()}
    pattern = "|".join(rf"\b{re.escape(name)}\b" for name in sorted(names, key=len, reverse=True))
    return [names[found] for found in re.findall(pattern, text.lower())]


def window_of(text: str) -> tuple[float, float] | None:
    numbers = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (0.0, numbers[0]) if numbers else None


def heard(scene: Scene, text: str) -> list[Event]:
    start, end = window_of(text) or (0.0, math.inf)
    return [event for event in scene.events if start < event.onset < end]


def answer_again(scene: Scene, example: Example) -> str:
    text = example.question.text
    named = labels_named(text)
    inside = sorted(heard(scene, text), key=lambda event: event.onset)
    order = [event.label for event in inside]
    match example.kind:
        case "count_window" | "count_all":
            return str(sum(1 for label in order if label == named[0]))
        case "first":
            return order[0]
        case "last":
            return order[-1]
        case "after":
            places = [i for i, label in enumerate(order) if label == named[0]]
            return order[places["second" in text.lower()] + 1]
        case "exists":
            return "yes" if named[0] in order else "no"
        case "before":
            return "yes" if order.index(named[0]) < order.index(named[1]) else "no"
        case "duration":
            event = inside[order.index(named[0])]
            return min(example.question.choices, key=lambda c: abs(float(c.split()[0]) - event.duration))
        case "longest_gap":
            ends = [max(event.offset for event in inside[: i + 1]) for i in range(len(inside) - 1)]
            i = max(range(len(ends)), key=lambda i: inside[i + 1].onset - ends[i])
            one, two = order[i : i + 2]
            return f"between two {one}s" if one == two else f"between the {one} and the {two}"
        case "louder":
            return max(named, key=lambda name: max(e.level for e in inside if e.label == name))
        case "higher":
            first, second = [event.pitch or 0.0 for event in inside if event.label == named[0]][:2]
            return "second" if second > first else "first"
    raise AssertionError(example.kind)


def check_grammar(scene: Scene, example: Example) -> None:
    response = example.response
    assert re.fullmatch(r"<think>[^<]*(<seg>[^<]*</seg>[^<]*)+</think><answer>[^<]+</answer>", response)
    assert parse_answer(response) == example.question.answer
    parts = split_at_listens(response, scene.clip.duration)
    segments = [part for part in parts if isinstance(part, Segment)]
    assert 1 <= len(segments) <= MAX_LISTENS
    assert len(segments) == response.count("<seg>")
    for segment in segments:
        assert segment.text() in response  # nothing was clamped
        assert segment.end <= scene.clip.duration
        assert segment.duration >= MIN_SEGMENT
    for number, part in enumerate(parts[1:], 1):
        if isinstance(parts[number - 1], Segment):
            assert isinstance(part, str)
            assert re.match(r" [a-z]", part)  # goes on within the sentence


def check_heard(scene: Scene, example: Example) -> None:
    """Each segment is followed by just what starts in it, in order, and when; the last one up to the sound that
    settles the question, where one does."""
    parts = split_at_listens(example.response, scene.clip.duration)
    for segment, text in zip(parts[1::2], parts[2::2], strict=True):
        assert isinstance(segment, Segment)
        expected = [
            f"{event.onset - segment.start:.1f} {event.label}"
            for event in scene.events
            if segment.start <= event.onset < segment.end
        ]
        listed = re.split(r"(?:i hear|gives|has|with) ", str(text), maxsplit=1)[1]
        settled = ""
        for number, heard in enumerate(expected or ["nothing"]):
            if number and text == parts[-1] and CONCLUDES.match(listed):
                settled = expected[number - 1].partition(" ")[2]
                break
            assert listed.startswith(heard), (listed, heard)
            listed = re.sub(AFTER_A_SOUND, "", listed[len(heard) :])
        if settled:
            answer, named = str(example.question.answer), labels_named(example.question.text)
            assert {
                "first": settled == answer,
                "after": settled == answer,
                "exists": answer == "yes" and settled == named[-1],
            }.get(example.kind, settled in named), (example.kind, settled)
            assert example.kind not in ("count_window", "count_all", "last", "longest_gap")


CONCLUDES = re.compile(r"(so|and the) ")
AFTER_A_SOUND = rf"^( ({'|'.join(NUMBERS)}|\d\d))?( (-?\d+ dB|key \d+|\d+\.\d seconds))?(, a long gap)?, "


@given(seed=st.integers(0, 2**32), kind=st.sampled_from(sorted(KINDS)))
def test_answers_hold_when_worked_out_again(seed: int, kind: str) -> None:
    scene = imagined(seed)
    rng = np.random.default_rng(seed)
    for _ in range(3):
        example = make(kind, scene, rng)
        if example is None:
            continue
        question = example.question
        assert question.answer in question.choices
        assert len(set(question.choices)) == len(question.choices) in (2, 3, 4)
        assert example.kind == kind == question.metadata["kind"]
        if kind == "longest_gap":
            assert {*re.findall("|".join(LABELS), str(question.answer))} == {
                *re.findall("|".join(LABELS), answer_again(scene, example))
            }
        else:
            assert answer_again(scene, example) == question.answer
        check_grammar(scene, example)
        check_heard(scene, example)


@given(seed=st.integers(0, 2**32))
def test_windows_leave_onsets_alone_and_cut_nothing_asked_about(seed: int) -> None:
    scene = imagined(seed)
    for kind in ("count_window", "exists", "first", "last"):
        example = make(kind, scene, np.random.default_rng(seed))
        window = example and window_of(example.question.text)
        if not example or not window:
            continue
        assert 1.5 - 1e-6 <= window[1] - window[0] <= 5 + 1e-6
        assert all(abs(event.onset - edge) >= 0.12 for event in scene.events for edge in window)
        if kind in ("count_window", "exists"):
            (label,) = labels_named(example.question.text)
            crossing = [e for e in scene.events if any(e.onset < edge < e.offset for edge in window)]
            assert label not in {event.label for event in crossing}


@given(seed=st.integers(0, 2**32))
def test_lengths_offered_are_far_apart(seed: int) -> None:
    scene = imagined(seed)
    example = make("duration", scene, np.random.default_rng(seed))
    if example:
        lengths = sorted(float(choice.split()[0]) for choice in example.question.choices)
        assert all(late >= 1.6 * early for early, late in itertools.pairwise(lengths))


def test_a_count_ends_at_the_answer() -> None:
    for seed in range(150):
        scene = imagined(seed)
        for kind in ("count_window", "count_all"):
            example = make(kind, scene, np.random.default_rng(seed))
            if example:
                (label,) = labels_named(example.question.text)
                counts = re.findall(rf"\d {label} ([a-z]+)", example.response)
                assert counts == list(NUMBERS[1 : int(str(example.question.answer)) + 1])


def kick(onset: float, level: float = -10.0, weighted: float = -10.0) -> Event:
    return Event(onset, onset + 0.1, "kick", level=level, weighted_level=weighted)


def bell(onset: float, level: float = -10.0, pitch: float = 500.0) -> Event:
    return Event(onset, onset + 0.1, "bell", level=level, weighted_level=level, pitch=pitch)


DOUBTFUL = [
    ("first", scene_of(kick(1.0), bell(1.1))),
    ("last", scene_of(kick(1.0), bell(1.1))),
    ("last", scene_of(Event(1.0, 4.0, "voice", sustained=True), kick(2.0))),
    ("first", scene_of(kick(1.0))),
    ("after", scene_of(kick(1.0), bell(1.1))),
    ("after", scene_of(kick(1.0), bell(2.0), Event(2.1, 2.2, "clap"))),
    ("before", scene_of(kick(1.0), bell(1.2))),
    ("before", scene_of(kick(1.0), kick(3.0))),
    ("duration", scene_of(kick(1.0))),
    ("duration", scene_of(Event(1.0, 1.2, "voice", sustained=True))),
    ("duration", scene_of(Event(6.5, 8.0, "voice", sustained=True))),
    ("longest_gap", scene_of(kick(1.0), bell(3.0), kick(5.1))),
    ("longest_gap", scene_of(kick(1.0), bell(5.0))),
    ("louder", scene_of(kick(1.0, -10, -10), bell(3.0, -14))),
    ("louder", scene_of(kick(1.0, -10, -20), bell(3.0, -18))),
    ("louder", scene_of(kick(1.0, -5, -5), kick(2.0, -20, -20), bell(3.0, -14))),
    ("higher", scene_of(bell(1.0, pitch=500), bell(2.0, pitch=600))),
    ("higher", scene_of(bell(1.0), kick(2.0))),
]


@pytest.mark.parametrize(("kind", "scene"), DOUBTFUL, ids=[f"{i}-{kind}" for i, (kind, _) in enumerate(DOUBTFUL)])
def test_what_is_in_doubt_is_not_asked(kind: str, scene: Scene) -> None:
    assert all(make(kind, scene, np.random.default_rng(seed)) is None for seed in range(30))


CLEAR: list[tuple[str, Scene, str]] = [
    ("longest_gap", scene_of(kick(0.5), kick(1.0), bell(4.0), kick(4.5)), "kick bell"),
    ("louder", scene_of(kick(1.0, -5, -5), bell(3.0, -14)), "kick"),
    ("higher", scene_of(bell(1.0, pitch=900), bell(2.0, pitch=500)), "first"),
    ("duration", scene_of(Event(1.0, 2.0, "voice", sustained=True)), "1.0 seconds"),
]


@pytest.mark.parametrize(("kind", "scene", "answer"), CLEAR, ids=[kind for kind, _, _ in CLEAR])
def test_what_is_clear_is_asked(kind: str, scene: Scene, answer: str) -> None:
    example = make(kind, scene, np.random.default_rng(0))
    assert example is not None
    assert all(word in str(example.question.answer) for word in answer.split())


@pytest.fixture(scope="module")
def corpus() -> dict[str, list[Example]]:
    """Every kind asked about simulated scenes."""
    found = defaultdict(list)
    rng = np.random.default_rng(0)
    for scene in simulate("train", 11, 0, 150):
        for kind in KINDS:
            for _ in range(3):
                example = make(kind, scene, rng)
                if example:
                    found[kind].append(example)
    return found


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_answers_cannot_be_guessed_from_what_is_usual(kind: str, corpus: dict[str, list[Example]]) -> None:
    examples = corpus[kind]
    assert len(examples) >= 30
    answers = Counter(str(example.question.answer) for example in examples)
    places = Counter(
        e.question.choices.index(str(e.question.answer)) for e in examples if len(e.question.choices) > 2
    )
    binary = len(examples[0].question.choices) == 2
    assert max(answers.values()) / len(examples) <= (0.65 if binary else 0.4)
    if places:
        assert max(places.values()) / sum(places.values()) <= 0.45


def test_measures_are_told_where_sounds_are_compared() -> None:
    rng = np.random.default_rng(0)
    louder = make("louder", scene_of(kick(1.0, -5, -5), bell(3.0, -14), kick(6.0, -4, -4)), rng)
    assert louder
    assert "1.0 kick one -6 dB, 3.0 bell one -15 dB" in louder.response
    higher = make("higher", scene_of(bell(1.0, pitch=880), bell(2.0, pitch=440), bell(3.0)), rng)
    assert higher
    assert "1.0 bell one key 61, 2.0 bell two key 49, so the first is higher" in higher.response
    # The sound is heard to its end, although the walk would cut it.
    scene = scene_of(kick(0.5), Event(3.7, 5.2, "chord", sustained=True), seconds=9.0)
    long = next(filter(None, (make("duration", scene, rng) for _ in range(50))))
    assert "<seg>0.0, 5.4</seg>" in long.response


def test_looking_for_sounds_ends_where_the_last_is_heard() -> None:
    sounds = (kick(1.0), bell(2.0), kick(6.5), bell(8.0))
    before = make("before", scene_of(*sounds, seconds=9.0), np.random.default_rng(0))
    assert before
    assert before.response.count("<seg>") == 1


def test_wording_varies(corpus: dict[str, list[Example]]) -> None:
    assert all(len(templates) >= 8 for templates in QUESTIONS.values())
    texts = [example.question.text for examples in corpus.values() for example in examples]
    assert any(text == text.lower() for text in texts)
    assert any(text == text.upper() for text in texts)
    assert any(text.endswith("?") for text in texts)
    assert any(text[-1].isalnum() for text in texts)
    assert any(re.search(r"\b\d+ ", text) for text in texts)
    assert any(re.search(r"\b\d+\.0 ", text) for text in texts)
    assert not any("  " in text or "{" in text or " ?" in text for text in texts)


def test_responses_stay_short(corpus: dict[str, list[Example]]) -> None:
    lengths = [len(example.response.split()) for examples in corpus.values() for example in examples]
    assert np.mean(lengths) < 40


def test_make_examples_keeps_to_what_is_asked_for() -> None:
    scene = imagined(8)
    examples = make_examples(scene, np.random.default_rng(0), ["count_window", "exists"], per_scene=5)
    assert len(examples) == 5
    assert {example.kind for example in examples} == {"count_window", "exists"}
    assert len({example.question.text for example in examples}) == 5
    assert len({example.question.id for example in examples}) == 5
    weighted = make_examples(scene, np.random.default_rng(0), {"first": 1.0, "exists": 0.0})
    assert {example.kind for example in weighted} <= {"first"}
    assert make_examples(scene, np.random.default_rng(0)) == make_examples(scene, np.random.default_rng(0))


def test_a_scene_that_allows_nothing_yields_nothing() -> None:
    scene = scene_of(kick(1.0), bell(1.05))
    assert make_examples(scene, np.random.default_rng(0), ["first", "last", "after", "higher"]) == ()


def test_the_same_questions_come_out_of_every_process() -> None:
    code = (
        "import numpy as np; from relisten.data.scenes import make_scene;"
        "from relisten.data.questions import make_examples;"
        "print([(e.question.text, e.question.choices, e.response) for i in range(4)"
        " for e in make_examples(make_scene('train', 0, i), np.random.default_rng(i), per_scene=9)])"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1]
    assert len(said[0]) > 1000
