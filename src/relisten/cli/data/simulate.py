"""`relisten data simulate`: scenes with exact labels, at any number."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from relisten.cli.data.progress import counting
from relisten.cli.data.together import refuse_without
from relisten.cli.words import plural
from relisten.data.mixing import MixSpec, find_sources
from relisten.data.scenes import SceneSpec
from relisten.data.simulating import MANIFEST, SimulatedSet, SimulateOptions
from relisten.errors import InputError
from relisten.processes import usable_processors

_SHOWN = 20


def simulate(
    out: Annotated[Path, typer.Option(help="Folder for the clips and their manifest.")],
    count: Annotated[int, typer.Option(help="How many clips the folder shall hold.")] = 1000,
    seed: Annotated[int, typer.Option(help="Another seed makes other clips.")] = 0,
    split: Annotated[
        str,
        typer.Option(
            help="train, validation or test; splits share no sounds, but for labels of --sources with fewer than 5."
        ),
    ] = "train",
    sources: Annotated[
        Path | None, typer.Option(help="Mix your own recordings: a folder with one sub-folder for each label.")
    ] = None,
    backgrounds: Annotated[
        Path | None, typer.Option(help="With --sources or --speech: recordings to loop.")
    ] = None,
    speech: Annotated[bool, typer.Option("--speech", help="Conversations of several voices (espeak-ng).")] = False,
    seconds: Annotated[
        tuple[float, float] | None,
        typer.Option(
            help="Shortest and longest clip.",
            show_default="4 to 10, a few to 30; with --sources or --speech 6 to 12",
        ),
    ] = None,
    events: Annotated[
        tuple[int, int] | None,
        typer.Option(help="Fewest and most events of a clip.", show_default="as the mode says"),
    ] = None,
    pitch: Annotated[
        float | None, typer.Option(help="With --sources: semitones up or down at most.", show_default="2")
    ] = None,
    stretch: Annotated[
        float | None, typer.Option(help="With --sources: part longer or shorter at most.", show_default="0.1")
    ] = None,
    snr: Annotated[
        tuple[float, float] | None,
        typer.Option(help="With --sources or --speech: dB over the background.", show_default="6 to 30"),
    ] = None,
    processes: Annotated[int, typer.Option(help="Processes; 0 takes every processor. The output is the same.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Simulate clips whose labels are exact: synthetic scenes, mixed recordings, or spoken conversations.

    A folder that is there already is completed: finished clips stay, whatever ended the run before. A larger
    --count lets it grow.
    """
    if count < 1:
        raise InputError(f"--count {count}: it must be 1 or more")
    mixed = sources is not None or speech
    if sources is None:
        refuse_without({"--pitch": pitch, "--stretch": stretch}, "--sources")
    if not mixed:
        refuse_without({"--backgrounds": backgrounds, "--snr": snr}, "--sources or --speech")
    spec = SceneSpec()
    if seconds is not None:
        spec = SceneSpec(duration=seconds, long_duration=seconds, long_share=0.0)
    usual = MixSpec()
    mix = MixSpec(
        duration=seconds or usual.duration,
        events=events or usual.events,
        pitch=usual.pitch if pitch is None else (-pitch, pitch),
        stretch=usual.stretch if stretch is None else (1 - stretch, 1 + stretch),
        snr=snr or usual.snr,
    )
    if events is not None and not mixed:
        spec = replace(spec, events=events)
    found = find_sources(sources, backgrounds) if sources is not None or backgrounds is not None else None
    options = SimulateOptions(split, seed, spec, mix, found, speech)
    problems: Counter[str] = Counter()
    begun = time.monotonic()
    with SimulatedSet(out, options) as made:
        before = made.finished
        new = made.grow(count, processes or usable_processors())
        for clip in counting(new, "clips", sys.stderr, max(0, count - before)):
            for problem in clip.problems:
                problems[problem] += 1
                if problems[problem] == 1 and len(problems) <= _SHOWN:
                    print(problem, file=sys.stderr)
    took = time.monotonic() - begun
    summary = {
        "manifest": str(out / MANIFEST),
        "clips": made.finished,
        "new": made.finished - before,
        "seconds": round(took, 2),
        "unusable_recordings": len(problems),
    }
    if as_json:
        print(json.dumps(summary))
        return
    fresh = made.finished - before
    rate = f", {fresh / took:.0f} a second" if fresh / took >= 1 else ""
    print(f"{plural(made.finished, 'clip')} ({fresh} new{rate}) -> {out / MANIFEST}")
    if problems:
        print(f"{plural(len(problems), 'recording')} could not be used")
