"""Statistics of a manifest or a file of questions: as numbers, and as one page."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from relisten.data.examples import Example, parse_example
from relisten.data.manifest import ClipRecord, parse_record
from relisten.data.measures import ClipMeasures, ExampleMeasures
from relisten.errors import InputError
from relisten.jsonl import read_parsed


class FileStatistics:
    """Everything measured about one file; rows are fed in one at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clips = ClipMeasures()
        self.examples = ExampleMeasures()
        self.bad: list[InputError] = []
        """The first bad rows."""
        self.num_bad = 0

    def read(self) -> Iterator[None]:
        """Take in the file; yields after each row, for a progress bar.

        Raises:
            InputError: the file cannot be read, or holds no good row.
        """
        for item in read_parsed(self.path, _parse_line):
            if isinstance(item, InputError):
                self.num_bad += 1
                if len(self.bad) < _SHOWN:
                    self.bad.append(item)
            elif isinstance(item, ClipRecord):
                self.clips.add(item)
            else:
                self.examples.add(item)
            yield
        if not (self.clips.clips or self.examples.questions):
            reason = f"; the first: {self.bad[0]}" if self.bad else ""
            raise InputError(f"{self.path}: holds no good row{reason}")

    def to_json(self) -> dict[str, Any]:
        """Numbers by name; a file of questions has "questions", a manifest "clips"."""
        found = self.examples.to_json() if self.examples.questions else self.clips.to_json()
        return {"file": str(self.path), **found, "bad_rows": self.num_bad}


_SHOWN: Final = 20


def _parse_line(row: dict[str, Any], folder: Path, where: str) -> ClipRecord | Example:
    return (parse_example if "question" in row else parse_record)(row, folder, where)


# One page


def page(statistics: Sequence[Mapping[str, Any]]) -> str:
    """A self-contained HTML page of the statistics, with plots as inline SVG."""
    body = "".join(_section(found) for found in statistics)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>relisten: statistics</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>
<body><h1>Statistics</h1>{body}</body></html>
"""


def _section(found: Mapping[str, Any]) -> str:
    parts = [f"<h2>{html.escape(str(found['file']))}</h2>", _numbers(found)]
    if "questions" in found:
        reasoning = found.get("reasoning", {})
        parts += [
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
        parts += [
            _bars("Labels", found["labels"]),
            _histogram("Length of clips (s)", found["duration"]),
            _histogram("Events of a clip", found["events_per_clip"]),
            _histogram("Length of events (s)", found["event_length"]),
            _histogram("Where events begin in the clip (0 to 1)", found["event_onset"]),
        ]
    return f"<section>{''.join(parts)}</section>"


def _numbers(found: Mapping[str, Any]) -> str:
    reasoning = found.get("reasoning", {})
    rows = {name: value for name, value in found.items() if isinstance(value, (int, float))}
    rows |= {name: value for name, value in reasoning.items() if isinstance(value, (int, float))}
    for name in ("words", "segments"):
        if reasoning.get(name, {}).get("count"):
            rows[f"{name} of a response (mean)"] = reasoning[name]["mean"]
    cells = "".join(
        f"<tr><th>{html.escape(name.replace('_', ' '))}</th><td>{value:,}</td></tr>" for name, value in rows.items()
    )
    return f"<table>{cells}</table>"


def _bars(title: str, counts: Mapping[str, int]) -> str:
    """Horizontal bars, the longest first where there are many."""
    if not counts:
        return ""
    shown = list(counts.items())[:_MOST_BARS]
    most = max(number for _, number in shown) or 1
    rows = []
    for at, (name, number) in enumerate(shown):
        y = at * _ROW
        width = number / most * _BAR
        label = html.escape(name if len(name) <= 34 else f"{name[:33]}…")
        rows.append(
            f'<text x="{_NAMES - 8}" y="{y + 14}" text-anchor="end">{label}</text>'
            f'<rect x="{_NAMES}" y="{y + 3}" width="{width:.1f}" height="{_ROW - 6}"/>'
            f'<text x="{_NAMES + width + 6:.1f}" y="{y + 14}">{number:,}</text>'
        )
    more = f" (the first {_MOST_BARS} of {len(counts)})" if len(counts) > _MOST_BARS else ""
    height = len(shown) * _ROW
    size = f'viewBox="0 0 {_NAMES + _BAR + 80} {height}" width="{_NAMES + _BAR + 80}" height="{height}"'
    caption = f"{html.escape(title)}{more}"
    return f'<figure><figcaption>{caption}</figcaption><svg {size} role="img">{"".join(rows)}</svg></figure>'


def _histogram(title: str, spread: Mapping[str, Any] | None) -> str:
    """Vertical bars over the quantity's range; the outer ones hold what lies beyond it too."""
    if not spread or not spread["count"]:
        return ""
    bins, (low, high) = spread["histogram"], spread["range"]
    most = max(bins) or 1
    step = _BAR / len(bins)
    rects = "".join(
        f'<rect x="{at * step + 1:.1f}" y="{_TALL - number / most * _TALL:.1f}" width="{step - 2:.1f}" '
        f'height="{number / most * _TALL:.1f}"><title>{number:,}</title></rect>'
        for at, number in enumerate(bins)
    )
    ticks = "".join(
        f'<text x="{part * _BAR:.1f}" y="{_TALL + 16}" text-anchor="{anchor}">{low + part * (high - low):g}</text>'
        for part, anchor in ((0, "start"), (0.5, "middle"), (1, "end"))
    )
    caption = f"{html.escape(title)}: mean {spread['mean']:g}, {spread['min']:g} to {spread['max']:g}"
    size = f'viewBox="0 0 {_BAR} {_TALL + 20}" width="{_BAR}" height="{_TALL + 20}"'
    return f'<figure><figcaption>{caption}</figcaption><svg {size} role="img">{rects}{ticks}</svg></figure>'


_MOST_BARS: Final = 40
_ROW: Final = 20
_NAMES: Final = 260
_BAR: Final = 360
_TALL: Final = 120
_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
section { display: flex; flex-wrap: wrap; gap: 1.5rem 2.5rem; align-items: flex-start; }
h2 { flex-basis: 100%; font-size: 1.1rem; word-break: break-all; }
figure { margin: 0; } figcaption { font-weight: 600; margin-bottom: .4rem; }
svg { max-width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: currentColor; }
svg rect { fill: #2a7fb8; }
table { border-collapse: collapse; } th { text-align: left; font-weight: 400; padding-right: 1.5rem; }
td { text-align: right; font-variant-numeric: tabular-nums; }
"""
