"""`relisten reproduce`: what is refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli import run

from relisten.evaluate.analysis import Mean
from relisten.reproduce.table import Difference, Table


@pytest.mark.parametrize(
    ("options", "told"),
    [(("--start", "nope"), "model 'nope' is no folder"), (("--workers", "-1"), "or 0 for as many as")],
)
def test_bad_options_make_no_folder(
    options: tuple[str, str], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, err = run(capsys, "reproduce", "--out", tmp_path / "r", *options)
    assert (code, out) == (2, "")
    assert told in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "r").exists()


def test_what_rounds_to_nothing_is_not_below_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    even = Mean(3, -0.0001, -0.021, 0.0)
    made = Table((), (Difference("B", "A", "listening", even, even),), (), 3, 2)
    for name, value in (
        ("runner.reproduce", None),
        ("table.collect", made),
        ("page.notes", ()),
        ("page.write_reproduction", None),
    ):
        monkeypatch.setattr(f"relisten.reproduce.{name}", lambda *_, value=value: value)
    _, out, _ = run(capsys, "reproduce", "--out", tmp_path)
    assert "B over A (listening): +0.0 points (-2.1 to +0.0); greedy +0.0" in out
