"""Scoring: the official rule against a second formulation, letters, intervals, averages, controls."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from relisten.evaluate.scoring import (
    Breakdown,
    Graded,
    Outcome,
    Rule,
    Tally,
    bootstrap_macro,
    chosen,
    controls,
    grade,
    scorecard,
    string_match,
    wilson,
)

RIGHT, WRONG, NONE = Outcome.RIGHT, Outcome.WRONG, Outcome.NO_ANSWER
MMAR = Path(__file__).parent / "data" / "MMAR-meta.jsonl"


def words(text: str) -> list[str]:
    """Runs of letters, digits, their marks and underscores, found character by character."""
    found, run = [], ""
    for char in text.lower() + " ":
        if char.isalnum() or char == "_":
            run += char
        elif run:
            found.append(run)
            run = ""
    return found


def second_formulation(answer: str, prediction: str, choices: list[str]) -> bool:
    """The official rule from the other end: what makes a prediction wrong."""
    said, wanted = words(prediction), words(answer)
    if len(said) == 0 or any(word not in said for word in wanted):
        return False
    for choice in choices:
        other = words(choice)
        same = all(w in wanted for w in other) and all(w in other for w in wanted)
        if not same and any(word in other and word not in wanted for word in said):
            return False
    return True


# Few words, so that choices overlap; some signs at which tokenisers part ways.
TEXT = st.lists(
    st.sampled_from(
        [
            "a",
            "A",
            "dog",
            "Dog",
            "no",
            "the",
            "12",
            "1",
            "two",
            "B_b",
            "é",
            "狗",
            "狗叫",
            "don't",
            "-",
            ".",
            "İ",
            "²",
            "",
        ]
    ),
    max_size=5,
).map(" ".join) | st.text(max_size=8)


@given(TEXT, TEXT, st.lists(TEXT, max_size=4))
def test_the_official_rule_is_its_second_formulation(answer: str, prediction: str, choices: list[str]) -> None:
    assert string_match(answer, prediction, choices) == second_formulation(answer, prediction, choices)


@given(st.data())
def test_the_official_rule_on_real_rows(data: st.DataObject) -> None:
    row = data.draw(st.sampled_from([json.loads(line) for line in MMAR.read_text(encoding="utf-8").splitlines()]))
    pieces = [*row["choices"], "the answer is", "not", row["question"]]
    said = " ".join(data.draw(st.lists(st.sampled_from(pieces), max_size=3)))
    assert string_match(row["answer"], said, row["choices"]) == second_formulation(
        row["answer"], said, row["choices"]
    )


@pytest.mark.parametrize(
    ("answer", "prediction", "choices", "right"),
    [
        ("Man", "Man", ["Man", "Woman"], True),
        ("Man", "it is a man.", ["Man", "Woman"], True),
        ("Man", "man or woman", ["Man", "Woman"], False),
        ("1", "12", ["1", "12"], False),
        ("12", "1", ["1", "12"], False),
        ("Man", "", ["Man", "Woman"], False),
        ("Man", "...", ["Man", "Woman"], False),
        # Whoever mixes up the order is right all the same: both choices are one set of words.
        ("From near to far", "From far to near", ["From near to far", "From far to near"], True),
        # Words that wrong choices share with the reference exclude nothing.
        ("a red car", "a red car", ["a red car", "a blue car"], True),
        ("a red car", "a red blue car", ["a red car", "a blue car"], False),
        # Without choices everything that contains the reference is right.
        ("yes", "yes and no", [], True),
        # A reference without a word is right for any word.
        ("...", "anything", ["...", "dog"], True),
    ],
)
def test_cases_of_the_official_rule(answer: str, prediction: str, choices: list[str], right: bool) -> None:
    assert string_match(answer, prediction, choices) is right
    assert second_formulation(answer, prediction, choices) is right


def test_a_prediction_may_be_as_long_as_a_file() -> None:
    assert string_match("dog", "dog " * 2_000_000, ["dog", "cat"])


@pytest.mark.parametrize(
    ("prediction", "number"),
    [
        ("B", 1),
        (" (b) ", 1),
        ("b.", 1),
        ("**B**", 1),
        ("dog", 1),
        ("DOG ", 1),
        ("B. dog", 1),
        ("(B) dog", 1),
        ("[B]: dog", 1),
        ("<B> dog", 1),
        ("B) cat", None),  # a letter with another choice's text
        ("B dog", None),
        ("A dog", None),  # an article, not a letter
        ("a", 0),
        ("the dog", None),
        ("dogs", None),
        ("D", None),  # there are three choices
        ("1", None),
        ("AB", None),
        ("cat or dog", None),
        ("", None),
    ],
)
def test_which_choice_a_prediction_names(prediction: str, number: int | None) -> None:
    assert chosen(prediction, ("cat", "dog", "cow")) == number


def test_choices_that_spell_out_their_letters() -> None:
    choices = ("(A) cat", "(B) dog")
    assert [chosen(text, choices) for text in ("(B) dog", "dog", "B", "b) dog")] == [1, 1, 1, 1]
    assert chosen("B. A minor", ("A. B minor", "B. A minor")) == 1
    # Single letters as choices: the text comes first, its place does not matter.
    assert chosen("A", ("B", "A")) == 1
    assert chosen("dog", ("dog", "Dog ")) is None


@pytest.mark.parametrize(
    ("prediction", "answer", "official", "strict", "letter"),
    [
        ("dog", "dog", RIGHT, RIGHT, RIGHT),
        (" DOG", "dog", RIGHT, RIGHT, RIGHT),
        ("a dog", "dog", RIGHT, WRONG, NONE),
        ("B", "dog", WRONG, WRONG, RIGHT),
        ("B", "B", RIGHT, RIGHT, RIGHT),
        ("dog", "B", WRONG, WRONG, RIGHT),
        ("cat", "dog", WRONG, WRONG, WRONG),
        ("something", "dog", WRONG, WRONG, NONE),
        ("  ", "dog", NONE, NONE, NONE),
        (None, "dog", NONE, NONE, NONE),
        ("dog", None, *[Outcome.UNSCORED] * 3),
    ],
)
def test_outcomes(
    prediction: str | None, answer: str | None, official: Outcome, strict: Outcome, letter: Outcome
) -> None:
    found = grade(prediction, answer, ("cat", "dog"))
    assert [found[rule] for rule in (Rule.OFFICIAL, Rule.STRICT, Rule.LETTER)] == [official, strict, letter]


@given(TEXT, st.lists(TEXT, max_size=4))
def test_strict_is_never_wrong_about_the_reference_itself(answer: str, choices: list[str]) -> None:
    outcome = grade(answer, answer, choices)[Rule.STRICT]
    assert outcome is (RIGHT if answer.strip() else NONE)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_intervals(pair: tuple[int, int]) -> None:
    right, total = pair
    known = binomtest(right, total).proportion_ci(0.95, "wilson")
    assert wilson(right, total) == pytest.approx((known.low, known.high), abs=1e-9)
    assert wilson(0, total).low == 0
    assert wilson(total, total).high == 1


def test_the_macro_interval_is_that_of_rows_drawn_again() -> None:
    groups = [(30, 40), (3, 9), (55, 60)]
    rng = np.random.default_rng(3)
    rows = [np.array([1] * right + [0] * (total - right)) for right, total in groups]
    means = [np.mean([rng.choice(row, len(row)).mean() for row in rows]) for _ in range(3000)]
    assert bootstrap_macro(groups) == pytest.approx(np.quantile(means, (0.025, 0.975)), abs=0.015)
    assert bootstrap_macro([*groups, (0, 0)]) == bootstrap_macro(groups)
    assert bootstrap_macro([(0, 0)]) is None
    assert bootstrap_macro([*groups, (1, 1)]) is None


def test_micro_and_macro_differ() -> None:
    rows = [_row(RIGHT, "sound")] * 9 + [_row(WRONG, "sound")] + [_row(WRONG, "music")] * 2
    card = scorecard(rows, Rule.OFFICIAL, ["modality", "missing"])
    assert card.overall.accuracy == 9 / 12
    assert card.breakdowns[0].macro == (0.9 + 0) / 2
    assert card.breakdowns[1].groups == {}
    assert card.breakdowns[1].macro is None


def test_what_failed_is_in_no_score() -> None:
    tally = Tally.count([RIGHT, NONE, Outcome.FAILED, Outcome.UNSCORED, Outcome.PENDING])
    assert (tally.total, tally.accuracy, tally.no_answer_rate) == (2, 0.5, 0.5)
    empty = Tally.count([Outcome.FAILED])
    assert (empty.accuracy, empty.interval, empty.no_answer_rate) == (None, None, None)
    assert Breakdown("x", {"a": empty}).macro is None


def test_controls() -> None:
    rows = [("yes", ("yes", "no")), ("b", ("a", "b", "c", "d")), (None, ("a", "b")), ("free text", ())]
    found = controls(rows, Rule.STRICT)
    assert (found.rows, found.first, found.random) == (2, 0.5, pytest.approx((1 / 2 + 1 / 4) / 2))
    assert controls([], Rule.STRICT).first is None


def _row(outcome: Outcome, modality: str) -> Graded:
    return Graded(dict.fromkeys(Rule, outcome), {"modality": modality})
