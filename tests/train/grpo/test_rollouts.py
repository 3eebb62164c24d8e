"""Groups of answers: in order, each with a seed of its own, failures kept apart. And what a step tells of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.sounds import noise_clip

from relisten.audio import Clip
from relisten.engines.scripted import ScriptedEngine, ScriptedStream
from relisten.protocol import Finish, Format
from relisten.question import Question
from relisten.trace import Sampling, Trace
from relisten.train.grpo.config import GrpoConfig
from relisten.train.grpo.rollouts import Rollout, roll_out
from relisten.train.grpo.step_stats import answers_stats, validation_stats, warnings
from relisten.train.rewards import Reward

RIGHT = "<think>so <seg>0.5, 1.5</seg> and <seg>1.0, 2.0</seg> two</think><answer>2</answer>"
WRONG = "<think>Two words</think><answer>3</answer>"
CONFIG = GrpoConfig("model", "questions.jsonl")


class Engine(ScriptedEngine):
    """Remembers what it was asked."""

    def __init__(self, script: Callable[[Question], str]) -> None:
        super().__init__(script)
        self.opened: list[tuple[str, Clip, int | None]] = []

    def open(self, question: Question, clip: Clip, format: Format, sampling: Sampling) -> ScriptedStream:
        self.opened.append((question.id, clip, sampling.seed))
        return super().open(question, clip, format, sampling)


def ask(
    engine: ScriptedEngine, questions: list[Question], count: int = 3, **options: object
) -> list[list[Rollout]]:
    given: dict[str, object] = {"format": Format.INTERLEAVED, "sampling": Sampling(1.0), "seed": (7, 0, 2)}
    given["reward"] = Reward.parse("paper")
    return roll_out(engine, questions, count, **(given | options))  # type: ignore[arg-type]


def question(name: str, **options: object) -> Question:
    values: dict[str, object] = {"audio": noise_clip(3.0), "answer": "2", "id": name, "metadata": {"kind": name}}
    return Question("How many?", **(values | options))  # type: ignore[arg-type]


def script(asked: Question) -> str:
    if asked.id == "breaks":
        raise RuntimeError("out of memory")
    return RIGHT if asked.id == "right" else WRONG


def test_groups_come_in_order_and_share_one_clip_read_once(tmp_path: Path) -> None:
    from relisten.audio import write_clip

    write_clip(tmp_path / "a.wav", noise_clip(3.0))
    engine = Engine(script)
    counted: list[int] = []
    asked = [question("right", audio=tmp_path / "a.wav"), question("wrong")]
    groups = ask(engine, asked, on_answer=lambda: counted.append(1))
    assert [[one.trace.id for one in group] for group in groups] == [["right"] * 3, ["wrong"] * 3]
    assert [group[0].score and group[0].score.total for group in groups] == [1.5, 0.5]
    assert len(counted) == 6
    assert len({id(clip) for name, clip, _ in engine.opened if name == "right"}) == 1
    assert all(one.clip is groups[0][0].clip for one in groups[0])
    assert groups[0][0].question is asked[0]


def test_what_tools_found_is_read_in_training_as_everywhere() -> None:
    [[one, _]] = ask(Engine(script), [question("right", findings=("[onsets] 2 at 0.1 s, 1.4 s",))], count=2)
    assert one.trace.findings == ("[onsets] 2 at 0.1 s, 1.4 s",)


def test_every_answer_has_a_seed_that_nothing_but_its_place_decides() -> None:
    def seeds(**options: object) -> list[int | None]:
        engine = Engine(script)
        ask(engine, [question("right"), question("wrong")], **options)
        return [seed for _, _, seed in engine.opened]

    first = seeds()
    assert len(set(first)) == 6
    assert seeds() == first
    assert set(seeds(seed=(7, 0, 3))).isdisjoint(first)
    assert seeds(count=2) == [*first[:2], *first[3:5]]
    engine = Engine(script)
    ask(engine, [question("wrong")], places=[1])  # as another process would ask its share
    assert [seed for _, _, seed in engine.opened] == first[3:]


def test_failures_have_no_score_and_stop_nothing(tmp_path: Path) -> None:
    asked = [question("gone", audio=tmp_path / "none.wav"), question("breaks"), question("right")]
    gone, breaks, right = ask(Engine(script), asked)
    assert all(one.score is None and one.clip is None for one in gone)
    assert all(one.score is None and one.trace.finish is Finish.FAILED for one in breaks)
    assert all(one.score is not None for one in right)
    told = gone[0].to_json(full=False)
    assert told["earned"] is None
    assert "none.wav" in told["error"]
    assert told["reference"] == "2"
    full = right[0].to_json(full=True)
    assert full["spans"][0]["kind"] == "prompt"
    assert full["earned"] == {
        "reward": 1.5,
        "format": 0.5,
        "consistency": 0.0,
        "accuracy": 0.5,
        "segment": 0.5,
    }


def picky(trace: Trace, question: Question) -> float:
    return 1.0 if trace.answer == "2" else 1 / 0 if question.id == "wrong" else math.nan


def test_an_answer_that_cannot_be_scored_is_left_out_and_told() -> None:
    reward = Reward.parse(f"accuracy + {__name__}:picky")
    asked = [question("right"), question("wrong"), question("other")]
    right, wrong, other = ask(Engine(script), asked, reward=reward)
    assert all(one.score is not None and one.error is None for one in right)
    assert all(one.score is None and one.trace.finish is Finish.ANSWER for one in (*wrong, *other))
    told = wrong[0].to_json(full=False)
    assert told["earned"] is None
    assert "picky failed for question 'wrong': ZeroDivisionError" in told["error"]
    assert "picky gave nan" in other[0].to_json(full=True)["error"]
    assert answers_stats([*right, *wrong], max_listens=2)["failed"] == 3


def test_numbers_of_a_step_by_hand() -> None:
    asked = [question("right"), question("wrong"), question("breaks")]
    everyone = [one for group in ask(Engine(script), asked, count=2) for one in group]
    found = answers_stats(everyone, max_listens=2)
    assert found["reward"] == pytest.approx(1.0)
    assert found["reward_accuracy"] == pytest.approx(0.25)
    assert found["right"] == 0.5
    assert found["answered"] == 1.0
    assert found["unfinished"] == 0.0
    assert found["listens"] == 1.0
    assert found["listens_none"] == 0.5
    assert found["listens_full"] == 0.5
    assert found["segment_seconds"] == pytest.approx(1.0)
    assert found["overlap"] == pytest.approx(1 - 1.5 / 2)
    assert found["tokens"] == (len(RIGHT) + len(WRONG)) / 2 + 1  # one a character, and the end of turn
    assert found["failed"] == 2
    validated = validation_stats(everyone, max_listens=2)
    assert validated["val_right_right"] == 1.0
    assert validated["val_right_wrong"] == 0.0
    assert "val_right_breaks" not in validated
    assert answers_stats([], 8)["reward"] == 0.0


GOOD = {
    "listens_none": 0.1,
    "listens_full": 0.0,
    "unfinished": 0.0,
    "groups": 10,
    "groups_even": 4,
    "failed": 0,
    "gap_max": 1e-5,
    "clip_share": 0.01,
}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"listens_none": 0.95}, "hardly any answer listens"),
        ({"listens_full": 0.6}, "as often as they may"),
        ({"unfinished": 0.6}, "cut off"),
        ({"groups_even": 9}, "teaches nothing"),
        ({"failed": 1}, "failed"),
        ({"gap_max": 1e-3}, "differ"),
        ({"clip_share": 0.4}, "clipped"),
    ],
)
def test_what_should_worry_is_told(change: dict[str, float], says: str) -> None:
    assert warnings(GOOD, CONFIG, exact=True) == []
    [warning] = warnings(GOOD | change, CONFIG, exact=True)
    assert says in warning


def test_answers_that_need_not_listen_are_no_worry() -> None:
    assert warnings(GOOD | {"listens_full": 1.0}, replace(CONFIG, max_listens=1), exact=True) == []
    assert warnings(GOOD | {"listens_none": 1.0}, replace(CONFIG, format=Format.GROUNDED), exact=True) == []
    assert warnings(GOOD | {"gap_max": 0.1}, CONFIG, exact=False) == []


def test_another_engine_must_have_the_weights_in_training() -> None:
    assert warnings(GOOD | {"gap_mean": 0.03}, CONFIG, exact=False) == []
    [warning] = warnings(GOOD | {"gap_mean": 0.3}, CONFIG, exact=False)
    assert "the weights in training" in warning
