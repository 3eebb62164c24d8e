"""Running a tool so that whatever happens is a result: limits, cache, and `ToolReport`."""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from relisten.audio import Clip
from relisten.errors import InputError, RelistenError
from relisten.protocol import MIN_SEGMENT, Segment, clamp_segment
from relisten.tools.cache import ToolCache, cache_key
from relisten.tools.finding import Finding
from relisten.tools.tool import Argument, Tool, find_tool

_LONGEST_ERROR: Final = 300
_LOADING: Final = 180.0
"""Seconds that a tool's libraries may take to load, once a process, before its own time begins."""


class Failure(StrEnum):
    """Why there is no finding."""

    UNKNOWN_TOOL = "unknown_tool"
    BAD_ARGUMENTS = "bad_arguments"
    BAD_WINDOW = "bad_window"
    TOO_LONG = "too_long"
    NOT_INSTALLED = "not_installed"
    TIMEOUT = "timeout"
    BUSY = "busy"
    """An earlier run of this tool was given up and has not ended yet."""
    FAILED = "failed"
    """The tool itself says why: endpoint down, a fault of its own."""


PASSING: Final = frozenset({Failure.TIMEOUT, Failure.BUSY, Failure.FAILED})
"""Failures that another run of the same tool on the same clip may not meet."""


@dataclass(frozen=True)
class ToolReport:
    """One run of one tool: a finding, or why there is none."""

    tool: str
    window: Segment | None = None
    """None: the whole clip."""
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    """All of them, defaults included; none where they were refused, since these may hold anything."""
    finding: Finding | None = None
    failure: Failure | None = None
    error: str = ""
    """One line: value, rule, remedy."""
    version: int = 0
    seconds: float = 0.0
    """Wall time; next to nothing where `cached`."""
    cached: bool = False

    def text(self) -> str:
        """What a model reads in its prompt: tool, window, and the finding or that there is none."""
        where = "" if self.window is None else f" {self.window.start:g} to {self.window.end:g} s"
        said = f"failed: {self.error}" if self.finding is None else self.finding.text()
        return f"[{self.tool}{where}] {said}"

    def to_json(self) -> dict[str, Any]:
        return {
            "tool": self.tool,
            "version": self.version,
            "window": None if self.window is None else [self.window.start, self.window.end],
            "arguments": dict(self.arguments),
            "text": self.text(),
            "finding": None if self.finding is None else self.finding.to_json(),
            "failure": self.failure and str(self.failure),
            "error": self.error,
            "seconds": self.seconds,
            "cached": self.cached,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ToolReport:
        """The report that `to_json` wrote; its text is derived anew.

        Raises:
            InputError: for another object, or a finding of a tool that is not here.
        """
        try:
            finding = data["finding"]
            return cls(
                tool=data["tool"],
                window=None if data["window"] is None else Segment(*data["window"]),
                arguments=dict(data["arguments"]),
                finding=None if finding is None else find_tool(data["tool"]).finding.from_json(finding),
                failure=None if data["failure"] is None else Failure(data["failure"]),
                error=data["error"],
                version=data["version"],
                seconds=data["seconds"],
                cached=data["cached"],
            )
        except InputError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            what = f"{type(error).__name__}: {error}"
            raise InputError(f"not a report of a tool ({what}); give one that relisten wrote") from None


def run_tool(
    name: str,
    clip: Clip,
    window: Segment | None = None,
    arguments: Mapping[str, Argument] | None = None,
    *,
    cache: ToolCache | None = None,
    timeout: float | None = None,
) -> ToolReport:
    """Run a tool on a clip, or on a window of it; never raises for what a tool, a user or a network does.

    The work happens in a thread of its own. One that is not done after `timeout` seconds (by default the tool's) is
    left behind: Python threads cannot be stopped, but it keeps no answer waiting, the length limit bounds what it
    still does, and until it has ended the same tool answers `Failure.BUSY`, so that such runs never pile up.

    Args:
        window: part of the clip; it is cut to the clip's length, and must last 0.2 s.
        cache: where findings are kept and looked for.
    """
    began = time.perf_counter()
    report = ToolReport(name, window)
    try:
        tool = find_tool(name)
    except InputError as error:
        return _failed(report, Failure.UNKNOWN_TOOL, str(error))
    report = replace(report, version=tool.version)
    try:
        report = replace(report, arguments=tool.arguments(arguments or {}))
    except RelistenError as error:
        return _failed(report, Failure.BAD_ARGUMENTS, str(error))
    if window is not None:
        inside = clamp_segment(window.start, window.end, clip.duration)
        if not isinstance(inside, Segment):
            return _failed(
                report,
                Failure.BAD_WINDOW,
                f"window {window.start:g} to {window.end:g} s of a clip of {clip.duration:.2f} s; "
                f"it must lie in the clip and last {MIN_SEGMENT:g} s",
            )
        window = inside
        report = replace(report, window=window)
    length = clip.duration if window is None else window.duration
    if length > tool.max_duration:
        return _failed(
            report,
            Failure.TOO_LONG,
            f"{length:,.0f} s of sound; {name} takes at most {tool.max_duration:,.0f} s. Give a shorter window",
        )
    key = cache_key(tool, clip, window, report.arguments) if cache is not None else ""
    if cache is not None and (kept := _kept(cache, key, tool)) is not None:
        return replace(report, finding=kept, seconds=time.perf_counter() - began, cached=True)
    if need := tool.need:
        return _failed(report, Failure.NOT_INSTALLED, f"{name} {need}")
    report = _in_thread(tool, clip, report, tool.timeout if timeout is None else timeout)
    if cache is not None and report.finding is not None:
        cache.put(key, report.finding.to_json())
    return replace(report, seconds=time.perf_counter() - began)


_left_behind: dict[str, threading.Thread] = {}


def _in_thread(tool: Tool[..., Finding], clip: Clip, report: ToolReport, timeout: float) -> ToolReport:
    earlier = _left_behind.get(tool.name)
    if earlier is not None and earlier.is_alive():
        return _failed(report, Failure.BUSY, f"an earlier run of {tool.name} took too long and has not ended yet")
    found: list[Finding] = []
    errors: list[Exception] = []

    loaded = threading.Event()

    def work() -> None:
        try:
            for module in tool.requires:
                importlib.import_module(module)
            loaded.set()
            finding = tool.function(clip, report.window, **report.arguments)
            finding.text()  # one that cannot be told is none
            found.append(finding)
        except Exception as error:  # a tool may be anybody's; its fault is a result
            errors.append(error)
        finally:
            loaded.set()

    thread = threading.Thread(target=work, name=f"tool-{tool.name}", daemon=True)
    thread.start()
    loaded.wait(_LOADING)
    thread.join(timeout)
    if found:
        return replace(report, finding=found[0])
    if errors:
        known = isinstance(errors[0], RelistenError)
        return _failed(
            report, Failure.FAILED, str(errors[0]) if known else f"{type(errors[0]).__name__}: {errors[0]}"
        )
    _left_behind[tool.name] = thread
    return _failed(report, Failure.TIMEOUT, f"{tool.name} was not done within {timeout:g} s; give a shorter window")


def _kept(cache: ToolCache, key: str, tool: Tool[..., Finding]) -> Finding | None:
    data = cache.get(key)
    try:
        return None if data is None else tool.finding.from_json(data)
    except InputError:  # written by another form of the tool that forgot to raise its version
        return None


def _failed(report: ToolReport, failure: Failure, error: str) -> ToolReport:
    line = " ".join(error.split())
    return replace(report, failure=failure, error=line if len(line) <= _LONGEST_ERROR else f"{line[:297]}...")
