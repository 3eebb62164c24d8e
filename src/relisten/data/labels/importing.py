"""From a label file and a folder of sounds to manifest rows: find each sound, measure it, check its labels."""

from __future__ import annotations

import math
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from relisten.audio import SOUND_ENDINGS, Clip
from relisten.data.labels.base import LabelFormat, Labelled, LabelProblem, Placed, stem
from relisten.data.manifest import SLACK, SLOWEST, ClipRecord, LabelledEvent, Music, Turn
from relisten.data.parallel import ordered_map
from relisten.data.synth import SPLITS
from relisten.errors import InputError

_OVERLAP: Final = 0.01
"""Seconds that two labels of one name must share to count as overlapping; below that they only touch."""
_TOLD: Final = 3
"""Names that a finding tells at most."""

L = TypeVar("L", LabelledEvent, Turn)


@dataclass(frozen=True)
class ImportOptions:
    """What an import may set against what the format says.

    Raises:
        InputError: for an unknown split.
    """

    split: str = ""
    resolution: float | None = None
    label_set: str = ""
    processes: int = 1
    measures: Path | None = None
    """Keeps what was measured of each sound, so that an import that was killed does not read it again."""

    def __post_init__(self) -> None:
        if self.split not in ("", *SPLITS):
            raise InputError(f"split {self.split!r} is unknown; use one of {', '.join(SPLITS)}")


def import_labels(
    format: LabelFormat, labels: Path, audio: Path, names: Mapping[str, str], options: ImportOptions
) -> Iterator[ClipRecord | LabelProblem]:
    """Clips with their labels in the label file's order, and between them what was found wrong.

    Every sound is read once, for its length and hash.

    Raises:
        InputError: the labels or the folder of sounds cannot be read at all.
    """
    with SoundIndex(audio) as sounds, Measures(options.measures) as measures:

        def placed() -> Iterator[_Found | LabelProblem]:
            for item in format.read(format.files_of(labels), names):
                if isinstance(item, LabelProblem):
                    yield item
                    continue
                paths = sounds.find(item.names or (item.clip,))
                yield _Found(item, paths, measures.get(paths[0]) if len(paths) == 1 else None)

        for results, measured in ordered_map(
            partial(_checked, format, audio, options), placed(), options.processes
        ):
            if measured is not None:
                measures.put(measured)
            yield from results
        measures.discard()


@dataclass(frozen=True)
class Measured:
    """What an import has to know of a sound file."""

    path: Path
    size: int
    """Bytes; with the time of its last change this tells whether the file is still the one that was read."""
    changed: int
    """Nanoseconds."""
    duration: float
    """Seconds."""
    hash: str


class Measures:
    """What was measured of sounds, kept on disk while an import runs; without a file nothing is kept."""

    def __init__(self, file: Path | None) -> None:
        self.file = file

    def __enter__(self) -> Measures:
        if self.file is not None:
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                self._database = sqlite3.connect(self.file, isolation_level=None)
                # A kill loses nothing; a power cut may lose what is measured again then.
                self._database.execute("PRAGMA synchronous = OFF")
                self._database.execute(
                    "CREATE TABLE IF NOT EXISTS measures "
                    "(path BLOB PRIMARY KEY, size INT, changed INT, duration REAL, hash TEXT)"
                )
            except (OSError, sqlite3.Error) as error:
                raise InputError(
                    f"{self.file}: cannot be used ({error}); delete it or choose another --out"
                ) from None
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self._database.close()

    def get(self, path: Path) -> Measured | None:
        """What is known of the file as it is now."""
        if self.file is None:
            return None
        row = self._database.execute(
            "SELECT size, changed, duration, hash FROM measures WHERE path = ?", (_stored(str(path)),)
        ).fetchone()
        known = None if row is None else Measured(path, *row)
        return known if known is not None and (known.size, known.changed) == _state(path) else None

    def put(self, measured: Measured) -> None:
        if self.file is not None:
            row = (_stored(str(measured.path)), measured.size, measured.changed, measured.duration, measured.hash)
            self._database.execute("INSERT OR REPLACE INTO measures VALUES (?, ?, ?, ?, ?)", row)

    def discard(self) -> None:
        """Delete the file: the import is whole."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Found:
    labelled: Labelled
    paths: list[Path]
    known: Measured | None


class SoundIndex:
    """Where the sounds of a folder lie, by path and by stem. The list is kept on disk, not in memory."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder}: is not a folder; name the folder that holds the sounds")
        self.folder = folder

    def __enter__(self) -> SoundIndex:
        self._temporary = tempfile.TemporaryDirectory(prefix="relisten-")
        self._database = sqlite3.connect(Path(self._temporary.name) / "sounds.sqlite", isolation_level=None)
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("CREATE TABLE sounds (stem BLOB, path BLOB)")
        self._database.execute("BEGIN")
        self._database.executemany(
            "INSERT INTO sounds VALUES (?, ?)",
            (
                (_stored(Path(name).stem), _stored(str(Path(parent, name))))
                for parent, _, names in os.walk(self.folder, followlinks=True)
                for name in names
                if _is_sound(name)
            ),
        )
        self._database.execute("CREATE INDEX by_stem ON sounds (stem)")
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()
        self._temporary.cleanup()

    def find(self, names: Sequence[str]) -> list[Path]:
        """The sound with one of these names, the first name first: as a path under the folder, then as a stem.

        A stem that several files share is settled by the folders in the name, or by another name; else all of them
        are found.
        """
        shared: list[Path] = []
        for name in names:
            path = self.folder / name
            if _is_sound(name) and path.is_file():
                return [path]
        for name in names:
            wanted = stem(name) if _is_sound(name) else name
            found = self._database.execute("SELECT path FROM sounds WHERE stem = ?", (_stored(wanted),))
            rows = [Path(row[0].decode("utf-8", "surrogatepass")) for row in found]
            if len(rows) == 1:
                return rows
            shared = shared or sorted(rows)
        return shared


def _stored(text: str) -> bytes:
    """As SQLite takes it: names of files need not be UTF-8."""
    return text.encode("utf-8", "surrogatepass")


def _is_sound(name: str) -> bool:
    return "\0" not in name and Path(name).suffix.lower() in SOUND_ENDINGS


def _state(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def _checked(
    format: LabelFormat, folder: Path, options: ImportOptions, item: _Found | LabelProblem
) -> tuple[list[ClipRecord | LabelProblem], Measured | None]:
    """What becomes of a clip's labels, and what was measured of its sound."""
    if isinstance(item, LabelProblem):
        return [item], None
    labelled = item.labelled
    if len(item.paths) != 1:
        return [LabelProblem(labelled.where, _not_one(labelled, item.paths, folder))], None
    (path,) = item.paths
    sound = item.known
    if sound is None:
        try:
            clip = Clip.load(path)
        except InputError as error:
            return [LabelProblem(labelled.where, str(error))], None
        sound = Measured(path, *_state(path), clip.duration, clip.hash)
    findings: list[LabelProblem] = []
    resolution = next(
        value for value in (options.resolution, labelled.resolution, format.resolution) if value is not None
    )
    events = turns = None
    if labelled.events is not None:
        events = _inside(labelled.events, "label", sound.duration, resolution, findings)
        events = _untangled(events, findings)
    if labelled.turns is not None:
        turns = _inside(labelled.turns, "turn", sound.duration, resolution, findings)
    music = None if labelled.music is None else _music_inside(labelled, sound.duration, findings)
    lost = any(finding.bad for finding in findings)
    record = ClipRecord(
        id=labelled.clip,
        audio=path,
        duration=round(sound.duration, 6),
        hash=sound.hash,
        source=labelled.source,
        split=options.split or labelled.split,
        resolution=resolution,
        label_set=options.label_set or labelled.label_set or (format.label_set if events is not None else ""),
        complete=labelled.complete and not lost,
        events=None if events is None else tuple(event.item for event in events),
        turns=None if turns is None else tuple(turn.item for turn in turns),
        music=music,
        metadata=labelled.metadata,
    )
    return [*findings, record], sound


def _not_one(labelled: Labelled, paths: Sequence[Path], folder: Path) -> str:
    if not paths:
        names = ", ".join((labelled.names or (labelled.clip,))[:_TOLD])
        return f"no sound under {folder} is called {names}; left out"
    told = ", ".join(str(path.relative_to(folder)) for path in paths[:_TOLD])
    more = ", ..." if len(paths) > _TOLD else ""
    return f"{len(paths)} sounds under {folder} are called {paths[0].stem} ({told}{more}); keep one"


def _span(item: LabelledEvent | Turn) -> tuple[float, float]:
    return (item.onset, item.offset) if isinstance(item, LabelledEvent) else (item.start, item.end)


def _name(item: LabelledEvent | Turn) -> str:
    return item.label if isinstance(item, LabelledEvent) else item.speaker


def _inside(
    items: Sequence[Placed[L]], what: str, duration: float, resolution: float, findings: list[LabelProblem]
) -> list[Placed[L]]:
    """The items that lie in the clip, sorted; ends a trifle past it are cut, the rest is reported."""
    kept = []
    slack = max(SLACK, resolution)
    for placed in items:
        start, end = _span(placed.item)
        name = _name(placed.item)
        if isinstance(placed.item, LabelledEvent) and not placed.item.label.strip():
            findings.append(LabelProblem(placed.where, f"the label at {start:g} s is empty; name the sound"))
        elif not 0 <= start <= end:
            message = f"{what} {name!r} spans {start:g} to {end:g} s; it needs 0 <= start <= end"
            findings.append(LabelProblem(placed.where, message))
        elif start >= duration or end > duration + slack:
            message = f"{what} {name!r} spans {start:g} to {end:g} s of a clip of {duration:.3f} s; mend its times"
            findings.append(LabelProblem(placed.where, message))
        else:
            last: dict[str, Any] = {
                "offset" if isinstance(placed.item, LabelledEvent) else "end": min(end, round(duration, 6))
            }
            kept.append(Placed(placed.where, replace(placed.item, **last)))
    return sorted(kept, key=lambda placed: (*_span(placed.item), _name(placed.item)))


def _untangled(events: list[Placed[LabelledEvent]], findings: list[LabelProblem]) -> list[Placed[LabelledEvent]]:
    """Without exact repeats; labels that overlap one of the same name stay, and are told of."""
    kept: list[Placed[LabelledEvent]] = []
    latest: dict[str, Placed[LabelledEvent]] = {}
    for placed in events:
        event = placed.item
        before = latest.get(event.label)
        if before is not None and _span(before.item) == _span(event):
            findings.append(
                LabelProblem(placed.where, f"repeats {event.label!r} of {before.where}; kept once", bad=False)
            )
            continue
        if before is not None and event.onset < before.item.offset - _OVERLAP:
            message = (
                f"{event.label!r} from {event.onset:g} s begins before the one of {before.where} ends at "
                f"{before.item.offset:g} s; both kept, and not counted in questions"
            )
            findings.append(LabelProblem(placed.where, message, bad=False))
        kept.append(placed)
        if before is None or event.offset >= before.item.offset:
            latest[event.label] = placed
    return kept


def _music_inside(labelled: Labelled, duration: float, findings: list[LabelProblem]) -> Music | None:
    music = labelled.music
    if music is None:
        return None
    if music.tempo is not None and not SLOWEST <= music.tempo < math.inf:
        message = f"a tempo of {music.tempo:g} beats a minute is none; it is left out"
        findings.append(LabelProblem(labelled.where, message))
        music = replace(music, tempo=None)
    times = (*music.beats, *music.downbeats, *(chord.start for chord in music.chords))
    outside = [at for at in times if not 0 <= at <= duration + SLACK]  # which NaN is, too
    if outside:
        message = (
            f"a beat or chord at {outside[0]:g} s lies outside a clip of {duration:.3f} s; "
            "its musical times are left out"
        )
        findings.append(LabelProblem(labelled.where, message))
        music = replace(music, beats=(), downbeats=(), chords=())
    return music
