"""`relisten data filter`: drop or tag questions that are there twice, leak between splits, or need no sound."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, TextIO

import typer

from relisten.cli.data.progress import counting
from relisten.cli.outputs import refuse_same
from relisten.data.examples import Example, example_row, read_examples, write_examples
from relisten.data.filters import Filter, Sifted, drop_answered_without_sound, drop_duplicates, drop_shared
from relisten.errors import InputError
from relisten.jsonl import dump_row
from relisten.listener import Listener
from relisten.protocol import Format

_SHOWN = 10


def filter_(
    examples: Annotated[Path, typer.Argument(help="The examples (JSONL).")],
    out: Annotated[Path, typer.Option(help="Where those that stay are written.")],
    duplicates: Annotated[
        bool, typer.Option("--duplicates/--keep-duplicates", help="Drop what is asked twice of one clip.")
    ] = True,
    not_in: Annotated[
        list[Path] | None, typer.Option(help="Drop what shares a clip or source with this file. May be repeated.")
    ] = None,
    silent: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Drop what this model gets right with the sound silenced.")
    ] = None,
    tries: Annotated[int, typer.Option(help="Silent tries a question gets, its choices turned each time.")] = 4,
    at_least: Annotated[float, typer.Option(help="Share of right tries from which on a question goes.")] = 1.0,
    temperature: Annotated[float, typer.Option(help="Of the silent tries.")] = 0.7,
    seed: Annotated[int, typer.Option(help="Of the silent tries.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; auto takes a GPU if there is one.")] = "auto",
    tag: Annotated[
        bool, typer.Option("--tag", help="Keep everything; write the reason into the metadata as 'filtered'.")
    ] = False,
    dropped: Annotated[Path | None, typer.Option(help="Also write what is dropped, tagged, to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Filter examples: duplicates, leakage between splits, questions that need no listening.

    A question goes by the audio-contribution filter if a model answers it right with silence in place of the sound,
    in every one of several tries. Bad rows are told and left out. Exit status: 0, or 2 for bad input.
    """
    for target in (out, dropped):
        if target is not None:
            refuse_same(target, examples, *(not_in or ()))
    filters: list[Filter] = [drop_duplicates] if duplicates else []
    bad: list[InputError] = []
    not_asked = 0
    first_note = ""
    counts: Counter[str] = Counter()

    def good(path: Path) -> Iterator[Example]:
        for row in read_examples(path):
            if isinstance(row, InputError):
                bad.append(row)
                if len(bad) <= _SHOWN:
                    print(row, file=sys.stderr)
            else:
                yield row

    for other in not_in or ():
        if other.resolve() == examples.resolve():
            raise InputError(f"{other}: is the file to be filtered; --not-in names another split")
        filters.append(drop_shared(good(other)))

    def staying(rows: Iterator[Sifted], gone: TextIO | None) -> Iterator[Example]:
        nonlocal not_asked, first_note
        for row in rows:
            if row.note:
                not_asked += 1
                first_note = first_note or f"question {row.example.question.id!r}: {row.note}"
            counts[row.reason.partition(" ")[0] or "kept"] += 1
            if row.reason and gone is not None and dropped is not None:
                gone.write(dump_row(example_row(row.tagged(), dropped.parent)))
            if tag or not row.reason:
                yield row.tagged()

    with ExitStack() as stack:
        if silent is not None:
            listener = stack.enter_context(Listener.load(silent, device=device))
            filters.append(
                drop_answered_without_sound(
                    listener, tries=tries, at_least=at_least, format=Format.INTERLEAVED, temperature=temperature,
                    seed=seed,
                )
            )  # fmt: skip
        rows: Iterator[Sifted] = (Sifted(row) for row in counting(good(examples), "examples", sys.stderr))
        for one in filters:
            rows = one(rows)
        gone = None if dropped is None else stack.enter_context(_opened(dropped))
        written = write_examples(out, staying(rows, gone))
    kept = counts.pop("kept", 0)
    problems = {"bad_rows": len(bad), "not_asked": not_asked}
    if as_json:
        print(json.dumps({"kept": kept, "written": written, "dropped": dict(counts), **problems}))
        return
    what = "tagged" if tag else "dropped"
    reasons = ", ".join(f"{name} {number}" for name, number in counts.most_common())
    print(f"{kept} kept, {sum(counts.values())} {what}{f' ({reasons})' if reasons else ''} -> {out}")
    if bad:
        print(f"{len(bad)} bad rows left out", file=sys.stderr)
    if not_asked:
        print(f"{not_asked} questions kept that could not be asked in silence; {first_note}", file=sys.stderr)


def _opened(path: Path) -> TextIO:
    try:
        return path.open("w", encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); give another --dropped file") from None
