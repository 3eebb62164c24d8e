"""Tools for tests, and what they find."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from relisten.audio import Clip
from relisten.protocol import Segment
from relisten.tools import tool as registry
from relisten.tools.finding import Finding
from relisten.tools.tool import tool

released = threading.Event()
"""Lets `slow` end."""
calls: list[tuple[str, Segment | None]] = []


@dataclass(frozen=True)
class Length(Finding):
    seconds: float

    def text(self) -> str:
        return f"{self.seconds:g} s"


@dataclass(frozen=True)
class Wordless(Finding):
    """Without a `text` of its own."""


@contextmanager
def extra_tools() -> Iterator[None]:
    """Registers `length`, `slow`, `broken`, `brief`, `wordless` and `absent`, and takes them out again."""
    registry.all_tools()
    before = dict(registry._REGISTRY.tools)
    released.clear()
    calls.clear()

    @tool("length", "how long it is", max_duration=5)
    def length(clip: Clip, window: Segment | None = None, *, scale: float = 1.0, word: str = "") -> Length:
        calls.append((word, window))
        return Length(scale * (clip.duration if window is None else window.duration))

    @tool("slow", "never done", timeout=0.05)
    def slow(clip: Clip, window: Segment | None = None) -> Length:
        released.wait(20)
        return Length(0.0)

    @tool("broken", "fails")
    def broken(clip: Clip, window: Segment | None = None) -> Length:
        raise ZeroDivisionError("two\nlines")

    @tool("brief", "hears next to nothing", max_duration=0.3)
    def brief(clip: Clip, window: Segment | None = None) -> Length:
        return Length(0.0)

    @tool("absent", "needs what nobody has", requires=("no_such_package.part",), install="pip install no-such")
    def absent(clip: Clip, window: Segment | None = None) -> Length:
        return Length(0.0)

    @tool("wordless", "finds what it cannot tell")
    def wordless(clip: Clip, window: Segment | None = None) -> Wordless:
        return Wordless()

    try:
        yield
    finally:
        released.set()
        registry._REGISTRY.tools.clear()
        registry._REGISTRY.tools.update(before)
