"""`relisten reproduce`: what is refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli import run


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
