"""Questions about scenes must come out as they always have: a model was trained on them.

The scenes here are imagined, not rendered, so that only the questions, the answers, the reasoning and the random
numbers they draw are locked. If this fails, the training data of echo-tiny has changed: retrain it, or mend the
code.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np

from relisten.audio import SAMPLE_RATE, Clip
from relisten.data.questions import make_examples
from relisten.data.scenes import Event, Scene
from relisten.data.timbres import LABELS

SUSTAINED = ("low beep", "high beep", "chirp", "noise burst", "voice", "chord")


def imagined(index: int) -> Scene:
    """Scene `index`, of plain arithmetic on integers: it never changes with a library's random numbers."""
    state = index * 2_654_435_761 % 2**32

    def draw(low: float, high: float) -> float:
        nonlocal state
        state = (state * 1_664_525 + 1_013_904_223) % 2**32
        return round(low + (high - low) * state / 2**32, 4)

    seconds = round(draw(4, 12), 1)
    names = [LABELS[int(draw(0, len(LABELS)))] for _ in range(int(draw(2, 6)))]
    onset = draw(0.05, 0.5)
    events = []
    while onset < seconds - 0.2 and len(events) < 16:
        label = names[int(draw(0, len(names)))]
        level = draw(-30, -5)
        events.append(
            Event(
                onset=onset,
                offset=min(seconds, round(onset + draw(0.05, 1.5), 4)),
                label=label,
                pitch=draw(200, 400) if label.endswith(("beep", "bell")) else None,
                level=level,
                weighted_level=level + draw(-3, 3),
                sustained=label in SUSTAINED,
            )
        )
        onset = round(onset + draw(0.1, 1.6), 4)
    clip = Clip(np.zeros(int(seconds * SAMPLE_RATE), np.float32), f"train-0-{index}")
    return Scene(clip, tuple(events), "train", index)


def test_examples_of_scenes_never_change() -> None:
    digest = hashlib.sha256()
    made = 0
    for index in range(50):
        for example in make_examples(imagined(index), np.random.default_rng(index), per_scene=9):
            question = example.question
            row = (question.id, question.text, question.choices, question.answer, example.kind, example.response)
            digest.update(json.dumps(row).encode())
            made += 1
    assert made == 450
    assert digest.hexdigest() == "2cac73e38b21be03e41557844773e85ff01bdd93f26dfe430c06da2ebd8e3684"
