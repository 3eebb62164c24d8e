"""One label file a clip: Audacity label tracks and JAMS (Scaper)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from relisten.data.labels.base import (
    Labelled,
    LabelProblem,
    Placed,
    no_times,
    read_lines,
    read_text,
    seconds,
    stem,
)
from relisten.data.manifest import NO_CHORD, Chord, LabelledEvent, Music

_EVENTS: Final = ("scaper", "sound_event", "segment_open", "tag_open")


def read_audacity(files: Sequence[Path], names: Mapping[str, str]) -> Iterator[Labelled | LabelProblem]:
    """Audacity label track: `start<TAB>end<TAB>label` in a file named as the clip; frequency lines are ignored."""
    for path in files:
        events: list[Placed[LabelledEvent]] = []
        complete = True
        for line in read_lines(path):
            if isinstance(line, LabelProblem):
                complete = False
                yield line
                continue
            where, text = line
            if text.startswith("\\"):
                continue
            cells = [cell.strip() for cell in text.split("\t")]
            cells += [""] * (3 - len(cells))
            onset, offset = seconds(cells[0]), seconds(cells[1])
            if onset is None or offset is None:
                complete = False
                yield no_times(where, cells[:2])
                continue
            label = " ".join(cells[2:]).strip()
            events.append(Placed(where, LabelledEvent(onset, offset, names.get(label, label))))
        yield Labelled(f"{path}:1", path.stem, events=tuple(events), source=path.stem, complete=complete)


def read_jams(files: Sequence[Path], names: Mapping[str, str]) -> Iterator[Labelled | LabelProblem]:
    """JAMS: Scaper's foreground events, or open tags; beats, chords, key and tempo where there are any.

    The sound is looked for under the name of the JAMS file, then under the one that Scaper noted.
    """
    for path in files:
        text = read_text(path)
        if isinstance(text, LabelProblem):
            yield text
            continue
        try:
            jams = json.loads(text)
            annotations = jams["annotations"]
            namespaces = [(item["namespace"], _observations(item["data"])) for item in annotations]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            yield LabelProblem(
                str(path), f"is not a JAMS file ({error}); it needs annotations with namespace and data"
            )
            continue
        noted = _noted_name(jams, annotations)
        events: list[Placed[LabelledEvent]] | None = None
        facts: dict[str, list[dict[str, Any]]] = {}
        complete = True
        for number, (namespace, rows) in enumerate(namespaces):
            if namespace not in _EVENTS:
                facts.setdefault(namespace, []).extend(rows)
                continue
            events = events or []
            for at, row in enumerate(rows):
                found = _jams_event(f"{path}:annotation {number + 1}, row {at + 1}", row, names)
                if isinstance(found, LabelProblem):
                    complete = False
                    yield found
                elif found is not None:
                    events.append(found)
        try:
            music = _jams_music(facts)
        except (KeyError, TypeError, ValueError) as error:
            music = None
            yield LabelProblem(
                str(path), f"has a beat, chord, key or tempo that is none ({error!r}); facts left out"
            )
        yield Labelled(
            str(path),
            path.stem,
            (path.stem, *((noted, stem(noted)) if noted else ())),
            events=None if events is None else tuple(events),
            music=music,
            source=path.stem,
            complete=complete,
        )


def _observations(data: Any) -> list[dict[str, Any]]:
    """Rows of an annotation; JAMS stores a list of them, or one list a field."""
    if isinstance(data, dict):
        fields = list(data)
        return [dict(zip(fields, row, strict=True)) for row in zip(*data.values(), strict=True)]
    return [dict(row) for row in data]


def _noted_name(jams: Any, annotations: Any) -> str:
    """The sound file's name as Scaper wrote it down."""
    for box in (jams, *annotations):
        scaper = (box.get("sandbox") or {}).get("scaper") if isinstance(box, dict) else None
        if isinstance(scaper, dict) and isinstance(scaper.get("soundscape_audio_path"), str):
            return stem(scaper["soundscape_audio_path"])
    return ""


def _jams_event(
    where: str, row: dict[str, Any], names: Mapping[str, str]
) -> Placed[LabelledEvent] | LabelProblem | None:
    value = row.get("value")
    if isinstance(value, dict) and value.get("role") == "background":
        return None
    label = value.get("label") if isinstance(value, dict) else value
    onset, length = row.get("time"), row.get("duration")
    if not isinstance(onset, (int, float)) or not isinstance(length, (int, float)) or not isinstance(label, str):
        return LabelProblem(
            where, f"has time {onset!r}, duration {length!r}, label {label!r}; mend the observation"
        )
    confidence = row.get("confidence")
    sure = confidence if isinstance(confidence, (int, float)) and 0 <= confidence <= 1 else None
    return Placed(where, LabelledEvent(float(onset), float(onset + length), names.get(label, label), sure))


def _jams_music(facts: Mapping[str, list[dict[str, Any]]]) -> Music | None:
    beats = facts.get("beat", [])
    chords = sorted(facts.get("chord", []), key=lambda row: float(row["time"]))
    key = [str(row["value"]) for row in facts.get("key_mode", []) if row.get("value") not in (None, "N")]
    tempo = [float(row["value"]) for row in facts.get("tempo", []) if isinstance(row.get("value"), (int, float))]
    if not (beats or chords or key or tempo):
        return None
    return Music(
        beats=tuple(sorted(float(row["time"]) for row in beats)),
        downbeats=tuple(sorted(float(row["time"]) for row in beats if row.get("value") == 1)),
        chords=tuple(Chord(float(row["time"]), str(row["value"]) or NO_CHORD) for row in chords),
        # A piece that changes its key has no single one.
        key=key[0].replace(":", " ") if len(set(key)) == 1 else None,
        tempo=tempo[0] if len(tempo) == 1 else None,
    )
