"""The manifest: what is known about each clip of a set. One JSON object a line, streamed both ways.

A row, with everything it may hold (only `audio` and `duration` must be there):

    {"id": "kitchen-1", "audio": "clips/kitchen-1.flac", "duration": 10.0, "hash": "9f2c...",
     "source": "kitchen", "split": "train", "resolution": 0.2, "label_set": "audioset-strong",
     "complete": true,
     "events": [{"onset": 0.5, "offset": 2.1, "label": "Dog", "confidence": 0.9}],
     "turns": [{"speaker": "a", "text": "hello", "start": 3.0, "end": 3.8}],
     "music": {"beats": [0.4, 0.9], "chords": [{"start": 0.4, "name": "Am"}], "key": "A minor",
               "tempo": 120.0, "instruments": ["piano"]},
     "metadata": {"caption": "..."}}

`audio` is relative to the manifest's folder. Times are seconds from the clip's start. A missing `events` means
that nobody labelled sounds, an empty list that somebody did and found none; the same holds for `turns`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from relisten.errors import InputError
from relisten.jsonl import read_parsed, relative_to, write_rows

SLACK: Final = 0.05
"""Seconds that a label may reach past the clip's end before it is called wrong; more is another clip's label."""
SLOWEST: Final = 1.0
"""Beats a minute; what is slower is no tempo."""
NO_CHORD: Final = "N"
"""The name of a chord that is none, as in Harte's notation."""


@dataclass(frozen=True)
class LabelledEvent:
    """One labelled sound; seconds from the clip's start, 0 <= onset <= offset. The rest is None where unknown."""

    onset: float
    offset: float
    label: str
    confidence: float | None = None
    """How sure the label is, 0 to 1."""
    pitch: float | None = None
    """Fundamental in Hz."""
    level: float | None = None
    """Loudness in dB against the other events of the same clip."""
    weighted_level: float | None = None
    """The same, weighted after the ear."""
    sustained: bool = True
    """False where the offset is only where a decay has faded, so that the length cannot be told by ear."""

    @property
    def duration(self) -> float:
        return self.offset - self.onset


@dataclass(frozen=True)
class Turn:
    """One stretch of speech by one speaker; seconds. Its text, its speaker or both are known, else "" stands."""

    start: float
    end: float
    speaker: str = ""
    """Who speaks; "" where nobody said who."""
    text: str = ""

    @property
    def duration(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class Chord:
    """A chord that begins at `start` seconds and lasts until the next one."""

    start: float
    name: str


@dataclass(frozen=True)
class Music:
    """Musical facts of a clip; empty or None where unknown."""

    beats: tuple[float, ...] = ()
    """Seconds, rising."""
    downbeats: tuple[float, ...] = ()
    """Those of them that open a bar."""
    chords: tuple[Chord, ...] = ()
    key: str | None = None
    """As in "C major"."""
    tempo: float | None = None
    """Beats a minute."""
    instruments: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClipRecord:
    """One clip and its labels."""

    id: str
    audio: Path
    """Where the sound lies; relative paths in a manifest are resolved against its folder."""
    duration: float
    """Seconds."""
    hash: str = ""
    """`Clip.hash`; "" where it was never computed."""
    source: str = ""
    """The recording it was cut from; clips of one source belong into one split."""
    split: str = ""
    resolution: float = 0.0
    """How exact the times are: a true onset lies within this many seconds of the labelled one."""
    label_set: str = ""
    """Name of the list of labels that was searched for; an absent label is only known absent within it."""
    complete: bool = True
    """False where a label of this clip had to be left out: nothing may be counted or called absent then."""
    events: tuple[LabelledEvent, ...] | None = None
    """Sorted by onset; None: nobody labelled sounds."""
    turns: tuple[Turn, ...] | None = None
    """Sorted by start; None: nobody labelled speakers."""
    music: Music | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """What must not be shared between splits: the source, else the hash, else the id."""
        return self.source or self.hash or self.id


def read_manifest(path: str | Path) -> Iterator[ClipRecord | InputError]:
    """The clips of a manifest, in order, one at a time.

    A bad row comes out as the `InputError` that says file, line, value and remedy; the others are not affected.

    Raises:
        InputError: the file itself cannot be read.
    """
    return read_parsed(path, parse_record)


def write_manifest(path: str | Path, records: Iterable[ClipRecord]) -> int:
    """Write clips as they come and return how many; the file appears under its name once it is whole.

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(path)
    return write_rows(path, (record_row(record, path.parent) for record in records))


def record_row(record: ClipRecord, folder: Path) -> dict[str, Any]:
    """The JSON row of a clip in a manifest that lies in `folder`; what is unknown is left out."""
    row: dict[str, Any] = {"id": record.id, "audio": relative_to(record.audio, folder), "duration": record.duration}
    for key in ("hash", "source", "split", "resolution", "label_set"):
        if value := getattr(record, key):
            row[key] = value
    if not record.complete:
        row["complete"] = False
    if record.events is not None:
        row["events"] = [_event_row(event) for event in record.events]
    if record.turns is not None:
        row["turns"] = [
            {"speaker": turn.speaker, "text": turn.text, "start": turn.start, "end": turn.end}
            for turn in record.turns
        ]
    if record.music is not None:
        music: dict[str, Any] = {
            "beats": list(record.music.beats),
            "downbeats": list(record.music.downbeats),
            "chords": [{"start": chord.start, "name": chord.name} for chord in record.music.chords],
            "key": record.music.key,
            "tempo": record.music.tempo,
            "instruments": list(record.music.instruments),
        }
        row["music"] = {key: value for key, value in music.items() if value}
    if record.metadata:
        row["metadata"] = dict(record.metadata)
    return row


def _event_row(event: LabelledEvent) -> dict[str, Any]:
    row: dict[str, Any] = {"onset": event.onset, "offset": event.offset, "label": event.label}
    for key in ("confidence", "pitch", "level", "weighted_level"):
        if (value := getattr(event, key)) is not None:
            row[key] = value
    if not event.sustained:
        row["sustained"] = False
    return row


def parse_record(row: Mapping[str, Any], folder: Path, where: str) -> ClipRecord:
    """One clip from a decoded row.

    Raises:
        InputError: with `where` in front, for a row that breaks a rule of this module.
    """
    read = _Reader(where)
    read.known(row, _KEYS, "the row")
    audio = read.text(row, "audio", needed=True)
    duration = read.number(row, "duration", low=0.0)
    if not duration:
        raise read.wrong(f"'duration' is {row.get('duration')!r}; give the clip's length in seconds, above 0")
    events = read.items(row, "events")
    turns = read.items(row, "turns")
    metadata = row.get("metadata", {})
    if not isinstance(metadata, dict):
        raise read.wrong(f"'metadata' is {metadata!r}; it must be an object")
    return ClipRecord(
        id=read.text(row, "id") or audio,
        audio=folder / audio,
        duration=duration,
        hash=read.text(row, "hash"),
        source=read.text(row, "source"),
        split=read.text(row, "split"),
        resolution=read.number(row, "resolution", low=0.0) or 0.0,
        label_set=read.text(row, "label_set"),
        complete=read.flag(row, "complete", True),
        events=None if events is None else _sorted_events(_event(read, item, duration) for item in events),
        turns=None if turns is None else _sorted_turns(_turn(read, item, duration) for item in turns),
        music=None if row.get("music") is None else _music(read, row["music"], duration),
        metadata=metadata,
    )


def _sorted_events(events: Iterable[LabelledEvent]) -> tuple[LabelledEvent, ...]:
    return tuple(sorted(events, key=lambda event: (event.onset, event.offset, event.label)))


def _sorted_turns(turns: Iterable[Turn]) -> tuple[Turn, ...]:
    return tuple(sorted(turns, key=lambda turn: (turn.start, turn.end, turn.speaker)))


_KEYS: Final = (
    "id", "audio", "duration", "hash", "source", "split", "resolution", "label_set", "complete", "events", "turns",
    "music", "metadata",
)  # fmt: skip
_EVENT_KEYS: Final = ("onset", "offset", "label", "confidence", "pitch", "level", "weighted_level", "sustained")
_TURN_KEYS: Final = ("speaker", "text", "start", "end")
_MUSIC_KEYS: Final = ("beats", "downbeats", "chords", "key", "tempo", "instruments")


def _event(read: _Reader, item: Mapping[str, Any], duration: float) -> LabelledEvent:
    read.known(item, _EVENT_KEYS, "an event")
    label = read.text(item, "label", needed=True)
    onset, offset = read.span(item, "onset", "offset", duration, label)
    return LabelledEvent(
        onset=onset,
        offset=offset,
        label=label,
        confidence=read.number(item, "confidence", low=0.0, high=1.0),
        pitch=read.number(item, "pitch", low=0.0),
        level=read.number(item, "level"),
        weighted_level=read.number(item, "weighted_level"),
        sustained=read.flag(item, "sustained", True),
    )


def _turn(read: _Reader, item: Mapping[str, Any], duration: float) -> Turn:
    read.known(item, _TURN_KEYS, "a turn")
    speaker, text = read.text(item, "speaker"), read.text(item, "text")
    start, end = read.span(item, "start", "end", duration, f"the turn of {speaker or 'somebody'}")
    return Turn(start, end, speaker, text)


def _music(read: _Reader, value: object, duration: float) -> Music:
    if not isinstance(value, dict):
        raise read.wrong(f"'music' is {value!r}; it must be an object")
    read.known(value, _MUSIC_KEYS, "'music'")
    chords = []
    for item in read.items(value, "chords") or ():
        read.known(item, ("start", "name"), "a chord")
        start = read.number(item, "start", low=0.0, high=duration + SLACK)
        if start is None:
            raise read.wrong(f"chord {dict(item)!r} has no 'start'; give it in seconds")
        chords.append(Chord(start, read.text(item, "name", needed=True)))
    instruments = value.get("instruments", [])
    if not isinstance(instruments, list) or not all(isinstance(name, str) and name.strip() for name in instruments):
        raise read.wrong(f"'instruments' is {instruments!r}; it must be a list of names")
    return Music(
        beats=read.times(value, "beats", duration),
        downbeats=read.times(value, "downbeats", duration),
        chords=tuple(sorted(chords, key=lambda chord: chord.start)),
        key=read.text(value, "key") or None,
        tempo=read.number(value, "tempo", low=SLOWEST),
        instruments=tuple(instruments),
    )


@dataclass(frozen=True)
class _Reader:
    """Typed access to a decoded row; every complaint begins with where the row stands."""

    where: str

    def wrong(self, message: str) -> InputError:
        return InputError(f"{self.where}: {message}")

    def known(self, row: Mapping[str, Any], keys: tuple[str, ...], what: str) -> None:
        for key in row:
            if key not in keys:
                raise self.wrong(
                    f"{what} has the key {key!r}; use {', '.join(keys)}, and 'metadata' of the row for the rest"
                )

    def text(self, row: Mapping[str, Any], key: str, *, needed: bool = False) -> str:
        value = row.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and key in ("id", "source", "speaker"):
            value = str(value)
        if (value is None and not needed) or (isinstance(value, str) and (value.strip() or not needed)):
            return value or ""
        raise self.wrong(f"{key!r} is {value!r}; it must be a text{' that is not empty' if needed else ''}")

    def flag(self, row: Mapping[str, Any], key: str, default: bool) -> bool:
        value = row.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(f"{key!r} is {value!r}; it must be true or false")
        return value

    def number(
        self, row: Mapping[str, Any], key: str, low: float = -math.inf, high: float = math.inf
    ) -> float | None:
        value = row.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.wrong(f"{key!r} is {value!r}; it must be a number")
        if not low <= value <= high:
            raise self.wrong(f"{key!r} is {value:g}; it must lie in {low:g} to {high:g}")
        return float(value)

    def span(
        self, row: Mapping[str, Any], begin: str, end: str, duration: float, label: str
    ) -> tuple[float, float]:
        """Two times in order and inside the clip; a trifle past its end is cut off."""
        first, last = self.number(row, begin), self.number(row, end)
        if first is None or last is None:
            raise self.wrong(f"{label!r} lacks {begin if first is None else end!r}; give both times in seconds")
        if not 0 <= first <= last:
            raise self.wrong(f"{label!r} spans {first:g} to {last:g} s; it needs 0 <= {begin} <= {end}")
        if last > duration + SLACK or first >= duration:
            raise self.wrong(f"{label!r} spans {first:g} to {last:g} s of a clip of {duration:g} s; mend its times")
        return first, min(last, duration)

    def items(self, row: Mapping[str, Any], key: str) -> list[dict[str, Any]] | None:
        value = row.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.wrong(f"{key!r} is {value!r}; it must be a list of objects")
        return value

    def times(self, row: Mapping[str, Any], key: str, duration: float) -> tuple[float, ...]:
        value = row.get(key, [])
        if not isinstance(value, list):
            raise self.wrong(f"{key!r} is {value!r}; it must be a list of seconds")
        found = [self.number({key: item}, key, low=0.0, high=duration + SLACK) for item in value]
        return tuple(sorted(time for time in found if time is not None))
