"""The protocol's table, row by row, and what must hold for any text."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relisten.errors import InputError
from relisten.protocol import (
    Finish,
    Format,
    Interleaver,
    Listen,
    Reason,
    Segment,
    Skip,
    Stop,
    parse_answer,
    same_answer,
    split_at_listens,
    system_prompt,
    user_text,
)
from relisten.question import Question

DURATION = 10.0


def decide(text: str, **options: object) -> list[object]:
    return list(Interleaver(DURATION, **options).feed(text))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tag", "segment"),
    [
        ("<seg>3.0, 5.0</seg>", Segment(3, 5)),
        ("<seg>3,5</seg>", Segment(3, 5)),
        ("<seg>  3.25 ,\n5 </seg>", Segment(3.25, 5)),
        ("<seg>-1, 2</seg>", Segment(0, 2)),
        ("<seg>8, 99</seg>", Segment(8, 10)),
        ("<seg>1.0, 1.2</seg>", Segment(1.0, 1.2)),
        ("<seg>1, <seg>2, 3</seg>", Segment(2, 3)),
        ("<seg>not yet <think><seg>2, 3</seg>", Segment(2, 3)),
    ],
)
def test_listens(tag: str, segment: Segment) -> None:
    assert decide(tag) == [Listen(segment)]


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        ("<seg>5, 3</seg>", Reason.REVERSED),
        ("<seg>3, 3</seg>", Reason.TOO_SHORT),
        ("<seg>3, 3.19</seg>", Reason.TOO_SHORT),
        ("<seg>9.9, 99</seg>", Reason.TOO_SHORT),
        ("<seg>10, 12</seg>", Reason.OUTSIDE),
        ("<seg>-5, -1</seg>", Reason.OUTSIDE),
        ("<seg>-5, 0</seg>", Reason.OUTSIDE),
        ("<seg>99999999999999999999, 9e9</seg>", Reason.MALFORMED),
        (f"<seg>{'9' * 500}, {'9' * 501}</seg>", Reason.OUTSIDE),
        ("<seg>1e3, 2e3</seg>", Reason.MALFORMED),
        ("<seg>0:01, 0:03</seg>", Reason.MALFORMED),
        ("<seg>1 s, 3 s</seg>", Reason.MALFORMED),
        ("<seg>one, three</seg>", Reason.MALFORMED),
        ("<seg>nan, inf</seg>", Reason.MALFORMED),
        ("<seg>١, ٣</seg>", Reason.MALFORMED),  # digits, but not ours
        ("<seg>1, 2, 3</seg>", Reason.MALFORMED),
        ("<seg>1</seg>", Reason.MALFORMED),
        ("<seg></seg>", Reason.MALFORMED),
        ("</seg>", Reason.MALFORMED),
        ("<answer><seg>1, 3</seg>", Reason.IN_ANSWER),
        ("<answer>2</answer> <seg>1, 3</seg>", Reason.IN_ANSWER),
    ],
)
def test_skips(tag: str, reason: Reason) -> None:
    (event,) = decide(tag)
    assert isinstance(event, Skip)
    assert event.reason is reason


def test_an_unclosed_tag_decides_nothing() -> None:
    assert decide("<think>so <seg>1.0, 3.0 and then <answer>") == []


def test_hearing_twice_is_allowed_and_the_ninth_time_is_over_the_limit() -> None:
    events = decide("<seg>1, 3</seg>" * 10)
    assert (
        events
        == [Listen(Segment(1, 3))] * 8
        + [
            Skip("<seg>1, 3</seg>", Reason.OVER_LIMIT, Segment(1, 3)),
        ]
        * 2
    )
    assert decide("<seg>1, 3</seg>" * 2, max_listens=1)[1:] == [
        Skip("<seg>1, 3</seg>", Reason.OVER_LIMIT, Segment(1, 3))
    ]
    assert not any(isinstance(event, Listen) for event in decide("<seg>1, 3</seg>", max_listens=0))


def test_skipped_tags_do_not_count_towards_the_limit() -> None:
    events = decide("<seg>3, 1</seg>" * 20 + "<seg>1, 3</seg>")
    assert events[-1] == Listen(Segment(1, 3))


def test_only_the_interleaved_format_listens() -> None:
    text = "<think><seg>1, 3</seg>"
    assert decide(text, format=Format.TEXT) == []
    assert decide(text, format=Format.GROUNDED) == [Skip("<seg>1, 3</seg>", Reason.NOT_INTERLEAVED, Segment(1, 3))]
    assert decide(text, format=Format.INTERLEAVED) == [Listen(Segment(1, 3))]


@pytest.mark.parametrize(
    ("text", "finish"),
    [
        ("<think>a</think><answer>2</answer>", Finish.ANSWER),
        ("<answer>2</answer> and more", Finish.ANSWER),
        ("<answer> </answer>", Finish.NO_ANSWER),
        ("<answer>2", Finish.NO_ANSWER),
        ("2</answer>", Finish.NO_ANSWER),
        ("<answer></answer> oh <answer>3</answer>", Finish.NO_ANSWER),
        ("", Finish.NO_ANSWER),
    ],
)
def test_end_of_turn(text: str, finish: Finish) -> None:
    interleaver = Interleaver(DURATION)
    assert interleaver.feed(text, tokens=3, end_of_turn=True)[-1] == Stop(finish)
    assert interleaver.finish is finish
    assert interleaver.feed("<seg>1, 3</seg>", end_of_turn=True) == ()


@given(text=st.lists(st.sampled_from(["<answer>", "</answer>", "<seg>", "2", " "]), max_size=9).map("".join))
def test_an_answer_is_told_exactly_where_one_is_read(text: str) -> None:
    interleaver = Interleaver(DURATION)
    interleaver.feed(text, end_of_turn=True)
    assert (interleaver.finish is Finish.ANSWER) == (parse_answer(text) is not None)


def test_the_token_budget_stops_an_answer_that_does_not_end() -> None:
    interleaver = Interleaver(DURATION, max_tokens=3)
    assert interleaver.feed("<answer>2</answer>", tokens=2) == ()
    assert interleaver.feed("x", tokens=1) == (Stop(Finish.LENGTH),)
    assert Interleaver(DURATION, max_tokens=3).feed("a", tokens=3, end_of_turn=True) == (Stop(Finish.NO_ANSWER),)


MARKS = [
    "<seg>",
    "</seg>",
    "<answer>",
    "</answer>",
    "<think>",
    "</think>",
    "1.5",
    "4",
    ", ",
    "-",
    "<",
    "e",
    "\n",
    "é",
]
texts = st.lists(st.sampled_from(MARKS) | st.text(max_size=4), max_size=40).map("".join)
durations = st.floats(0.05, 40)


@given(
    text=texts, cuts=st.lists(st.integers(0, 200), max_size=12), duration=durations, format=st.sampled_from(Format)
)
def test_any_split_decides_the_same(text: str, cuts: list[int], duration: float, format: Format) -> None:
    whole = Interleaver(duration, format=format)
    expected = whole.feed(text) + whole.feed(end_of_turn=True)
    split = Interleaver(duration, format=format)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    events = [event for a, b in itertools.pairwise(edges) for event in split.feed(text[a:b])]
    assert (*events, *split.feed(end_of_turn=True)) == expected


@given(text=texts, duration=durations, limit=st.integers(0, 4))
def test_every_listen_is_audible_and_inside_the_clip(text: str, duration: float, limit: int) -> None:
    listens = [e.segment for e in Interleaver(duration, max_listens=limit).feed(text) if isinstance(e, Listen)]
    assert len(listens) <= limit
    for segment in listens:
        assert 0 <= segment.start < segment.end <= duration
        assert segment.duration >= 0.2 - 1e-4  # to within a sample


@given(text=texts, duration=durations)
def test_splitting_loses_nothing_and_cuts_where_an_engine_would_listen(text: str, duration: float) -> None:
    parts = split_at_listens(text, duration)
    assert "".join(part for part in parts if isinstance(part, str)) == text
    listens = [event.segment for event in Interleaver(duration).feed(text) if isinstance(event, Listen)]
    assert [part for part in parts if isinstance(part, Segment)] == listens
    for before, part in itertools.pairwise(parts):
        if isinstance(part, Segment):
            assert isinstance(before, str)
            assert before.endswith("</seg>")


@given(st.floats(0, 1e4), st.floats(0.21, 100))
def test_a_segment_reads_back_from_its_own_tag(start: float, length: float) -> None:
    segment = Segment(start, start + length)
    (event,) = Interleaver(segment.end + 1).feed(segment.text())
    assert isinstance(event, Listen)
    assert event.segment.start == pytest.approx(segment.start, abs=0.0051)
    assert event.segment.end == pytest.approx(segment.end, abs=0.0051)


def test_segment_text() -> None:
    assert Segment(3, 5).text() == "<seg>3.0, 5.0</seg>"
    assert Segment(0.25, 12.5).text() == "<seg>0.25, 12.5</seg>"


@pytest.mark.parametrize("times", [(-1, 2), (2, 2), (3, 2), (float("nan"), 1), (0, float("inf"))])
def test_a_segment_out_of_order_is_refused(times: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="0 <= start < end"):
        Segment(*times)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>x</think><answer> two hits </answer>", "two hits"),
        ("<answer>a</answer><answer>b</answer>", "a"),
        ("<answer></answer>", None),
        ("<answer>a", None),
        ("a", None),
    ],
)
def test_parse_answer(text: str, answer: str | None) -> None:
    assert parse_answer(text) == answer


def test_same_answer_never_takes_a_part_for_the_whole() -> None:
    assert same_answer(" Snare  Drum", "snare drum")
    assert not same_answer("1", "12")
    assert not same_answer(None, "")


def test_prompts() -> None:
    assert "<seg>" not in system_prompt(Format.TEXT)
    assert "<seg>start, end</seg>" in system_prompt(Format.GROUNDED)
    assert len({system_prompt(format) for format in Format}) == 3
    assert user_text(Question("How many?", ("1", "2"))) == "How many?\nChoices:\n- 1\n- 2"
    assert user_text(Question("How many?")) == "How many?"
    found = Question("How many?", ("1", "2"), findings=("[onsets] 2 onsets", "[pitch] no note"))
    assert user_text(found) == (
        "How many?\nChoices:\n- 1\n- 2\n"
        "Found by audio tools, which can be wrong:\n[onsets] 2 onsets\n[pitch] no note"
    )


@pytest.mark.parametrize(
    ("start", "end", "widened"),
    [(0.5, 1.5, (0, 2)), (2, 4, (2, 4)), (3.9, 4.1, (2, 6)), (5, 9.9, (4, 9.9)), (1.99999, 6.00001, (2, 6))],
)
def test_a_segment_is_widened_to_a_grid(start: float, end: float, widened: tuple[float, float]) -> None:
    assert Segment(start, end).widened(2.0, 9.9) == Segment(*widened)
