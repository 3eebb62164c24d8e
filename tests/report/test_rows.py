"""Entries of the page's list: which rows belong together, and responses cut at their tags."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.simulated_runs import CONFIG, make_run, make_trace, noise_questions

from relisten.audio import Clip
from relisten.evaluate.scoring import Rule
from relisten.protocol import Format
from relisten.question import Question
from relisten.report.rows import LONGEST, Entry, entry_json, merge, parts
from relisten.trace import Routing, Trace

CLIP = Clip(np.zeros(16_000 * 10, np.float32))


def cut(text: str, **changes: object) -> list[object]:
    trace = make_trace(Question("q", audio=CLIP), text, config=replace(CONFIG, **changes))  # type: ignore[arg-type]
    return list(parts(trace))


def test_a_tag_that_was_played_has_its_number_and_times() -> None:
    assert cut("a <seg>1, 2.5</seg> b <seg>9.0, 12</seg>.") == [
        "a ",
        {"tag": "<seg>1, 2.5</seg>", "start": 1.0, "end": 2.5, "listen": 1},
        " b ",
        {"tag": "<seg>9.0, 12</seg>", "start": 9.0, "end": 10.0, "listen": 2},
        ".",
    ]


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("<seg>x</seg>", {"tag": "<seg>x</seg>", "skip": "malformed"}),
        ("</seg>", {"tag": "</seg>", "skip": "malformed"}),
        ("<seg>5, 1</seg>", {"tag": "<seg>5, 1</seg>", "skip": "reversed"}),
        ("<answer><seg>1, 2</seg>", {"tag": "<seg>1, 2</seg>", "skip": "in_answer"}),
    ],
)
def test_a_tag_that_was_not_played_says_why(text: str, tag: dict[str, object]) -> None:
    assert cut(text)[-1] == tag


def test_a_cited_segment_keeps_its_times() -> None:
    cited = {"tag": "<seg>1, 2</seg>", "start": 1.0, "end": 2.0, "skip": "not_interleaved"}
    assert cut("<seg>1, 2</seg>", format=Format.GROUNDED) == [cited]
    assert cut("<seg>1, 2</seg>", format=Format.TEXT) == [{"tag": "<seg>1, 2</seg>"}]


@pytest.mark.parametrize(
    "text", ["", "<seg>", "a<seg>b<seg>1, 2</seg></seg>c", "<seg>" * 50, "\n<seg>1,\n2</seg>\n"]
)
def test_joined_parts_are_the_response(text: str) -> None:
    joined = "".join(part if isinstance(part, str) else str(part["tag"]) for part in parts(trace_of(text)))
    assert joined == text


def test_an_endless_response_is_cut() -> None:
    text = "<think>" + "again " * LONGEST
    run = make_run("r", [(Question("q", audio=CLIP, id="1"), text)], right=1.0)
    result = entry_json(merge([run])[0], Rule.STRICT, None, "")["runs"][0]
    assert sum(map(len, result["parts"])) == LONGEST
    assert result["cut"] == len(text) - LONGEST


def trace_of(text: str) -> Trace:
    return make_trace(Question("q", audio=CLIP), text)


def test_runs_are_merged_by_question() -> None:
    asked = noise_questions(4)
    first, second = make_run("a", asked[:3]), make_run("b", asked[1:])
    entries = merge([first, second])
    assert [(e.id, [r is not None for r in e.results]) for e in entries] == [
        ("q0", [True, False]),
        ("q1", [True, True]),
        ("q2", [True, True]),
        ("q3", [False, True]),
    ]


def test_one_id_with_two_questions_is_two_entries() -> None:
    question, text = noise_questions(1)[0]
    other = replace(question, text="Something else?")
    entries = merge([make_run("a", [(question, text)]), make_run("b", [(other, text)])])
    assert [entry.question and entry.question.text for entry in entries] == [question.text, other.text]


def test_labels_that_are_no_labels_do_no_harm() -> None:
    metadata = {
        "events": ["x", {"onset": 1, "offset": 2}, [3, 4], {"onset": 5, "offset": 6, "label": 7}],
        "segments": 3,
    }
    question = Question("q", audio=CLIP, id="1", metadata=metadata)
    data = entry_json(merge([make_run("r", [(question, "hm")], right=1.0)])[0], Rule.STRICT, None, "")
    assert data["events"] == [[1.0, 2.0, ""], [3.0, 4.0, ""], [5.0, 6.0, "7"]]
    assert data["reference"] == []


def test_findings_and_route_of_an_answer_are_told() -> None:
    question = Question("q", audio=CLIP, id="1")
    run = make_run("r", [(question, "hm")], right=1.0)
    (row,) = run.rows
    assert row.trace is not None
    plain = entry_json(merge([run])[0], Rule.STRICT, None, "")["runs"][0]
    assert (plain["findings"], plain["route"]) == ([], None)
    routing = Routing("pitch", 0.75321, {"pitch": 0.75321}, "a note")
    trace = replace(row.trace, findings=("[pitch] A4",), routing=routing)
    told = entry_json(Entry("1", question, (replace(row, trace=trace),)), Rule.STRICT, None, "")["runs"][0]
    assert told["findings"] == ["[pitch] A4"]
    assert told["route"] == {"name": "pitch", "confidence": 0.7532, "note": "a note"}
