"""Our own manifests, as `relisten data simulate` writes them, checked again against the sound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from relisten.data.labels.base import Labelled, LabelProblem, Placed
from relisten.data.manifest import read_manifest
from relisten.errors import InputError


def read_scenes(files: Sequence[Path], names: Mapping[str, str]) -> Iterator[Labelled | LabelProblem]:
    """A manifest: its labels are taken over, the sound is looked for in the folder given."""
    for path in files:
        for record in read_manifest(path):
            if isinstance(record, InputError):
                where, _, message = str(record).partition(": ")
                yield LabelProblem(where, message)
                continue
            where = f"{path}: {record.id}"
            events = None
            if record.events is not None:
                named = (replace(event, label=names.get(event.label, event.label)) for event in record.events)
                events = tuple(Placed(where, event) for event in named)
            yield Labelled(
                where,
                record.id,
                (record.audio.name,),
                events=events,
                turns=None if record.turns is None else tuple(Placed(where, turn) for turn in record.turns),
                music=record.music,
                source=record.source,
                label_set=record.label_set,
                resolution=record.resolution,
                split=record.split,
                complete=record.complete,
                metadata=record.metadata,
            )
