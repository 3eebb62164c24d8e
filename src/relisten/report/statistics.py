"""What `relisten data stats` measured of files, as one page with charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from relisten.report import figures
from relisten.report.charts import Axis, count_bars, histogram
from relisten.report.html import Child, Markup, tag
from relisten.report.page import write_page
from relisten.report.sections import section

_MOST_BARS: Final = 40


def write_statistics(found: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Write the page of what `FileStatistics.to_json` gave for each file.

    Raises:
        InputError: it cannot be written.
    """
    parts = [_file(number, one) for number, one in enumerate(found)]
    return write_page(path, "Statistics", "relisten data stats", parts)


def _file(number: int, found: Mapping[str, Any]) -> Markup:
    charts: list[Markup | None]
    if "questions" in found:
        reasoning = found.get("reasoning", {})
        charts = [
            _bars("Kinds of questions", found["kinds"]),
            _bars("Difficulty", found["difficulty"]),
            *(
                _bars(f"Place of the answer among {count} choices", {str(at + 1): n for at, n in enumerate(places)})
                for count, places in found["answer_places"].items()
            ),
            _histogram("Words of reasoning", reasoning.get("words")),
            _histogram("Segments of a response", reasoning.get("segments")),
            _histogram("Length of segments (s)", reasoning.get("segment_length")),
            _histogram("Where segments lie in the clip (0 to 1)", reasoning.get("segment_place")),
        ]
    else:
        charts = [
            _bars("Labels", found["labels"]),
            _histogram("Length of clips (s)", found["duration"]),
            _histogram("Events of a clip", found["events_per_clip"]),
            _histogram("Length of events (s)", found["event_length"]),
            _histogram("Where events begin in the clip (0 to 1)", found["event_onset"]),
        ]
    return section(f"file-{number}", str(found["file"]), _numbers(found), tag("div", charts, class_="charts"))


def _numbers(found: Mapping[str, Any]) -> Markup:
    reasoning = found.get("reasoning", {})
    numbers = {name: value for name, value in found.items() if isinstance(value, (int, float))}
    numbers |= {name: value for name, value in reasoning.items() if isinstance(value, (int, float))}
    for name in ("words", "segments"):
        if reasoning.get(name, {}).get("count"):
            numbers[f"{name} of a response (mean)"] = reasoning[name]["mean"]
    rows: list[list[Child]] = [[name.replace("_", " "), f"{value:,}"] for name, value in numbers.items()]
    return figures.table(["", ""], rows, caption="Numbers", class_="inline")


def _bars(title: str, counts: Mapping[str, int]) -> Markup | None:
    if not counts:
        return None
    more = f"the first {_MOST_BARS} of {len(counts)}" if len(counts) > _MOST_BARS else ""
    return _figure(title, more, count_bars(title, list(counts.items())[:_MOST_BARS]))


def _histogram(title: str, spread: Mapping[str, Any] | None) -> Markup | None:
    """The outer bars hold what lies beyond the range, too."""
    if not spread or not spread["count"]:
        return None
    about = f"mean {spread['mean']:g}, {spread['min']:g} to {spread['max']:g}"
    low, high = spread["range"]
    return _figure(title, about, histogram(title, Axis(low, high, ""), spread["histogram"]))


def _figure(title: str, about: str, chart: Markup) -> Markup:
    return tag("figure", tag("figcaption", tag("b", title), tag("small", about)), chart)
