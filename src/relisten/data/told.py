"""What audio tools say about a clip, put into questions, and quoted by responses where it is right.

A question with findings keeps its answer: who reads them has to weigh what a tool says against what is heard. A
response quotes a tool ("snare one tool 0.4 s -29 dB") only where the tool tells of every sound that is asked about
and its figures agree with the truth; else it goes by ear, as if nothing had been said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from relisten.audio import Clip
from relisten.data.manifest import LabelledEvent
from relisten.data.wording import Rng, pick
from relisten.errors import InputError
from relisten.tools.cache import ToolCache
from relisten.tools.finding import Moment
from relisten.tools.running import run_tool

SUITED: Final[Mapping[str, str]] = {
    "louder": "loudness", "higher": "pitch", "duration": "silence", "longest_gap": "silence",
    "count_all": "onsets", "count_window": "onsets", "before": "onsets", "after": "onsets",
}  # fmt: skip
"""The tool that a kind of question calls for."""
_SUITED_SHARE: Final = 0.65
_BOTH_SHARE: Final = 0.15
_NEAR: Final = 0.1
"""How far in seconds a tool's moment may lie from the onset of the sound it tells of."""


@dataclass(frozen=True)
class Told:
    """What one tool said: the line that a model reads, and what it tells of single moments."""

    tool: str
    line: str
    moments: tuple[Moment, ...] = ()

    def about(self, event: LabelledEvent) -> Moment | None:
        """What is said of the sound that starts with this event; None where nothing is near enough."""
        near = min(self.moments, key=lambda moment: abs(moment.at - event.onset), default=None)
        return near if near is not None and abs(near.at - event.onset) <= _NEAR else None


def ask_tools(clip: Clip, tools: Sequence[str], cache: ToolCache | None = None) -> tuple[Told, ...]:
    """What each of these tools says about a clip; one that fails says so.

    Raises:
        InputError: a tool is not there, or not installed.
    """
    reports = [run_tool(name, clip, cache=cache) for name in tools]
    for report in reports:
        if report.failure in ("unknown_tool", "not_installed"):
            raise InputError(report.error)
    return tuple(
        Told(report.tool, report.text(), () if report.finding is None else report.finding.moments())
        for report in reports
    )


def choose_told(rng: Rng, kind: str, told: Sequence[Told]) -> tuple[Told, ...]:
    """What a question of this kind is given to read: most often what suits it, else anything; sometimes two."""
    suited = [one for one in told if one.tool == SUITED.get(kind)]
    others = [one for one in told if one not in suited]
    draw = rng.random()
    if not others or (suited and draw < _SUITED_SHARE):
        return tuple(suited)
    one = pick(rng, others)
    return (*suited, one) if draw < _SUITED_SHARE + _BOTH_SHARE else (one,)


def quoted(
    told: Sequence[Told], kind: str, events: Sequence[LabelledEvent], agrees: Callable[[Sequence[float]], bool]
) -> dict[float, str] | None:
    """Notes that quote the suited tool on these events, by onset; None where it is silent on one or wrong.

    Args:
        agrees: whether the values it tells of the events, in their order, go with the truth.
    """
    one = next((one for one in told if one.tool == SUITED[kind]), None)
    moments = [one.about(event) for event in events] if one else []
    found = [moment for moment in moments if moment is not None]
    if not found or len(found) < len(events) or not agrees([moment.value for moment in found]):
        return None
    return {event.onset: f"tool {moment.text()}" for event, moment in zip(events, found, strict=True)}


def semitones(low: float, high: float) -> float:
    """The interval between two frequencies in Hz."""
    return 12 * math.log2(high / low)
