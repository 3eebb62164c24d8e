"""How tools are measured."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.tools import extra_tools

from relisten.router.measure import Figure, matched, measure, word_errors


@pytest.fixture(autouse=True)
def _tools() -> Iterator[None]:
    with extra_tools():
        yield


def test_times_are_matched_once_and_nearest_first() -> None:
    assert matched([1.0, 1.04, 3.0], [1.03, 2.0], 0.05) == [(1, 0)]
    assert matched([], [1.0], 0.05) == []


@pytest.mark.parametrize(
    ("said", "true", "wrong"),
    [
        ("the bus was late", "The bus was late.", (0, 4)),
        ("a bus late", "the bus was late", (2, 4)),
        ("", "two words", (2, 2)),
        ("two more words", "two words", (1, 2)),
    ],
)
def test_wrong_words(said: str, true: str, wrong: tuple[int, int]) -> None:
    assert word_errors(said, true) == wrong


def test_a_tool_without_truth_says_so() -> None:
    (figure,) = measure("length")
    assert figure.value is None
    assert figure.text() == "errors: not measured (no sounds with known truth for this tool)"


def test_a_tool_that_fails_has_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELISTEN_TRANSCRIPTION_URL", "")
    monkeypatch.setenv("RELISTEN_TRANSCRIPTION_MODEL", "")
    (figure,) = measure("speech", 1)
    assert figure.value is None


def test_figures_read_well() -> None:
    assert Figure("onsets", "count right", 0.5, "share", 40).text() == "count right: 50% (n = 40)"
    assert Figure("onsets", "time off by", 5.25, "ms", 3).text() == "time off by: 5.25 ms (n = 3)"
