"""The decorator and the registry."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest
from support.tools import Length, extra_tools

from relisten.audio import Clip
from relisten.errors import InputError
from relisten.protocol import Segment
from relisten.tools import tool as registry
from relisten.tools.tool import all_tools, find_tool, tool, tool_problems


@pytest.fixture(autouse=True)
def _tools() -> Iterator[None]:
    with extra_tools():
        yield


def test_every_file_is_found() -> None:
    names = set(all_tools())
    assert names >= {
        "onsets", "pitch", "beats", "harmony", "loudness", "spectrum", "silence", "voice", "repeats", "speech",
    }  # fmt: skip
    assert list(all_tools()) == sorted(names)


def test_an_unknown_tool_is_told_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"tool 'ears' is unknown; there are .*onsets"):
        find_tool("ears")


def test_arguments_are_typed_and_complete() -> None:
    length = find_tool("length")
    assert length.arguments({}) == {"scale": 1.0, "word": ""}
    assert length.arguments({"scale": "2", "word": "x"}) == {"scale": 2.0, "word": "x"}
    for given, said in (({"size": 1}, "'size' is not an argument of length; it has scale, word"),
                        ({"scale": "big"}, "scale is 'big'; it must be of type float"),
                        ({"scale": "nan"}, "must be of type float"),
                        ({"scale": True}, "must be of type float"),
                        ({"word": 3}, "word is 3; it must be of type str")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            length.arguments(given)


def test_a_name_is_given_once() -> None:
    with pytest.raises(InputError, match="tool 'onsets' is there already"):

        @tool("onsets", "others")
        def other(clip: Clip, window: Segment | None = None) -> Length:
            return Length(0.0)


@pytest.mark.parametrize("name", ["", "Two Words", "a-b", "CAPS"])
def test_names_are_plain(name: str) -> None:
    with pytest.raises(InputError, match="small letters"):
        tool(name, "x")(lambda clip, window=None: Length(0.0))


def test_signatures_are_checked_when_a_tool_is_made() -> None:
    with pytest.raises(InputError, match="subclass of Finding"):

        @tool("one", "x")
        def one(clip: Clip, window: Segment | None = None) -> int:  # type: ignore[type-var]
            return 1

    with pytest.raises(InputError, match="must be clip and window=None"):

        @tool("two", "x")
        def two(clip: Clip) -> Length:
            return Length(0.0)

    with pytest.raises(InputError, match=r"must be clip and window=None, and arguments behind a \*"):

        @tool("positional", "x")
        def positional(clip: Clip, window: Segment | None = None, floor: float = 0.0) -> Length:
            return Length(floor)

    with pytest.raises(InputError, match="must be clip and window=None"):

        @tool("open", "x")
        def takes_all(clip: Clip, window: Segment | None = None, **further: float) -> Length:
            return Length(0.0)

    with pytest.raises(InputError, match="argument items must be a str, int, float or bool with a default"):

        @tool("three", "x")
        def three(clip: Clip, window: Segment | None = None, *, items: tuple[int, ...] = ()) -> Length:
            return Length(0.0)


def test_limits_are_above_0() -> None:
    with pytest.raises(InputError, match="above 0"):
        tool("none", "x", timeout=0)(lambda clip, window=None: Length(0.0))


def test_other_packages_bring_tools_and_a_broken_one_is_only_told(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("bad", "no_such_package.tools", registry.ENTRY_POINTS),
        EntryPoint("good", "support.tools", registry.ENTRY_POINTS),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    monkeypatch.setattr(registry._REGISTRY, "problems", [])
    registry._read_tools.cache_clear()
    assert "onsets" in all_tools()
    (problem,) = tool_problems()
    assert problem.startswith("bad (no_such_package.tools): ModuleNotFoundError")
