"""`relisten data import`: label files of many formats into one manifest."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Annotated

import typer

from relisten.cli.data.progress import counting
from relisten.cli.outputs import refuse_same, refuse_twice
from relisten.cli.words import plural
from relisten.data.labels import FORMATS, ImportOptions, LabelProblem, import_labels, read_names
from relisten.data.manifest import ClipRecord, write_manifest
from relisten.data.synth import OTHER_NAMES
from relisten.errors import InputError
from relisten.files import make_folder, replacing
from relisten.jsonl import dump_row
from relisten.processes import usable_processors

_SHOWN = 20


def import_(
    format: Annotated[str, typer.Argument(help=f"How the labels are written: {', '.join(FORMATS)}.")],
    labels: Annotated[Path, typer.Argument(help="The label file, or a folder of them.")],
    audio: Annotated[Path, typer.Option(help="Folder with the sounds, searched through all its folders.")],
    out: Annotated[Path, typer.Option(help="The manifest to write (JSONL).")],
    names: Annotated[
        Path | None, typer.Option(help="Table of label codes and names, as AudioSet's mid_to_display_name.tsv.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad row.")] = False,
    split: Annotated[str, typer.Option(help="The split to note for every clip (train, validation, test).")] = "",
    label_set: Annotated[str, typer.Option(help="Name of the list of labels that was searched for.")] = "",
    resolution: Annotated[
        float | None, typer.Option(help="How exact the labels' times are, in seconds.", show_default="the format's")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write every finding to this file, one JSON row each.")
    ] = None,
    processes: Annotated[int, typer.Option(help="Processes that read sounds; 0 takes every processor.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Import labels into a manifest; every sound is found, measured and hashed, every label checked against it.

    Bad rows are told with file, line and reason, and left out; the clips they were about are marked, and no
    question will count on them. An import that was stopped is given again: sounds it had read are not read
    again. Exit status: 0 if any clip came through, 2 if none did.
    """
    if format not in FORMATS:
        known = "".join(f"\n  {name:<11}{kind.about}" for name, kind in FORMATS.items())
        raise InputError(f"label format {format!r} is unknown; use one of{known}")
    read = FORMATS[format].files_of(labels)
    for target in (out, report):
        if target is not None:
            refuse_same(target, *read, *([] if names is None else [names]))
    refuse_twice(out, report, "--report")
    codes = {} if names is None else read_names(names)
    if isinstance(codes, LabelProblem):
        raise InputError(str(codes))
    if resolution is not None and not 0 <= resolution <= 10:
        raise InputError(f"--resolution {resolution:g}: give 0 to 10 seconds")
    measures = out.with_name(f"{out.name}.measures")
    split = OTHER_NAMES.get(split, split)
    options = ImportOptions(split, resolution, label_set, processes or usable_processors(), measures)
    found = _Findings(strict, report)
    counts: Counter[str] = Counter()

    def clips() -> Iterator[ClipRecord]:
        for item in counting(import_labels(FORMATS[format], labels, audio, codes, options), "clips", sys.stderr):
            if isinstance(item, LabelProblem):
                found.add(item)
                continue
            counts["clips"] += 1
            counts["events"] += len(item.events or ())
            counts["turns"] += len(item.turns or ())
            counts["with music"] += item.music is not None
            counts["not complete"] += not item.complete
            counts["milliseconds"] += round(item.duration * 1000)
            yield item
        if not counts["clips"]:
            raise InputError(
                f"{labels}: no clip came through; the first reason: {found.first or 'it holds no label'}"
            )

    with found:
        write_manifest(out, clips())
    summary = {
        "manifest": str(out),
        "clips": counts["clips"],
        "hours": round(counts["milliseconds"] / 3.6e6, 4),
        "events": counts["events"],
        "turns": counts["turns"],
        "with_music": counts["with music"],
        "not_complete": counts["not complete"],
        "bad_rows": found.bad,
        "warnings": found.noticed,
    }
    if as_json:
        print(json.dumps(summary))
    else:
        print(
            f"{plural(counts['clips'], 'clip')} ({summary['hours']:.2f} h), {plural(counts['events'], 'event')}, "
            f"{plural(counts['turns'], 'turn')}, {summary['with_music']} with musical facts -> {out}"
        )
        incomplete = f"{plural(counts['not complete'], 'clip')} not complete"
        print(f"{plural(found.bad, 'bad row')} left out ({incomplete}), {plural(found.noticed, 'warning')}")


class _Findings:
    """Counts what was found, shows the first ones, and lists all of them where asked."""

    def __init__(self, strict: bool, report: Path | None) -> None:
        self.bad = self.noticed = 0
        self.first = ""
        self._strict = strict
        self._path = report
        self._file: IO[str] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> None:
        if self._path is not None:
            make_folder(self._path.parent)
            self._file = self._stack.enter_context(replacing(self._path))

    def __exit__(self, *_: object) -> None:
        self._stack.close()  # without the error of an import that failed: the file says why
        hidden = self.bad + self.noticed - _SHOWN
        if hidden > 0:
            listed = "" if self._path is not None else "; --report FILE lists all of them"
            print(f"... and {hidden} more{listed}", file=sys.stderr)

    def add(self, finding: LabelProblem) -> None:
        self.first = self.first or str(finding)
        if finding.bad and self._strict:
            raise InputError(f"{finding} (--strict stops here)")
        self.bad += finding.bad
        self.noticed += not finding.bad
        if self.bad + self.noticed <= _SHOWN:
            print(finding if finding.bad else f"{finding} (warning)", file=sys.stderr)
        if self._file is not None:
            self._file.write(dump_row({"where": finding.where, "reason": finding.message, "bad": finding.bad}))
