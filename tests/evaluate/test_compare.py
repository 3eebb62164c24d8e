"""Paired comparison: exact p-values, the bootstrap against resampled rows, and which rows are paired."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from relisten.evaluate.compare import Paired, compare, compare_groups, pairs
from relisten.evaluate.results import ResultRow, Run, RunConfig
from relisten.evaluate.scoring import Outcome, Rule
from relisten.protocol import Format
from relisten.question import Question

CONFIG = RunConfig(
    benchmark="b",
    questions="hash",
    model="m",
    model_hash="hash",
    engine="native",
    dtype="float32",
    format=Format.INTERLEAVED,
    temperature=0.0,
    top_p=1.0,
    seed=0,
    max_tokens=99,
    max_listens=8,
    silent=False,
    prompt="",
    rule=Rule.OFFICIAL,
    breakdowns=("kind",),
)
R, W, N, F, P = Outcome.RIGHT, Outcome.WRONG, Outcome.NO_ANSWER, Outcome.FAILED, Outcome.PENDING


def run(*outcomes: Outcome, text: str = "q") -> Run:
    rows = tuple(
        ResultRow(i, str(i), Question(text), None, None, dict.fromkeys(Rule, outcome), {"kind": "ab"[i % 2]})
        for i, outcome in enumerate(outcomes)
    )
    return Run(Path("x"), CONFIG, rows)


@given(st.integers(0, 60), st.integers(0, 60))
def test_p_value_is_the_exact_binomial_test(gained: int, lost: int) -> None:
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert Paired(5, gained, lost, 5).p_value == pytest.approx(expected)


def test_p_value_of_thousands_of_changes_does_not_overflow() -> None:
    assert 0 < Paired(0, 4000, 3700, 0).p_value < 0.001


def test_interval_is_that_of_resampled_rows() -> None:
    paired = Paired(40, 30, 12, 18)
    changes = np.repeat([0, 1, -1, 0], [40, 30, 12, 18])
    rng = np.random.default_rng(1)
    means = changes[rng.integers(0, 100, (20_000, 100))].mean(1)
    assert paired.difference == pytest.approx(0.18)
    assert paired.interval == pytest.approx(tuple(np.quantile(means, (0.025, 0.975))), abs=0.011)


def test_only_rows_that_both_were_scored_on_are_paired() -> None:
    first, second = run(R, W, R, N, F, R, W), run(R, R, W, W, R, P)
    assert compare(first, second) == Paired(both=1, gained=1, lost=1, neither=1)
    assert [row.id for row, _ in pairs(first, second)] == ["0", "1", "2", "3"]
    assert compare_groups(first, second, "kind") == {"a": Paired(1, 0, 1, 0), "b": Paired(0, 1, 0, 1)}


def test_the_same_id_with_another_question_is_no_pair() -> None:
    empty = compare(run(R, R), run(R, R, text="another"))
    assert (empty.n, empty.difference, empty.interval, empty.p_value) == (0, None, None, 1.0)
