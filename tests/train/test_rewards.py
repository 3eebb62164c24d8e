"""Every reward by hand, the released code's edge cases included."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from relisten.errors import InputError
from relisten.protocol import Finish, Format, Reason, Segment, Skip
from relisten.question import Question
from relisten.trace import GeneratedSpan, ListenSpan, PromptSpan, Span, Trace
from relisten.train.rewards import PARTS, SUMS, Reward, confidence, part

QUESTION = Question("How many?", ("12", "1", "two dogs"), answer="12", id="q")


def trace(
    pieces: Sequence[str],
    segments: Sequence[tuple[float, float]] = (),
    probabilities: Sequence[float] = (),
    finish: Finish = Finish.ANSWER,
    skipped: tuple[Skip, ...] = (),
) -> Trace:
    """An answer of one token a piece; listens stand behind the first pieces."""
    spans: list[Span] = [PromptSpan((1,), 0)]
    spans += [ListenSpan(Segment(*times), (7, 8, 9), 1) for times in segments]
    ends = [sum(map(len, pieces[: i + 1])) for i in range(len(pieces))]
    logprobs = tuple(math.log(p) for p in probabilities) or (0.0,) * len(pieces)
    spans.append(GeneratedSpan(tuple(range(len(pieces))), logprobs, "".join(pieces), tuple(ends)))
    return Trace("How many?", (), tuple(spans), finish, Format.INTERLEAVED, id="q", skipped=skipped)


def value(name: str, answer: Trace, question: Question = QUESTION) -> float:
    return PARTS[name](answer, question)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>a</think><answer>b</answer>", 0.5),
        ("x<think></think> y <answer></answer> z", 0.5),
        ("", 0.0),
        ("<think>a</think>", 0.0),
        ("<answer>b</answer>", 0.0),
        ("<think>a</think><answer>b", 0.0),
        ("<think>a</think><think>a</think><answer>b</answer>", 0.0),
        ("<think>a</think><answer>b</answer><answer>b</answer>", 0.0),
        ("<think>a<think>b</think><answer>c</answer>", 0.0),  # 0.5 in the released code
        ("<answer>b</answer><think>a</think>", 0.0),  # 0.5 there
        ("<think><answer>b</answer></think>", 0.0),  # 0.5 there
    ],
)
def test_format(text: str, expected: float) -> None:
    assert value("format", trace([text])) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no tag", 0.0),
        ("<seg>1, 2</seg> there are two", 0.0),
        ("<seg>1, 2</seg>, and", 0.0),
        ("<seg>1, 2</seg> 3 hits", 0.0),
        ("<seg>1, 2</seg>There", -0.1),
        ("<seg>1, 2</seg> There", -0.1),  # 0 in the released code, which looks at the space
        ("<seg>1, 2</seg>\nÜber", -0.1),
        ("<seg>1, 2</seg></think>", -0.1),
        ("<seg>1, 2</seg><seg>3, 4</seg> and", -0.1),
        ("<seg>1, 2</seg><seg>3, 4</seg></think>", -0.2),  # -0.1 there: it does not see the second tag
        ("<seg>one</seg>There", -0.1),  # 0 there: a malformed tag is none
        ("<seg>1, 2</seg>", 0.0),
        ("<seg>1, 2</seg>X" * 5, -0.5),
        ("<seg>1, 2</seg>X" * 9, -0.5),
    ],
)
def test_consistency(text: str, expected: float) -> None:
    assert value("consistency", trace([text])) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("<think></think><answer>12</answer>", True),
        ("<answer> 12\n</answer>", True),  # 0 in the released code for want of a think block
        ("<answer>1</answer>", False),
        ("<answer>123</answer>", False),
        ("<answer>12 or so</answer>", False),
        ("<answer></answer>", False),
        ("12", False),
        ("<answer>12</answer><answer>1</answer>", True),  # 0 there
        ("<answer>1</answer><answer>12</answer>", False),
    ],
)
def test_accuracy_and_segment(text: str, right: bool) -> None:
    assert value("accuracy", trace([text])) == (0.5 if right else 0.0)
    assert value("segment", trace([text])) == 0.0
    assert value("segment", trace([text], [(1, 2)])) == (0.5 if right else 0.0)


def test_case_and_white_space_of_the_answer_do_not_matter() -> None:
    question = Question("?", answer="two dogs")
    assert value("accuracy", trace(["<answer>Two  dogs</answer>"]), question) == 0.5
    assert value("accuracy", trace(["<answer>two dog</answer>"]), question) == 0.0


def test_a_tag_that_was_not_played_earns_nothing_but_may_be_cited() -> None:
    text = ["<think><seg>1, 2</seg> so</think><answer>12</answer>"]
    named = Skip("<seg>1, 2</seg>", Reason.NOT_INTERLEAVED, Segment(1, 2))
    outside = Skip("<seg>70, 80</seg>", Reason.OUTSIDE)
    assert value("segment", trace(text)) == 0.0  # 0.5 in the released code
    assert value("cited", trace(text, skipped=(named,))) == 0.5
    assert value("cited", trace(text, skipped=(outside,))) == 0.0
    assert value("cited", trace(text, [(1, 2)])) == 0.5
    assert value("cited", trace(["<answer>1</answer>"], [(1, 2)])) == 0.0


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ([], 0.0),
        ([(1, 3)], 0.5),
        ([(1, 3), (4, 5)], 0.5),
        ([(1, 3), (3, 5)], 0.5),
        ([(1, 3), (2, 4)], 0.5 * 3 / 4),
        ([(2, 4), (1, 3)], 0.5 * 3 / 4),
        ([(0, 6), (1, 2), (3, 5)], 0.5 * 6 / 9),
        ([(1, 3), (1, 3)], 0.25),
    ],
)
def test_non_overlap(segments: list[tuple[float, float]], expected: float) -> None:
    assert value("non_overlap", trace(["x"], segments)) == pytest.approx(expected)


RIGHT = ("<think>", "</think>", "<answer>", "1", "2", "</answer>")


@pytest.mark.parametrize(
    ("pieces", "answer", "decides"),
    [
        (RIGHT, "12", 3),  # right: its first token
        (("<answer>", " 12", "</answer>"), "12", 1),
        (("<answer>", " ", "12", "</answer>"), "12", 2),
        (("<answer>1", "2", "</answer>"), "12", 0),
        (RIGHT, "34", 3),  # wrong from its first token on
        (RIGHT, "13", 4),  # wrong from its second
        (RIGHT, "1", 4),  # goes on where the reference ends
        (RIGHT, "123", 5),  # ends where the reference goes on
        (("<answer>", "two", " cats", "</answer>"), "two dogs", 2),
        (("<answer>", "Two", " dogs", "</answer>"), "two dogs", 1),
        (("<think>", "12", "</think>", "<answer>", "", "12", "</answer>"), "12", 5),  # a token may have no text
    ],
)
def test_the_token_that_decides(pieces: tuple[str, ...], answer: str, decides: int) -> None:
    probabilities = [0.9] * len(pieces)
    probabilities[decides] = 0.25
    answered = trace(pieces, probabilities=probabilities)
    assert confidence(answered, Question("?", answer=answer)) == pytest.approx(0.25)


def test_the_token_that_decides_behind_a_listen() -> None:
    first = GeneratedSpan((1, 2), (-1.0, -2.0), "<think><seg>1, 2</seg>", (7, 22))
    second = GeneratedSpan((3, 4, 5), (-3.0, -0.5, -4.0), " so</think><answer>12</answer>", (19, 21, 30))
    spans = (PromptSpan((0,), 0), first, ListenSpan(Segment(1, 2), (7,), 1), second)
    answered = Trace("?", (), spans, Finish.ANSWER, Format.INTERLEAVED)
    assert confidence(answered, QUESTION) == pytest.approx(math.exp(-0.5))


@pytest.mark.parametrize(
    ("name", "answer", "heard", "expected"),
    [
        ("confident_accuracy", "12", 0, 0.5 * (1 - 0.64)),
        ("confident_accuracy", "34", 0, -0.5 * 0.04),
        ("linear_confident_accuracy", "12", 0, 0.1),
        ("linear_confident_accuracy", "34", 0, -0.1),
        ("confident_segment", "12", 0, 0.0),
        ("confident_segment", "12", 1, 0.18),
        ("confident_segment", "12", 3, 0.18),
        ("confident_segment", "34", 1, 0.0),
        ("confident_segment_of_2", "12", 1, 0.09),
        ("confident_segment_of_2", "12", 3, 0.18),
        ("confident_segment_of_3", "12", 1, 0.06),
        ("confident_segment_of_3", "12", 2, 0.12),
        ("confident_segment_of_3", "12", 8, 0.18),
    ],
)
def test_confidence_shapes_accuracy(name: str, answer: str, heard: int, expected: float) -> None:
    answered = trace(RIGHT, [(i, i + 1) for i in range(heard)], [0.9, 0.9, 0.9, 0.2, 0.9, 0.9])
    assert value(name, answered, Question("?", answer=answer)) == pytest.approx(expected)


def test_no_answer_has_no_confidence() -> None:
    for text in ("", "<answer>", "<answer> </answer>"):
        assert confidence(trace([text]), QUESTION) is None
        assert value("confident_accuracy", trace([text])) == 0.0
        assert value("linear_confident_accuracy", trace([text])) == 0.0


def test_confidence_needs_an_engine_that_tells_where_tokens_end() -> None:
    spans = (PromptSpan((0,), 0), GeneratedSpan((1,), (-1.0,), "<answer>12</answer>"))
    with pytest.raises(InputError, match="did not record"):
        confidence(Trace("?", (), spans, Finish.ANSWER, Format.TEXT), QUESTION)


GOOD = trace(
    ["<think>", "<seg>1, 3</seg>", " and", "<seg>2, 4</seg>", "So", "</think>", "<answer>", "12", "</answer>"],
    [(1, 3), (2, 4)],
    [0.9] * 7 + [0.2, 0.9],
)
"""format 0.5, consistency -0.1, accuracy 0.5, confident 0.18, two segments with 3/4 of their sum as union."""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("paper", 0.5 - 0.1 + 0.5 + 0.5),
        ("grounded", 0.5 - 0.1 + 0.5 + 0.5),
        ("multiturn_rl_1", 0.5 + 0.5 - 0.1),
        ("multiturn_rl_2", 0.5 + 0.5 + 0.5),
        ("multiturn_rl_3", 0.5 + 0.5 + 0.5 - 0.1),
        ("multiturn_rl_6", 0.5 + 0.18 + 0.18 - 0.1),
        ("multiturn_rl_10", 0.5 + 0.1),
        ("multiturn_rl_11", 0.5 + 0.18 + 0.18 - 0.1 + 0.375),
        ("multiturn_rl_12", 0.5 + 0.18 + 0.12 - 0.1 + 0.375),
        ("2*format - 0.5*accuracy + 1e-1*segment", 1.0 - 0.25 + 0.05),
        ("0.5*paper", 0.7),
        ("-format+accuracy", 0.0),
    ],
)
def test_sums(name: str, expected: float) -> None:
    assert Reward.parse(name)(GOOD, QUESTION).total == pytest.approx(expected)


def test_every_named_sum_is_tested_and_a_score_keeps_its_parts() -> None:
    assert set(SUMS) == {"paper", "grounded", *(f"multiturn_rl_{i}" for i in (1, 2, 3, 6, 10, 11, 12))}
    parts = Reward.parse("paper")(GOOD, QUESTION).parts
    assert parts == {"format": 0.5, "consistency": -0.1, "accuracy": 0.5, "segment": 0.5}


def test_a_bad_answer_by_the_papers_reward() -> None:
    answered = trace(["<think>A", "<seg>1, 3</seg>", "</think>"], [(1, 3)], finish=Finish.NO_ANSWER)
    assert Reward.parse("paper")(answered, QUESTION).total == pytest.approx(-0.1)


def test_own_parts_by_decorator_and_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relisten.train.rewards.PARTS", dict(PARTS))

    @part("brief")
    def brief(trace: Trace, question: Question) -> float:
        return 0.25 if len(trace.text) < 200 else 0.0

    (tmp_path / "my_rewards.py").write_text(
        "def length(trace, question):\n    return len(trace.listens)\nten = 10\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    reward = Reward.parse("accuracy + brief + 0.5*my_rewards:length")
    assert reward(GOOD, QUESTION).total == pytest.approx(0.5 + 0.25 + 1.0)
    assert reward(GOOD, QUESTION).parts["my_rewards:length"] == 2.0
    for wrong in ("my_rewards:none", "my_rewards:ten", "no_such_module:f"):
        with pytest.raises(InputError, match=wrong.split(":")[0]):
            Reward.parse(wrong)
    sys.modules.pop("my_rewards")


@pytest.mark.parametrize("text", ["", "nonsense", "format + ", "x*format", "format + format", "paper + format"])
def test_what_is_no_reward_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="reward"):
        Reward.parse(text)


@pytest.mark.parametrize("name", ["format", "paper", "two words", ""])
def test_a_taken_or_impossible_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="new name"):
        part(name)


def test_failed_answers_and_unknown_references_earn_nothing() -> None:
    reward = Reward.parse("paper")
    with pytest.raises(InputError, match="failed"):
        reward(trace(["x"], finish=Finish.FAILED), QUESTION)
    with pytest.raises(InputError, match="reference"):
        reward(GOOD, Question("?"))
    with pytest.raises(InputError, match="gave nan"):
        Reward((("mine", 1.0, lambda trace, question: math.nan),))(GOOD, QUESTION)
