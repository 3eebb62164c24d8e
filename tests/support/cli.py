"""The command line within the test's own process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from relisten.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `relisten ARGUMENTS`."""
    code = 0
    try:
        main([*map(str, arguments)])
    except SystemExit as status:
        code = int(status.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def data(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """The same of `relisten data ARGUMENTS`."""
    return run(capsys, "data", *arguments)


def lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
