"""A report: one HTML file that needs nothing else, from one or more run folders."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from relisten.errors import InputError
from relisten.evaluate.attention_curve import AttentionCurve
from relisten.evaluate.results import Run
from relisten.evaluate.scoring import Rule
from relisten.files import check_writable, make_folder
from relisten.report.html import Child, Markup, join, script_json, tag
from relisten.report.listening import listening
from relisten.report.page import asset, head, heading, save
from relisten.report.rows import Entry, entry_json, merge
from relisten.report.sections import Shown, comparison, details, overview, skills
from relisten.report.sound import AudioMode, SoundFigure, prepare

MAX_AUDIO: Final = 64.0
"""MB of sound that a page holds by default."""
_SCRIPTS: Final = (
    "vendor/wavesurfer.min.js",
    "vendor/wavesurfer-regions.min.js",
    "spectrogram.js",
    "player.js",
    "answer.js",
    "list.js",
    "page.js",
)
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Written:
    """What became of a report."""

    path: Path
    bytes: int
    entries: int
    sounds: int
    """Different sounds of the questions, those that cannot be read among them."""
    playable: int
    """Those that can be played from the page."""
    problems: tuple[str, ...]


def write_report(
    runs: Sequence[Run],
    path: str | Path,
    *,
    rule: Rule | None = None,
    audio: AudioMode = AudioMode.EMBED,
    max_audio: float = MAX_AUDIO,
    on_progress: OnProgress | None = None,
) -> Written:
    """Write the report of `runs`; comparisons are against the first.

    Args:
        rule: which answers are right; None takes the first run's own rule.
        audio: how sounds are held.
        max_audio: MB of embedded sound; the sounds of further questions are left out, and the page says so.
        on_progress: told how many of how many sounds are ready.

    Raises:
        InputError: no run, a limit below 0, or the file cannot be written.
    """
    if not runs:
        raise InputError("no run to report on; give one or more run folders")
    if max_audio < 0:
        raise InputError(f"max audio {max_audio} MB: it must be 0 or more (0 embeds none)")
    path = Path(path)
    make_folder(path.parent)
    check_writable(path, "--out")  # before the work of encoding sounds
    rule = rule or runs[0].config.rule
    shown = [
        Shown(run, name, number, rule, AttentionCurve.read(run.folder))
        for number, (run, name) in enumerate(zip(runs, _names(runs), strict=True))
    ]
    entries = merge(runs)
    sounds = _sounds(entries, audio, int(max_audio * 1e6), path, on_progress)
    notes, problems = _notes(sounds, audio, max_audio)
    save(path, *_page(shown, entries, sounds, audio, notes))
    return Written(
        path=path,
        bytes=path.stat().st_size,
        entries=len(entries),
        sounds=len(sounds),
        playable=sum(
            isinstance(sound, SoundFigure) and (sound.opus is not None or sound.link is not None)
            for sound in sounds.values()
        ),
        problems=tuple(problems),
    )


def _names(runs: Sequence[Run]) -> list[str]:
    """Folder names; with a number behind those that occur twice."""
    names = [run.name or str(run.folder) for run in runs]
    return [
        name if names.count(name) == 1 else f"{name} ({names[: number + 1].count(name)})"
        for number, name in enumerate(names)
    ]


def _sounds(
    entries: Sequence[Entry], audio: AudioMode, budget: int, page: Path, on_progress: OnProgress | None
) -> dict[str, SoundFigure | InputError]:
    """By `Entry.sound`, in order."""
    wanted = {entry.sound: entry.question for entry in entries if entry.question is not None}
    questions = [question for question in wanted.values() if question is not None]
    found: dict[str, SoundFigure | InputError] = {}
    for key, sound in zip(wanted, prepare(questions, audio, budget, page), strict=True):
        found[key] = sound
        if on_progress is not None:
            on_progress(len(found), len(wanted))
    return found


def _notes(
    sounds: dict[str, SoundFigure | InputError], audio: AudioMode, max_audio: float
) -> tuple[list[str], list[str]]:
    """What the page should say of its sounds, and the errors among them."""
    problems = [str(sound) for sound in sounds.values() if isinstance(sound, InputError)]
    silent = sum(isinstance(sound, SoundFigure) and sound.opus is None for sound in sounds.values())
    notes = [f"sound not shown: {problem}" for problem in problems]
    if audio is AudioMode.EMBED and silent:
        notes.insert(
            0, f"{silent:,} of {len(sounds):,} sounds are not in the page: it holds {max_audio:g} MB at most"
        )
    return notes, problems


def _page(
    runs: Sequence[Shown],
    entries: Sequence[Entry],
    sounds: dict[str, SoundFigure | InputError],
    audio: AudioMode,
    notes: Sequence[str],
) -> tuple[Markup, Markup]:
    """Head and body."""
    title = " and ".join(shown.name for shown in runs) if len(runs) < 3 else f"{len(runs)} runs"
    benchmarks = ", ".join(dict.fromkeys(shown.run.config.benchmark for shown in runs))
    parts = [
        overview(runs),
        comparison(runs),
        skills(runs),
        listening(runs),
        _answers_section(),
        details(runs, notes),
    ]
    script = _script()
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    media = "blob: 'self' file:" if audio is AudioMode.LINK else "blob:"
    policy = (
        f"default-src 'none'; script-src 'sha256-{allowed}'; style-src 'unsafe-inline'; img-src data: blob:; "
        f"media-src {media}; base-uri 'none'; form-action 'none'"
    )
    body = tag(
        "body",
        _top(parts),
        tag("main", heading(title, benchmarks), parts, id="main"),
        tag("script", script_json(_data(runs, entries, sounds)), type="application/json", id="report-data"),
        tag("script", Markup(script)),
        # Behind the script, so that the page is usable before megabytes of sound are parsed.
        join(_sound_script(number, sound) for number, sound in enumerate(sounds.values())),
    )
    return head(f"{title}: {benchmarks}", policy), body


def _top(parts: Sequence[Markup | None]) -> Markup:
    """The bar with links to the sections that are there."""
    names = ("Overview", "Comparison", "Skills", "Listening", "Answers", "Details")
    links = [
        tag("a", name, href=f"#{name.lower()}") for name, part in zip(names, parts, strict=True) if part is not None
    ]
    theme = tag("button", "Theme", type="button", id="theme", class_="quiet", title="Light, dark, or as the system")
    return tag("header", tag("nav", links, aria_label="Sections"), theme, class_="top")


def _answers_section() -> Markup:
    """What the script fills."""
    return tag(
        "section",
        tag("h2", "Answers", id="answers-title"),
        tag("noscript", tag("p", "The list of answers needs JavaScript.", class_="notice")),
        tag("div", id="filters"),
        tag(
            "div",
            tag("div", id="list", tabindex=0, role="listbox", aria_label="Answers"),
            tag("article", id="answer", aria_live="off", tabindex=-1),
            id="browser",
        ),
        id="answers",
        aria_labelledby="answers-title",
    )


def _data(
    runs: Sequence[Shown], entries: Sequence[Entry], sounds: dict[str, SoundFigure | InputError]
) -> dict[str, Any]:
    place = {key: number for number, key in enumerate(sounds)}
    rows = []
    for entry in entries:
        sound = sounds.get(entry.sound)
        note = str(sound) if isinstance(sound, InputError) else ""
        rows.append(entry_json(entry, runs[0].rule, place.get(entry.sound) if not note else None, note))
    return {
        "runs": [shown.name for shown in runs],
        "entries": rows,
        "sounds": [
            {
                "duration": sound.duration,
                "peaks": sound.peaks,
                "link": sound.link,
                "embedded": sound.opus is not None,
            }
            if isinstance(sound, SoundFigure)
            else None
            for sound in sounds.values()
        ],
    }


def _sound_script(number: int, sound: SoundFigure | InputError) -> Child:
    if isinstance(sound, InputError) or sound.opus is None:
        return None
    return tag("script", Markup(base64.b64encode(sound.opus).decode()), type="text/plain", id=f"sound-{number}")


def _script() -> str:
    """All scripts as one, our own in a scope of their own, below the licence of what is not ours."""
    vendor = [asset(name) for name in _SCRIPTS if name.startswith("vendor/")]
    own = [asset(name) for name in _SCRIPTS if not name.startswith("vendor/")]
    licence = "/*! wavesurfer.js\n" + asset("vendor/LICENSE-wavesurfer.txt") + "*/"
    return "\n".join([licence, *vendor, '(() => {\n"use strict";', *own, "})();"])
