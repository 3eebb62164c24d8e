"""Sets of questions from manifests: what is asked, what is refused, and how a set comes out."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.imagined_labels import NAMES, SET, imagined, quoted

from relisten.data.compose import (
    KINDS,
    ComposeOptions,
    Vocabulary,
    compose,
    compose_record,
    kinds_named,
    learn_labels,
    subject_of,
)
from relisten.data.examples import Example, read_examples
from relisten.data.harmony import similar
from relisten.data.manifest import ClipRecord, LabelledEvent, write_manifest
from relisten.data.measures import distinct, near_duplicates
from relisten.data.questions import make_examples
from relisten.data.scenes import make_scene
from relisten.data.simulating import scene_record
from relisten.data.subject import Style
from relisten.errors import InputError


@given(st.integers(0, 2**32))
def test_no_wrong_choice_may_mean_the_right_one(seed: int) -> None:
    record = imagined(seed)
    examples = compose_record(record, SET, ComposeOptions(per_clip=20))
    for example in examples if isinstance(examples, list) else []:
        answer = str(example.question.answer)
        wrong = [choice for choice in example.question.choices if choice != answer]
        if example.kind.startswith("chord_") and example.kind != "chord_changes":
            assert not any(similar(choice, answer) for choice in wrong)
        elif example.kind in ("first", "last", "after", "during"):
            assert not {answer, *wrong} >= {"Engine", "Engine starting"} or answer not in (
                "Engine",
                "Engine starting",
            )
        elif example.kind == "tempo":
            (right,) = (float(n) for n in re.findall(r"\d+", answer))
            for choice in wrong:
                ratio = float(re.findall(r"\d+", choice)[0]) / right
                assert all(abs(ratio / simple - 1) > 0.03 for simple in (0.5, 2 / 3, 0.75, 1, 4 / 3, 1.5, 2))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Am", "Am7", True),
        ("A:min", "Am", True),
        ("C#", "Db", True),
        ("C", "Cmaj7", True),
        ("C", "C/E", True),
        ("C", "Cm", False),
        ("C", "Am", False),
        ("Bdim", "B", False),
        ("N", "C", False),
    ],
)
def test_chords_that_hold_one_another_are_similar(one: str, other: str, same: bool) -> None:
    assert similar(one, other) is same


def clip(*events: tuple[float, float, str], duration: float = 10.0, **more: object) -> ClipRecord:
    labelled = tuple(LabelledEvent(onset, offset, label) for onset, offset, label in events)
    fields = {"resolution": 0.1, "label_set": "set", "events": labelled} | more
    return ClipRecord(id="x", audio=Path("x.wav"), duration=duration, **fields)  # type: ignore[arg-type]


def dogs(*times: float) -> tuple[tuple[float, float, str], ...]:
    return tuple((time, time + 0.4, "Dog") for time in times)


DOUBTFUL = [
    ("first", clip((1.0, 2.0, "Dog"), (1.15, 2.0, "Rain"))),
    ("last", clip((1.0, 9.0, "Dog"), (3.0, 4.0, "Rain"))),
    ("after", clip((1.0, 5.0, "Dog"), (3.0, 4.0, "Rain"))),
    ("after", clip((1.0, 2.0, "Engine"), (3.0, 4.0, "Engine starting"))),
    ("before", clip((1.0, 2.0, "Dog"), (1.3, 2.0, "Rain"))),
    ("before", clip((1.0, 2.0, "Engine"), (4.0, 5.0, "Engine starting"))),
    ("duration", clip((0.0, 2.0, "Dog"))),
    ("duration", clip((8.0, 10.0, "Dog"))),
    ("duration", clip((1.0, 1.3, "Dog"), resolution=0.2)),
    ("overlap", clip((1.0, 2.0, "Dog"), (1.9, 3.0, "Rain"))),
    ("overlap", clip((1.0, 2.0, "Dog"), (2.1, 3.0, "Rain"))),
    ("during", clip((1.0, 5.0, "Dog"), (2.0, 2.5, "Rain"), (4.9, 6.0, "Cat"))),
    ("share", clip((1.0, 1.2, "Dog"))),
    ("share", clip(*dogs(0.1, 0.9, 1.7, 2.5, 3.3, 4.1, 4.9), resolution=0.2)),
    ("repeat_gap", clip((1.0, 2.0, "Dog"), (1.3, 2.5, "Dog"))),
    ("count_before", clip((1.0, 2.0, "Dog"), (1.15, 2.0, "Rain"))),
    ("order", clip((1.0, 2.0, "Dog"), (1.3, 2.0, "Rain"), (4.0, 5.0, "Cat"))),
    ("distinct", clip((1.0, 2.0, "Engine"), (3.0, 4.0, "Engine starting"))),
    ("when", clip((1.0, 2.0, "Engine"), (3.0, 4.0, "Engine starting"))),
]


@pytest.mark.parametrize(("kind", "record"), DOUBTFUL, ids=[f"{i}-{kind}" for i, (kind, _) in enumerate(DOUBTFUL)])
def test_what_is_in_doubt_is_not_asked(kind: str, record: ClipRecord) -> None:
    for seed in range(20):
        options = ComposeOptions(kinds=(kind,), seed=seed)
        assert compose_record(record, SET, options) == "nothing beyond doubt"


def test_a_question_needs_a_wrong_choice() -> None:
    record = clip((1.0, 2.0, "Dog"), (4.0, 5.0, "Dog"), label_set="of its own")
    assert compose_record(record, {}, ComposeOptions(kinds=("first", "last", "after"))) == "nothing beyond doubt"


def test_labels_that_overlap_themselves_are_not_counted() -> None:
    record = clip((1.0, 3.0, "Dog"), (2.0, 4.0, "Dog"), (6.0, 7.0, "Rain"))
    for seed in range(30):
        examples = compose_record(record, SET, ComposeOptions(kinds=("count_all", "count_window"), seed=seed))
        assert isinstance(examples, list) or examples == "nothing beyond doubt"
        for example in examples if isinstance(examples, list) else []:
            assert quoted(example.question.text) != ["Dog"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (clip(*dogs(1, 2, 3), complete=False), "labels not complete"),
        (clip(*dogs(1.0), duration=1.5), "shorter than 1.6 s"),
        (clip(), "no sound in it"),
        (clip(events=None), "nothing labelled, or not surely"),
        (clip(events=(LabelledEvent(1, 2, "Dog", confidence=0.3),)), "nothing labelled, or not surely"),
        (clip((1.0, 2.0, "<unk>")), "nothing labelled, or not surely"),
    ],
)
def test_clips_that_are_not_asked_about_have_a_reason(record: ClipRecord, reason: str) -> None:
    assert compose_record(record, SET, ComposeOptions()) == reason


def test_an_unlabelled_set_is_never_called_silent() -> None:
    """Beats alone tell nothing about dogs."""
    record = replace(imagined(3), events=None, turns=None)
    examples = compose_record(record, SET, ComposeOptions(per_clip=30))
    assert isinstance(examples, list)
    assert {example.kind for example in examples} <= set(kinds_named(["music"]))


def test_labels_that_begin_together_or_share_their_words_are_akin() -> None:
    vocabulary = Vocabulary()
    for at in range(5):
        bark = LabelledEvent(at, at + 1, "Bark")
        vocabulary.learn((bark, replace(bark, label="Dog"), LabelledEvent(at + 3, at + 4, "Speech")), 0.3)
    for label in ("Male speech, man speaking", "Female speech, woman speaking", "Snare drum", "Bass drum"):
        vocabulary.learn((LabelledEvent(1, 2, label),), 0.3)
    akin = vocabulary.akin()
    assert akin["Dog"] == {"Bark"}
    assert akin["Speech"] == {"Male speech, man speaking", "Female speech, woman speaking"}
    assert "Female speech, woman speaking" not in akin["Male speech, man speaking"]
    assert "Snare drum" not in akin


def test_scenes_get_the_questions_they_always_got() -> None:
    """A manifest row of a scene and the scene itself are the same subject."""
    scene = make_scene("train", 3, 5)
    record = scene_record(scene, Path("x.flac"), "")
    rng = np.random.default_rng(0)
    subject = subject_of(record, {}, ComposeOptions(style=Style.SHORT), rng)
    assert not isinstance(subject, str)
    for seed in range(5):
        mine = make_examples(subject, np.random.default_rng(seed), per_scene=9)
        theirs = make_examples(scene, np.random.default_rng(seed), per_scene=9)
        assert [(e.question.text, e.question.choices, e.response) for e in mine] == [
            (e.question.text, e.question.choices, e.response) for e in theirs
        ]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("set") / "m.jsonl"
    write_manifest(path, [replace(imagined(seed), audio=path.parent / f"{seed}.wav") for seed in range(150)])
    return path


def composed(manifest: Path, processes: int = 1, **options: object) -> str:
    stretches = compose(manifest, manifest.parent, ComposeOptions(**options), processes)  # type: ignore[arg-type]
    return "".join(row for stretch in stretches for row in stretch.rows)


def test_the_number_of_processes_changes_nothing(manifest: Path) -> None:
    alone = composed(manifest)
    assert composed(manifest, processes=2) == alone
    assert composed(manifest, seed=1) != alone


def test_no_kind_has_more_questions_than_allowed(manifest: Path) -> None:
    every, even = composed(manifest), composed(manifest, per_kind=20)
    kinds = [json.loads(row)["kind"] for row in every.splitlines()]
    assert Counter(json.loads(row)["kind"] for row in even.splitlines()) == {
        kind: min(20, number) for kind, number in Counter(kinds).items()
    }
    assert [row for row in every.splitlines() if row in even.splitlines()] == even.splitlines()


def test_a_clip_gets_the_same_questions_wherever_it_stands(manifest: Path, tmp_path: Path) -> None:
    turned = tmp_path / "m.jsonl"
    turned.write_text("".join(reversed(manifest.read_text().splitlines(keepends=True))))
    assert sorted(composed(turned).splitlines()) == sorted(composed(manifest).splitlines())


def test_bad_rows_are_told_and_passed_over(manifest: Path, tmp_path: Path) -> None:
    broken = tmp_path / "m.jsonl"
    broken.write_text("{\n" + manifest.read_text() + '{"audio": "x"}\n')
    stretches = list(compose(broken, tmp_path, ComposeOptions()))
    assert sum(stretch.clips for stretch in stretches) == 150
    assert [str(error).partition(" ")[0] for stretch in stretches for error in stretch.bad] == [
        f"{broken}:1:",
        f"{broken}:152:",
    ]


def test_the_set_is_balanced_and_varied(manifest: Path) -> None:
    path = manifest.parent / "q.jsonl"
    path.write_text(composed(manifest, per_clip=12))
    examples = [item for item in read_examples(path) if isinstance(item, Example)]
    assert len(examples) > 1200
    assert len({example.question.id for example in examples}) == len(examples)
    for size in (2, 3, 4):
        places = Counter(
            e.question.choices.index(str(e.question.answer)) for e in examples if len(e.question.choices) == size
        )
        assert max(places.values()) / places.total() < 1 / size + 0.06
    for kind in ("exists", "before", "count_all", "count_window"):
        answers = Counter(str(e.question.answer) for e in examples if e.kind == kind)
        assert max(answers.values()) / answers.total() <= 0.6
    thoughts = [re.sub(r"<[^>]*>|[\d.]+", " ", e.response) for e in examples]
    repeated = near_duplicates(thoughts)
    assert repeated is not None
    assert repeated < 0.02
    assert np.mean([len(text.split()) for text in thoughts]) > 35
    assert set(Counter(e.difficulty for e in examples)) == {"easy", "medium", "hard"}


def test_measures_of_variety() -> None:
    assert distinct(["a b a b", "a b"], 1) == 2 / 6
    assert distinct(["a b a b"], 2) == 2 / 3
    assert distinct(["a"], 2) is None
    words = [f"w{n}" for n in range(60)]
    same = " ".join(words)
    close = " ".join([*words[:58], "other", "end"])
    different = " ".join(reversed(words))
    assert near_duplicates([same, different, close, same]) == 0.5
    assert near_duplicates([]) is None


def test_kinds_by_group_and_unknown_kinds() -> None:
    assert kinds_named(["speech", "first", "first"])[-1] == "first"
    assert kinds_named([]) == tuple(KINDS)
    with pytest.raises(InputError, match="question kinds \\['nonsense'\\]: use some of scenes"):
        ComposeOptions(kinds=kinds_named(["nonsense"]))
    with pytest.raises(InputError, match="per clip 0"):
        ComposeOptions(per_clip=0)


def test_labels_are_learned_by_set(manifest: Path) -> None:
    learned = learn_labels(manifest)
    assert list(learned) == ["set"]
    assert learned["set"].names == tuple(sorted(NAMES))
    assert "Engine starting" in learned["set"].akin["Engine"]
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    engines = sum(any(event["label"] == "Engine" for event in row["events"]) for row in rows)
    assert learned["set"].weights[learned["set"].names.index("Engine")] == engines
