"""What is learned from a scene: answers stay right however their choices are worded."""

from __future__ import annotations

import math
import re

import numpy as np

from relisten.data.questions import make_examples
from relisten.data.scenes import make_scene
from relisten.data.timbres import LABELS
from relisten.data.wording import NAMES, NUMBERS
from relisten.protocol import parse_answer
from relisten.train.scratch.listening import conclude, reworded
from relisten.train.scratch.reading import recite

SAME_LABEL = {name: label for label, names in NAMES.items() for name, _ in names}


def plain(choice: str) -> str:
    """A reworded choice back in the simulator's words."""
    lower = choice[:1].lower() + choice[1:]
    return str(NUMBERS.index(lower)) if lower in NUMBERS else SAME_LABEL.get(lower, lower)


def test_reworded_choices_mean_the_same_and_the_answer_is_one_of_them() -> None:
    rng = np.random.default_rng(0)
    changed = left_out = 0
    for index in range(60):
        for example in make_examples(make_scene("train", 0, index), rng):
            target = reworded(example, rng)
            said = target.question.choices
            assert target.question.text == example.question.text
            assert target.response.startswith(example.response.split("<answer>")[0])
            answer = parse_answer(target.response)
            if not said:
                left_out += 1
                assert answer == example.question.answer
                continue
            changed += said != example.question.choices
            assert tuple(map(plain, said)) == tuple(map(plain, example.question.choices))
            assert answer == said[example.question.choices.index(example.question.answer or "")]
    assert left_out > 10
    assert changed > 30


def test_conclusions_are_drawn_from_what_is_said_to_be_heard() -> None:
    rng = np.random.default_rng(0)
    kinds, lengths = set(), []
    for index in range(40):
        for target in conclude(make_scene("train", 3, index), rng, 4):
            kinds.add(target.question.metadata["kind"])
            answer = target.question.answer
            assert parse_answer(target.response) == answer
            given = "".join(target.response[first:end] for first, end in target.given)
            behind = target.response[max(end for _, end in target.given) :]
            assert re.search(r"\d+\.\d (?:" + "|".join(LABELS) + ")", given)
            assert "<answer>" in behind
            assert not target.chooses
            told = re.search(r" (\d+\.\d) seconds", given)
            if target.question.metadata["kind"] == "duration" and told:
                choices = [float(choice.split()[0]) for choice in target.question.choices]
                told_length, right = float(told[1]), float(str(answer).split()[0])
                lengths.append(told_length / right)
                # The nearest choice is still the right one, up to the rounding to 0.1 s.
                assert abs(math.log(told_length / right)) <= 0.22 + 0.05 / min(told_length, right)
                assert right in choices
    assert kinds == {"before", "after", "duration", "longest_gap", "louder", "higher"}
    assert any(length != 1 for length in lengths)


def test_what_is_recited_stands_in_the_finding_and_is_not_given() -> None:
    rng = np.random.default_rng(0)
    quotes = 0
    for index in range(20):
        for target in recite(make_scene("train", 3, index), rng, 3):
            (line,) = target.question.findings
            given = "".join(target.response[first:end] for first, end in target.given)
            assert " tool " not in given
            assert not target.ends
            for quote in re.findall(r" tool (.*?)(?=,|$)", target.response):
                assert quote in line
                quotes += 1
    assert quotes > 100
