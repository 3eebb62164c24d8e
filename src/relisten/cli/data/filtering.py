"""`relisten data filter`: drop or tag questions that are there twice, leak between splits, or need no sound."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from relisten.cli.data.progress import counting
from relisten.cli.data.together import refuse_without
from relisten.cli.outputs import refuse_same, refuse_twice
from relisten.cli.words import plural
from relisten.data.examples import Example, example_row, read_examples, write_examples
from relisten.data.filters import Filter, Sifted, drop_answered_without_sound, drop_duplicates, drop_shared
from relisten.errors import InputError
from relisten.files import make_folder, replacing
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
    tries: Annotated[
        int | None,
        typer.Option(help="Silent tries a question gets, its choices turned each time.", show_default="4"),
    ] = None,
    at_least: Annotated[
        float | None,
        typer.Option(help="Share of right tries from which on a question goes.", show_default="1.0"),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Temperature of the silent tries.", show_default="0.7")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the silent tries.", show_default="0")] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Of the silent tries: cpu, cuda, cuda:1, ...; auto takes a GPU if there is one.",
            show_default="auto",
        ),
    ] = None,
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
    refuse_twice(out, dropped, "--dropped")
    if silent is None:
        refuse_without(
            {
                "--tries": tries, "--at-least": at_least, "--temperature": temperature, "--seed": seed,
                "--device": device,
            },
            "--silent",
        )  # fmt: skip
    outcome = _Outcome(dropped, tag)
    filters: list[Filter] = [drop_duplicates] if duplicates else []
    for other in not_in or ():
        if other.resolve() == examples.resolve():
            raise InputError(f"{other}: is the file to be filtered; --not-in names another split")
        filters.append(drop_shared(outcome.good(other)))
    with ExitStack() as stack:
        if silent is not None:
            listener = stack.enter_context(Listener.load(silent, device=device or "auto"))
            filters.append(
                drop_answered_without_sound(
                    listener,
                    tries=4 if tries is None else tries,
                    at_least=1.0 if at_least is None else at_least,
                    format=Format.INTERLEAVED,
                    temperature=0.7 if temperature is None else temperature,
                    seed=seed or 0,
                )
            )
        rows: Iterator[Sifted] = (Sifted(row) for row in counting(outcome.good(examples), "examples", sys.stderr))
        for one in filters:
            rows = one(rows)
        if dropped is not None:
            make_folder(dropped.parent)
            outcome.file = stack.enter_context(replacing(dropped))
        written = write_examples(out, outcome.staying(rows))
    if as_json:
        print(json.dumps(outcome.summary(written)))
    else:
        outcome.tell(out)


class _Outcome:
    """Counts what stays and what goes, shows the first bad rows, and writes what goes to a file where asked."""

    def __init__(self, dropped: Path | None, tag: bool) -> None:
        self._path = dropped
        self._tag = tag
        self._counts: Counter[str] = Counter()
        self._kept = self._bad = self._not_asked = 0
        self._first_note = ""
        self.file: IO[str] | None = None
        """Takes what goes, with paths relative to the folder of `dropped`."""

    def good(self, path: Path) -> Iterator[Example]:
        """The good rows of a file; bad ones are told."""
        for row in read_examples(path):
            if isinstance(row, InputError):
                self._bad += 1
                if self._bad <= _SHOWN:
                    print(row, file=sys.stderr)
            else:
                yield row

    def staying(self, rows: Iterator[Sifted]) -> Iterator[Example]:
        """What is to be written."""
        for row in rows:
            if row.note:
                self._not_asked += 1
                self._first_note = self._first_note or f"question {row.example.question.id!r}: {row.note}"
            if row.reason:
                self._counts[row.reason.partition(" ")[0]] += 1
            else:
                self._kept += 1
            if row.reason and self._path is not None and self.file is not None:
                self.file.write(dump_row(example_row(row.tagged(), self._path.parent)))
            if self._tag or not row.reason:
                yield row.tagged()

    def summary(self, written: int) -> dict[str, Any]:
        return {
            "kept": self._kept,
            "written": written,
            "dropped": dict(self._counts),
            "bad_rows": self._bad,
            "not_asked": self._not_asked,
        }

    def tell(self, out: Path) -> None:
        what = "tagged" if self._tag else "dropped"
        reasons = ", ".join(f"{name} {number}" for name, number in self._counts.most_common())
        print(f"{self._kept} kept, {self._counts.total()} {what}{f' ({reasons})' if reasons else ''} -> {out}")
        if self._bad:
            print(f"{plural(self._bad, 'bad row')} left out", file=sys.stderr)
        if self._not_asked:
            asked = f"{plural(self._not_asked, 'question')} kept that could not be asked in silence"
            print(f"{asked}; {self._first_note}", file=sys.stderr)
