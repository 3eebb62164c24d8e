"""Who is right, by three rules, and what follows for a whole set of rows. Pure: no file, no model.

| rule | a prediction is right when |
|---|---|
| `official` | it has every word of the reference and no word of wrong choices only: the MMAU and MMAR scripts |
| `strict` | it is the reference, but for case and white space |
| `letter` | it names the right choice by letter ("B", "(B)", "B. Open sea"), or is that choice's text |

There is no fallback: what a rule cannot read is `NO_ANSWER`, never the first choice and never a guess.

| outcome | counts in the total | as right |
|---|---|---|
| `right` | yes | yes |
| `wrong` | yes | no |
| `no_answer`: nothing between the answer tags, or nothing that the rule can read | yes | no |
| `failed`: the question could not be asked (missing sound, broken row, an engine's error) | no, and it is named | |
| `unscored`: there is no reference answer | no | |
| `pending`: not asked yet | no | |
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from string import ascii_uppercase
from typing import Final, NamedTuple

import numpy as np

from relisten.protocol import same_answer

_WORD: Final = re.compile(r"\b\w+\b")
_GAP: Final = re.compile(r"\W")
_PIECE: Final = 1 << 20
_NO_SPACE: Final = re.compile(r"\S+")
_BARE_LETTER: Final = re.compile(r"\W*([A-Za-z])\W*")
_LABEL: Final = re.compile(r"\s*(?:[(\[<{]\s*([A-Za-z])\s*[)\]>}]\s*[.:]?|([A-Za-z])\s*[).:\]])\s*")
_Z95: Final = 1.959963984540054
_RESAMPLES: Final = 4000


class Rule(StrEnum):
    """A way to tell whether a prediction is right; see the module's table."""

    OFFICIAL = "official"
    STRICT = "strict"
    LETTER = "letter"


class Outcome(StrEnum):
    """What became of a row; see the module's table."""

    RIGHT = "right"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    FAILED = "failed"
    UNSCORED = "unscored"
    PENDING = "pending"


Outcomes = Mapping[Rule, Outcome]


# One prediction


def string_match(answer: str, prediction: str, choices: Iterable[str]) -> bool:
    """The rule of the MMAU and MMAR scripts.

    With A, P the sets of lower-case words of reference and prediction, and I the words of all choices whose set of
    words is not A, without A: right when P is not empty, A is part of P, and P shares nothing with I. Two choices
    that have the same words in another order are the same to it.
    """
    wanted = set(_WORD.findall(answer.lower()))
    excluded: set[str] = set()
    for choice in choices:
        words = set(_WORD.findall(choice.lower()))
        if words != wanted:
            excluded |= words - wanted
    missing, empty = set(wanted), True
    for said in _word_sets(prediction.lower()):
        if not said.isdisjoint(excluded):
            return False
        missing -= said
        empty = empty and not said
    return not empty and not missing


def _word_sets(text: str) -> Iterator[set[str]]:
    """The words of a text, which may be as long as a file, some at a time."""
    begin = 0
    while begin < len(text):
        gap = _GAP.search(text, begin + _PIECE)
        end = gap.end() if gap is not None else len(text)
        yield set(_WORD.findall(text, begin, end))
        begin = end


def chosen(prediction: str, choices: Sequence[str]) -> int | None:
    """The index of the choice that a prediction names: by a letter, by a letter and that choice's text, or by a
    text that only that choice has. None where it names none, several, or a letter with another choice's text."""
    texts = [_without_label(choice, number) for number, choice in enumerate(choices)]
    same = [number for number, text in enumerate(texts) if same_answer(prediction, text)]
    same = same or [number for number, choice in enumerate(choices) if same_answer(prediction, choice)]
    if same:
        return same[0] if len(same) == 1 else None
    bare = _BARE_LETTER.fullmatch(prediction)
    if bare is not None:
        return _letter_index(bare[1], len(choices))
    label = _LABEL.match(prediction)
    if label is None:
        return None
    number = _letter_index(label[1] or label[2], len(choices))
    return number if number is not None and same_answer(prediction[label.end() :], texts[number]) else None


def grade(prediction: str | None, answer: str | None, choices: Sequence[str]) -> dict[Rule, Outcome]:
    """The outcome of one prediction by every rule. None, or nothing but white space, is no answer."""
    if answer is None:
        return dict.fromkeys(Rule, Outcome.UNSCORED)
    if prediction is None or not prediction.strip():
        return dict.fromkeys(Rule, Outcome.NO_ANSWER)
    outcomes = {
        Rule.OFFICIAL: _right(string_match(answer, prediction, choices)),
        Rule.STRICT: Outcome.WRONG,
        Rule.LETTER: Outcome.NO_ANSWER if choices else Outcome.WRONG,
    }
    # What is far longer than all it could be compared with is none of that.
    short = _squeezed(prediction, 1000 + 4 * max(len(text) for text in (answer, *choices)))
    if short is None:
        return outcomes
    outcomes[Rule.STRICT] = _right(same_answer(short, answer))
    if not choices:
        outcomes[Rule.LETTER] = outcomes[Rule.STRICT]
    elif (named := chosen(short, choices)) is not None:
        outcomes[Rule.LETTER] = _right(named == chosen(answer, choices))
    return outcomes


def _right(right: bool) -> Outcome:
    return Outcome.RIGHT if right else Outcome.WRONG


def _squeezed(text: str, length: int) -> str | None:
    """The text with single spaces; None where that is longer than `length`, without looking at the rest."""
    words, total = [], 0
    for match in _NO_SPACE.finditer(text):
        total += len(match[0]) + 1
        if total > length:
            return None
        words.append(match[0])
    return " ".join(words)


def _letter_index(letter: str, count: int) -> int | None:
    number = ascii_uppercase.index(letter.upper())
    return number if number < count else None


def _without_label(choice: str, number: int) -> str:
    """A choice without its own letter, where the list spells it out: "(B) Dog" as the second becomes "Dog"."""
    label = _LABEL.match(choice)
    if label is None or label.end() == len(choice) or number >= len(ascii_uppercase):
        return choice
    own = (label[1] or label[2]).upper() == ascii_uppercase[number]
    return choice[label.end() :] if own else choice


# Many rows


class Interval(NamedTuple):
    """A 95 % interval of an accuracy."""

    low: float
    high: float


@dataclass(frozen=True)
class Graded:
    """A row as scoring sees it: its outcome by every rule, and its value in every breakdown it has part in."""

    outcomes: Outcomes
    groups: Mapping[str, str]


@dataclass(frozen=True)
class Tally:
    """How many rows had which outcome."""

    right: int = 0
    wrong: int = 0
    no_answer: int = 0
    failed: int = 0
    unscored: int = 0
    pending: int = 0

    @classmethod
    def count(cls, outcomes: Iterable[Outcome]) -> Tally:
        counts = Counter(outcomes)
        return cls(**{str(outcome): counts[outcome] for outcome in Outcome})

    @property
    def total(self) -> int:
        """Rows that were asked and have a reference."""
        return self.right + self.wrong + self.no_answer

    @property
    def accuracy(self) -> float | None:
        """Right among `total`; None where there is none."""
        return self.right / self.total if self.total else None

    @property
    def no_answer_rate(self) -> float | None:
        return self.no_answer / self.total if self.total else None

    @property
    def interval(self) -> Interval | None:
        """Wilson's score interval of the accuracy."""
        return wilson(self.right, self.total) if self.total else None


@dataclass(frozen=True)
class Breakdown:
    """Tallies by the value of one key, and their unweighted mean."""

    key: str
    groups: Mapping[str, Tally]

    @property
    def macro(self) -> float | None:
        """Mean of the groups' accuracies, each group alike whatever its size."""
        found = [tally.accuracy for tally in self.groups.values() if tally.accuracy is not None]
        return sum(found) / len(found) if found else None

    @property
    def macro_interval(self) -> Interval | None:
        """Bootstrap interval of `macro`: rows drawn again within each group."""
        return bootstrap_macro([(tally.right, tally.total) for tally in self.groups.values()])


@dataclass(frozen=True)
class Scorecard:
    """All that one rule says about a set of rows."""

    rule: Rule
    overall: Tally
    breakdowns: tuple[Breakdown, ...]


def scorecard(rows: Sequence[Graded], rule: Rule, keys: Sequence[str]) -> Scorecard:
    """Tallies over all rows and by every key of `keys`; a row without a key has no part in that breakdown."""
    breakdowns = []
    for key in keys:
        outcomes: dict[str, list[Outcome]] = {}
        for row in rows:
            if key in row.groups:
                outcomes.setdefault(row.groups[key], []).append(row.outcomes[rule])
        groups = {value: Tally.count(found) for value, found in sorted(outcomes.items())}
        breakdowns.append(Breakdown(key, groups))
    return Scorecard(rule, Tally.count(row.outcomes[rule] for row in rows), tuple(breakdowns))


def wilson(right: int, total: int) -> Interval:
    """Wilson's 95 % score interval of `right` among `total` > 0."""
    share, z2 = right / total, _Z95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    # At the ends the bounds are exact, whatever rounding says.
    return Interval(centre - half if right else 0.0, centre + half if right < total else 1.0)


def bootstrap_macro(groups: Sequence[tuple[int, int]], seed: int = 0) -> Interval | None:
    """95 % percentile interval of the mean of right / total over groups; groups without a row are left out. None
    where there is no other, or one of a single row, which drawn again is always itself.

    Drawing n rows again from a group with r right ones is a binomial draw, so that no row is touched.
    """
    counts = np.array([pair for pair in groups if pair[1] > 0])
    if not len(counts) or counts[:, 1].min() == 1:
        return None
    right, total = counts.T
    draws = np.random.default_rng(seed).binomial(total, right / total, size=(_RESAMPLES, len(counts))) / total
    low, high = np.quantile(draws.mean(1), (0.025, 0.975))
    return Interval(float(low), float(high))


# Controls


@dataclass(frozen=True)
class Controls:
    """What needs no ear, over the rows that have choices and a reference. None where there is no such row."""

    rows: int
    first: float | None
    """Accuracy of always giving the first choice."""
    random: float | None
    """Expected accuracy of giving any choice by chance."""


def controls(rows: Iterable[tuple[str | None, Sequence[str]]], rule: Rule) -> Controls:
    """Controls for rows of (reference, choices); exact, nothing is drawn."""
    firsts, chances = [], []
    for answer, choices in rows:
        if answer is None or not choices:
            continue
        right = [grade(choice, answer, choices)[rule] is Outcome.RIGHT for choice in choices]
        firsts.append(float(right[0]))
        chances.append(sum(right) / len(right))
    count = len(firsts)
    if not count:
        return Controls(0, None, None)
    return Controls(count, sum(firsts) / count, sum(chances) / count)
