"""Whatever happens to a tool is a result; findings are kept under what decides them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.sounds import noise_clip
from support.tools import Length, calls, extra_tools, released

from relisten.errors import InputError
from relisten.protocol import Segment
from relisten.tools import running
from relisten.tools.cache import ToolCache
from relisten.tools.running import Failure, ToolReport, run_tool

CLIP = noise_clip(4.0)


@pytest.fixture(autouse=True)
def _tools(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(running, "_left_behind", {})
    with extra_tools():
        yield


def test_a_finding_reads_in_one_line_and_comes_back_from_json() -> None:
    report = run_tool("length", CLIP, Segment(1.0, 3.5), {"scale": "2"})
    assert report.text() == "[length 1 to 3.5 s] 5 s"
    assert report.finding == Length(5.0)
    assert ToolReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    assert run_tool("length", CLIP).text() == "[length] 4 s"


@pytest.mark.parametrize(
    ("name", "window", "arguments", "failure", "said"),
    [
        ("ears", None, {}, Failure.UNKNOWN_TOOL, "tool 'ears' is unknown"),
        ("length", None, {"size": 1}, Failure.BAD_ARGUMENTS, "'size' is not an argument"),
        ("length", Segment(4.0, 5.0), {}, Failure.BAD_WINDOW, "window 4 to 5 s of a clip of 4.00 s"),
        ("length", Segment(1.0, 1.1), {}, Failure.BAD_WINDOW, "last 0.2 s"),
        ("absent", None, {}, Failure.NOT_INSTALLED, "absent needs no_such_package: pip install no-such"),
        ("broken", None, {}, Failure.FAILED, "ZeroDivisionError: two lines"),
    ],
)
def test_failures_are_results(
    name: str, window: Segment | None, arguments: dict[str, str], failure: Failure, said: str
) -> None:
    report = run_tool(name, CLIP, window, arguments)
    assert (report.failure, report.finding) == (failure, None)
    assert said in report.error
    assert "\n" not in report.text()
    assert report.text().startswith(f"[{name}")
    assert "] failed: " in report.text()
    assert ToolReport.from_json(report.to_json()) == report


def test_a_window_lets_a_tool_hear_part_of_a_long_clip() -> None:
    clip = noise_clip(6.0)
    report = run_tool("length", clip)
    assert report.failure is Failure.TOO_LONG
    assert "6 s of sound; length takes at most 5 s. Give a shorter window" in report.error
    assert run_tool("length", clip, Segment(1.0, 6.0)).finding == Length(5.0)
    assert run_tool("length", clip, Segment(2.0, 60.0)).window == Segment(2.0, 6.0)


def test_a_slow_tool_is_left_behind_and_not_piled_up() -> None:
    report = run_tool("slow", CLIP)
    assert report.failure is Failure.TIMEOUT
    assert "not done within 0.05 s" in report.error
    assert run_tool("slow", CLIP).failure is Failure.BUSY
    assert run_tool("length", CLIP).finding is not None
    released.set()
    running._left_behind["slow"].join(5)
    assert run_tool("slow", CLIP, timeout=5).finding == Length(0.0)


def test_the_cache_knows_clip_window_tool_and_arguments(tmp_path: Path) -> None:
    with ToolCache(tmp_path / "new" / "tools.sqlite") as cache:
        first = run_tool("length", CLIP, cache=cache)
        again = run_tool("length", CLIP, arguments={"scale": 1}, cache=cache)
        assert (first.cached, again.cached, len(calls)) == (False, True, 1)
        assert again.finding == first.finding
        run_tool("length", noise_clip(4.0, seed=1), cache=cache)
        run_tool("length", CLIP, Segment(0.0, 2.0), cache=cache)
        run_tool("length", CLIP, arguments={"scale": 2}, cache=cache)
        assert len(calls) == 4
    with ToolCache(tmp_path / "new" / "tools.sqlite") as cache:
        assert run_tool("length", CLIP, cache=cache).cached


def test_failures_are_not_kept(tmp_path: Path) -> None:
    with ToolCache(tmp_path / "tools.sqlite") as cache:
        assert not run_tool("broken", CLIP, cache=cache).cached
        assert not run_tool("broken", CLIP, cache=cache).cached


def test_a_kept_finding_of_another_form_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ToolCache(tmp_path / "tools.sqlite") as cache:
        monkeypatch.setattr(cache, "get", lambda key: {"metres": 3})
        assert run_tool("length", CLIP, cache=cache).finding == Length(4.0)


def test_a_closed_cache_stops_nothing(tmp_path: Path) -> None:
    cache = ToolCache(tmp_path / "tools.sqlite")
    cache.close()
    assert run_tool("length", CLIP, cache=cache).finding == Length(4.0)


def test_another_file_is_no_cache(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database " * 100)
    with pytest.raises(InputError, match=r"notes\.txt: is no cache of tools"):
        ToolCache(path)


@pytest.mark.parametrize("change", [{"window": [3, 2]}, {"failure": "bad luck"}, {"finding": {"metres": 1}}])
def test_other_json_is_no_report(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        ToolReport.from_json(run_tool("length", CLIP).to_json() | change)
    with pytest.raises(InputError, match="not a report of a tool"):
        ToolReport.from_json({})
