"""The page of figures is made from what benchmarks wrote, and from nothing else."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest


def test_tables_replace_what_stands_between_the_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = import_module("table")
    machine = {"processor": "a chip", "processors": 2, "threads": 1, "load": 0.1, "versions": {"torch": "2"}}
    figures = [{"what": "a listen", "value": 12.345, "unit": "ms", "goal": ""}]
    figures += [{"what": "ratio", "value": 0.912, "unit": "", "goal": "0.9"}]
    result = {
        "benchmark": "listen",
        "command": "python benchmarks/listen.py",
        "machine": machine,
        "figures": figures,
    }
    (tmp_path / "listen.json").write_text(json.dumps(result))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    monkeypatch.setattr("sys.argv", ["table.py", "--results", str(tmp_path), "--page", str(page)])
    for _ in range(2):  # again changes nothing
        table.main()
        text = page.read_text()
        assert text.startswith("before\n")
        assert text.endswith("after\n")
        assert "old" not in text
        assert "| a listen | 12.3 ms |  |" in text
        assert "| ratio | 0.91 | 0.9 |" in text
        assert "`python benchmarks/listen.py`" in text
