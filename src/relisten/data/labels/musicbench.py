"""MusicBench: beats, chords, key and tempo of ten-second music clips, with captions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from relisten.data.labels.base import Labelled, LabelProblem, read_objects, stem
from relisten.data.manifest import NO_CHORD, Chord, Music

_COPY: Final = re.compile(r"_\d+$")
_SURE_KEY: Final = 0.5
"""A key that its detector believes in less than this is left out: a wrong key makes a wrong question."""


def read_musicbench(files: Sequence[Path], names: Mapping[str, str]) -> Iterator[Labelled | LabelProblem]:
    """MusicBench JSON, one object a clip: `location`, `beats` ([times], [numbers in the bar]), `bpm`, `chords` with
    `chords_time`, `key` ([root, mode]) with `keyprob`; the captions go into the metadata."""
    for path in files:
        for row in read_objects(path):
            if isinstance(row, LabelProblem):
                yield row
                continue
            where, item = row
            location = item.get("location")
            if not isinstance(location, str) or not stem(location):
                yield LabelProblem(where, f"'location' is {location!r}; it must be the path of the sound")
                continue
            try:
                music = _music(item)
            except (TypeError, ValueError, IndexError) as error:
                yield LabelProblem(where, f"{location}: {error}")
                continue
            captions = {key: item[key] for key in ("main_caption", "alt_caption") if isinstance(item.get(key), str)}
            # Pitch and tempo copies of one recording end in their number and belong to one source.
            yield Labelled(
                where, location, (location, stem(location)), music=music, source=_COPY.sub("", stem(location)),
                metadata=captions,
            )  # fmt: skip


def _music(item: Mapping[str, Any]) -> Music:
    beats, bars = _pair(item.get("beats"), "beats")
    names, times = item.get("chords") or [], item.get("chords_time") or []
    if len(names) != len(times):
        raise ValueError(f"{len(names)} chords and {len(times)} chord times; there must be as many")
    chords = [Chord(_time(at), str(name) or NO_CHORD) for name, at in zip(names, times, strict=True)]
    key = item.get("key")
    sure = item.get("keyprob") or [1.0]
    named = isinstance(key, list) and len(key) == 2 and all(isinstance(part, str) and part for part in key)
    believed = float(sure[0] if isinstance(sure, list) else sure) >= _SURE_KEY
    bpm = item.get("bpm")
    return Music(
        beats=tuple(sorted(beats)),
        downbeats=tuple(sorted(at for at, number in zip(beats, bars, strict=False) if number == 1)),
        chords=tuple(sorted(chords, key=lambda chord: chord.start)),
        key=" ".join(key) if key is not None and named and believed else None,
        tempo=_time(bpm) if bpm else None,
    )


def _pair(value: Any, what: str) -> tuple[list[float], list[float]]:
    if not value:
        return [], []
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(part, list) for part in value):
        raise ValueError(f"{what!r} is not a list of times and a list of numbers")
    if len(value[0]) != len(value[1]):
        raise ValueError(f"{len(value[0])} {what} and {len(value[1])} numbers; there must be as many")
    return [_time(at) for at in value[0]], [_time(at) for at in value[1]]


def _time(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{value!r} is not a number of seconds")
    return number
