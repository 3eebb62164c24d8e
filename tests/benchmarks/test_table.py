"""The page of figures is made from what benchmarks wrote, and from nothing else."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_tables_replace_what_stands_between_the_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = import_module("table")
    machine = {"processor": "a chip", "processors": 2, "load": 0.1, "versions": {"torch": "2"}}
    machine |= {"threads": [1, 2], "instructions": ["amx_bf16"], "git": {"commit": "0123456789", "changed": True}}
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
        assert "2 x a chip (amx_bf16), 1 or 2 PyTorch threads, whichever is faster" in text
        assert "commit 0123456 with changes." in text


def test_the_page_tells_what_the_results_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures that somebody typed, or results whose tables nobody made."""
    page = tmp_path / "benchmarks.md"
    page.write_text((ROOT / "docs" / "benchmarks.md").read_text())
    results = ROOT / "benchmarks" / "results"
    monkeypatch.setattr("sys.argv", ["table.py", "--results", str(results), "--page", str(page)])
    import_module("table").main()
    assert page.read_text() == (ROOT / "docs" / "benchmarks.md").read_text()


def test_every_result_was_written_by_a_script_that_is_here() -> None:
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        script = json.loads(path.read_text()).get("benchmark", path.stem)
        assert (ROOT / "benchmarks" / f"{script}.py").is_file(), path.name


def test_every_benchmark_of_the_tables_is_run_with_the_others() -> None:
    everything = import_module("everything")
    results = {path.stem: json.loads(path.read_text()) for path in (ROOT / "benchmarks" / "results").glob("*.json")}
    shown = {name for name, result in results.items() if "figures" in result}
    assert shown - {"engines", "serving"} <= {*everything.BENCHMARKS, *everything.GPU}
