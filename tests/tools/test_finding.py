"""Findings: their JSON, and how lists read."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from relisten.errors import InputError
from relisten.protocol import Segment
from relisten.tools.finding import Finding, counted, listed, seconds


@dataclass(frozen=True)
class Everything(Finding):
    number: int
    real: float
    word: str
    flag: bool
    maybe: float | None
    times: tuple[float, ...]
    parts: tuple[Segment, ...]

    def text(self) -> str:
        return self.word


WHOLE = Everything(1, 2.0, "a", True, None, (0.5, 1.0), (Segment(0.0, 1.5),))


def test_json_there_and_back() -> None:
    assert Everything.from_json(WHOLE.to_json()) == WHOLE


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("number", 1.5, "Everything.number: is 1.5; it must be of type int"),
        ("number", True, "must be of type int"),
        ("real", "2", "must be of type float"),
        ("maybe", "no", "must be of type float"),
        ("times", [0.5, "x"], r"Everything.times\[1\]"),
        ("times", "05", "Everything.times"),
        ("parts", [{"start": 0.0}], r"Everything.parts\[0\]: has"),
        ("parts", [{"start": 2.0, "end": 1.0}], "segment 2.0 to 1.0"),
    ],
)
def test_other_json_is_named(name: str, value: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Everything.from_json(WHOLE.to_json() | {name: value})


def test_fields_must_be_all_and_no_more() -> None:
    with pytest.raises(InputError, match="it needs"):
        Everything.from_json({"number": 1})
    with pytest.raises(InputError, match="it needs"):
        Everything.from_json(WHOLE.to_json() | {"more": 1})


def test_lists_stay_short() -> None:
    assert seconds((0.4, 1.25)) == "0.40, 1.25 s"
    assert listed(range(5), 3) == "0, 1, 2 and 2 more"
    assert (counted(1, "beat"), counted(0, "beat")) == ("1 beat", "0 beats")
