"""`relisten data compose`: questions by rule from any manifest."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from relisten.cli.data.progress import counting
from relisten.cli.data.together import refuse_without
from relisten.cli.outputs import refuse_same
from relisten.cli.words import plural
from relisten.data.compose import GROUPS, ComposeOptions, compose, kinds_named
from relisten.data.subject import Style
from relisten.errors import InputError
from relisten.files import make_folder, replacing
from relisten.processes import usable_processors
from relisten.tools.tool import require_tools

_SHOWN = 20


def compose_(
    manifest: Annotated[Path, typer.Argument(help="The manifest of labelled clips (JSONL).")],
    out: Annotated[Path, typer.Option(help="The file of questions to write (JSONL).")],
    per_clip: Annotated[int, typer.Option(help="Most questions about one clip.")] = 5,
    kinds: Annotated[
        str,
        typer.Option(help=f"Kinds to ask, with commas between; or groups: {', '.join(GROUPS)}. All by default."),
    ] = "",
    per_kind: Annotated[
        int, typer.Option(help="Most questions of one kind in all, for an even mix of kinds; 0 for no limit.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Another seed asks other questions.")] = 0,
    style: Annotated[
        Style, typer.Option(help="Reasoning in full sentences, or short as echo-tiny is trained on.")
    ] = Style.FULL,
    min_confidence: Annotated[
        float, typer.Option(help="Clips with an event whose label is less sure are not asked about their sounds.")
    ] = 0.5,
    tools: Annotated[
        str, typer.Option(help="Audio tools, with commas between: some questions show what they found.")
    ] = "",
    tool_share: Annotated[
        float | None, typer.Option(help="With --tools: how many of the questions show it.", show_default="0.5")
    ] = None,
    processes: Annotated[int, typer.Option(help="Processes; 0 takes every processor. The output is the same.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Make questions with exact answers and grounded reasoning from labels alone; what is in doubt is not asked.

    Exit status: 0 if there is any question, 2 if not.
    """
    refuse_same(out, manifest)
    chosen = tuple(filter(None, tools.split(",")))
    require_tools(chosen)
    if not chosen:
        refuse_without({"--tool-share": tool_share}, "--tools")
    options = ComposeOptions(
        per_clip, kinds_named(filter(None, kinds.split(","))), seed, style, min_confidence, chosen,
        0.5 if tool_share is None else tool_share, per_kind,
    )  # fmt: skip
    refused: Counter[str] = Counter()
    clips = questions = bad = 0
    cache = out.with_name(f"{out.name}.tools") if chosen else None
    stretches = compose(manifest, out.parent, options, processes or usable_processors(), cache)
    make_folder(out.parent)
    with replacing(out) as file:
        for stretch in counting(stretches, "clips (64 at a time)", sys.stderr):
            file.writelines(stretch.rows)
            clips += stretch.clips
            questions += len(stretch.rows)
            refused.update(stretch.refused)
            for error in stretch.bad:
                bad += 1
                if bad <= _SHOWN:
                    print(error, file=sys.stderr)
        if not questions:
            raise InputError(f"{manifest}: allows no question ({_reasons(refused) or 'it has no good row'})")
    if as_json:
        print(
            json.dumps(
                {"out": str(out), "clips": clips, "questions": questions, "refused": dict(refused), "bad_rows": bad}
            )
        )
        return
    print(f"{plural(questions, 'question')} about {clips - refused.total()} of {plural(clips, 'clip')} -> {out}")
    if refused:
        print(f"not asked about: {_reasons(refused)}")
    if bad:
        print(f"{plural(bad, 'bad row')} passed over")


def _reasons(refused: Counter[str]) -> str:
    return "; ".join(f"{plural(number, 'clip')} {reason}" for reason, number in refused.most_common())
