"""`relisten data export`: examples in the formats of ms-swift, verl and Hugging Face datasets."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from relisten.cli.data.progress import counting
from relisten.cli.outputs import refuse_same
from relisten.cli.words import plural
from relisten.data.examples import read_examples
from relisten.data.export import FORMATS, export_examples
from relisten.data.export.base import ExportOptions
from relisten.errors import InputError
from relisten.protocol import Format

_SHOWN = 10


def export(
    kind: Annotated[str, typer.Argument(metavar="FORMAT", help=f"{', '.join(FORMATS)}.")],
    examples: Annotated[Path, typer.Argument(help="Questions with responses, or answers (JSONL).")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    validation: Annotated[float, typer.Option(help="Share of clips for the validation split.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Decides which clips these are.")] = 0,
    format: Annotated[Format, typer.Option(help="How the model is told to reason.")] = Format.INTERLEAVED,
    copy_audio: Annotated[
        bool, typer.Option("--copy-audio", help="Copy the sounds into OUT/audio instead of naming them in place.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Write examples in a trainer's format, split into train and validation by clip, never by question.

    All clips of one source lie in one split; a row that names a split of its own (validation, test) keeps it.
    Rows that cannot be used are told and left out. Exit status: 0 if any row was written, 2 if none was.
    """
    if kind not in FORMATS:
        known = "".join(f"\n  {name:<10}{format.about}" for name, format in FORMATS.items())
        raise InputError(f"export format {kind!r} is unknown; use one of{known}")
    for path in FORMATS[kind].files_of(out):
        refuse_same(path, examples)
    bad: list[InputError] = []

    def tell(error: InputError) -> None:
        bad.append(error)
        if len(bad) <= _SHOWN:
            print(error, file=sys.stderr)

    options = ExportOptions(validation, seed, format, copy_audio)
    rows = counting(read_examples(examples), "examples", sys.stderr)
    done = export_examples(rows, FORMATS[kind], out, options, tell)
    if not done.rows:
        raise InputError(
            f"{examples}: no row could be written; the first reason: {bad[0] if bad else 'it is empty'}"
        )
    if as_json:
        options_row = {**asdict(options), "format": str(format)}
        counts = {"rows": dict(done.rows), "clips": dict(done.clips), "bad_rows": done.bad}
        counts["removed"] = [str(path) for path in done.removed]
        print(json.dumps({"out": str(out), **counts, "options": options_row}))
        return
    for split, number in done.rows.items():
        print(f"{split}: {plural(number, 'example')} of {plural(done.clips[split], 'clip')}")
    if done.removed:
        print(f"removed from an export before: {', '.join(path.name for path in done.removed)}")
    print(f"{plural(done.bad, 'bad row')} left out -> {out}" if done.bad else f"-> {out}")
