"""What is learned from a scene: answers stay right however their choices are worded."""

from __future__ import annotations

import numpy as np

from relisten.data.questions import make_examples
from relisten.data.scenes import make_scene
from relisten.data.wording import NAMES, NUMBERS
from relisten.protocol import parse_answer
from relisten.train.tasks import reworded

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
