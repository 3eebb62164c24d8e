"""Tab-separated tables with one event a line: AudioSet-Strong, and DESED or DCASE."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from relisten.data.labels.base import (
    Grouped,
    Labelled,
    LabelProblem,
    Placed,
    no_times,
    read_table,
    seconds,
    stem,
)
from relisten.data.manifest import LabelledEvent

_AUDIOSET: Final = {
    "segment": ("segment_id",),
    "onset": ("start_time_seconds",),
    "offset": ("end_time_seconds",),
    "label": (),
}
_DESED: Final = {
    "filename": ("file", "audio_filename"),
    "onset": ("start_time",),
    "offset": ("end_time",),
    "event_label": ("label", "event", "class"),
}
_CODE: Final = re.compile(r"/[a-z]+/[0-9a-z_]+")
_SEGMENT: Final = re.compile(r"(?P<video>.{11})_(?P<start>[0-9]+)")
_DESED_NAME: Final = re.compile(r"Y?(?P<video>[\w-]{11})_[0-9.]+_[0-9.]+")

Row = tuple[str, str, str, bool]
"""Onset, offset, label, and whether the label is known."""


def read_audioset(files: Sequence[Path], names: Mapping[str, str]) -> Iterator[Labelled | LabelProblem]:
    """AudioSet-Strong: `segment_id start_time_seconds end_time_seconds label`, labels as codes such as /m/09x0r.

    A segment id is the video's id, then its start in milliseconds. The sound may be named after the segment, or
    after the video with or without the times in seconds, as the common download tools do.
    """
    for path in files:
        with Grouped[Row]() as rows:
            for row in read_table(path, _AUDIOSET):
                if isinstance(row, LabelProblem):
                    yield row
                    continue
                where, cells = row
                clip, label = cells["segment"], cells["label"]
                if not clip:
                    yield LabelProblem(where, "names no segment; fill in the first column")
                    continue
                known = label in names or not _CODE.fullmatch(label)
                if not known:
                    yield LabelProblem(
                        where, f"label {label} has no name; give --names mid_to_display_name.tsv with a line for it"
                    )
                rows.add(clip, where, (cells["onset"], cells["offset"], names.get(label, label), known))
            for clip, held in rows.clips():
                yield from _events(clip, held, _audioset_names(clip), _video(clip))


def read_desed(files: Sequence[Path], names: Mapping[str, str]) -> Iterator[Labelled | LabelProblem]:
    """DESED and DCASE: `filename onset offset event_label`. A row with a name alone is a clip without events."""
    for path in files:
        with Grouped[Row]() as rows:
            for row in read_table(path, _DESED):
                if isinstance(row, LabelProblem):
                    yield row
                    continue
                where, cells = row
                if not cells["filename"]:
                    yield LabelProblem(where, "names no file; fill in the first column")
                    continue
                label = cells["event_label"]
                rows.add(cells["filename"], where, (cells["onset"], cells["offset"], names.get(label, label), True))
            for clip, held in rows.clips():
                found = _DESED_NAME.fullmatch(stem(clip))
                yield from _events(clip, held, (clip, stem(clip)), found["video"] if found else stem(clip))


def _events(
    clip: str, rows: Sequence[Placed[Row]], names: tuple[str, ...], source: str
) -> Iterator[Labelled | LabelProblem]:
    events = []
    complete = True
    for row in rows:
        begin, end, label, known = row.item
        complete = complete and known
        if not known or not (begin or end or label):
            continue
        onset, offset = seconds(begin), seconds(end)
        if onset is None or offset is None:
            complete = False
            yield no_times(row.where, (begin, end))
            continue
        events.append(Placed(row.where, LabelledEvent(onset, offset, label)))
    yield Labelled(rows[0].where, clip, names, events=tuple(events), source=source, complete=complete)


def _video(segment: str) -> str:
    match = _SEGMENT.fullmatch(segment)
    return match["video"] if match else segment


def _audioset_names(segment: str) -> tuple[str, ...]:
    match = _SEGMENT.fullmatch(segment)
    if match is None:
        return (segment,)
    video, start = match["video"], int(match["start"]) // 1000
    times = (f"{start}_{start + 10}", f"{start}.000_{start + 10}.000", f"{start}", f"{start:06d}")
    bare = (segment, *(f"{video}_{time}" for time in times), video)
    return (*bare, *(f"Y{name}" for name in bare))


def read_names(path: Path) -> dict[str, str] | LabelProblem:
    """Label names by code from a table `code<TAB>name`, as AudioSet's mid_to_display_name.tsv."""
    names = {}
    for row in read_table(path, {"mid": ("id", "code"), "name": ("display_name", "label")}):
        if isinstance(row, LabelProblem):
            return row
        where, cells = row
        if not cells["mid"] or not cells["name"]:
            return LabelProblem(
                where, f"got {cells['mid']!r} and {cells['name']!r}; write a code, a tab and its name"
            )
        names[cells["mid"]] = cells["name"]
    return names
