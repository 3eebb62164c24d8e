"""Who speaks when, and what: RTTM, SubRip (SRT) and WebVTT."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from relisten.data.labels.base import (
    Grouped,
    Labelled,
    LabelProblem,
    Placed,
    no_times,
    read_lines,
    read_text,
    seconds,
)
from relisten.data.manifest import Turn

_OTHER_RTTM: Final = frozenset(
    {"SPKR-INFO", "NON-LEX", "NON-SPEECH", "LEXEME", "FILLER", "FP", "IP", "SU", "CB", "EDIT", "A/P", "NOSCORE",
     "NO_RT_METADATA", "SEGMENT"}
)  # fmt: skip
_CLOCK: Final = r"(?:(\d+):)?(\d{1,2}):(\d{2})[.,](\d{1,3})"
_CUE: Final = re.compile(rf"\s*{_CLOCK}\s+-->\s+{_CLOCK}(?:\s.*)?")
_VOICE: Final = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>")
_MARKUP: Final = re.compile(r"<[^>]*>|\{\\[^}]*\}")
_SPEAKER: Final = re.compile(r"(?:-\s*)?(?:\[([^\]]{1,40})\]|([A-Z][A-Z0-9 .'-]{0,38}[A-Z0-9])):\s+(?=\S)")
_SOUND: Final = re.compile(r"\[[^\]]*\]|\([^)]*\)|♪[^♪]*♪?|♫[^♫]*♫?")


def read_rttm(files: Sequence[Path], names: Mapping[str, str]) -> Iterator[Labelled | LabelProblem]:
    """RTTM: `SPEAKER file channel start duration <NA> <NA> speaker <NA> <NA>`; other line types are passed over."""
    for path in files:
        with Grouped[tuple[float, float, str] | None]() as rows:
            for line in read_lines(path):
                if isinstance(line, LabelProblem):
                    yield line
                    continue
                where, text = line
                fields = text.split()
                if text.startswith(";;") or fields[0] in _OTHER_RTTM:
                    continue
                if fields[0] != "SPEAKER" or len(fields) < 8:
                    yield LabelProblem(
                        where, f"is no SPEAKER line with 8 fields or more: {text[:60]!r}; mend or remove it"
                    )
                    continue
                start, length = seconds(fields[3]), seconds(fields[4])
                if start is None or length is None:
                    yield no_times(where, fields[3:5])
                    rows.add(fields[1], where, None)
                    continue
                speaker = fields[7]
                rows.add(fields[1], where, (start, length, names.get(speaker, speaker)))
            for clip, held in rows.clips():
                turns = tuple(
                    Placed(row.where, Turn(row.item[0], round(row.item[0] + row.item[1], 6), row.item[2]))
                    for row in held
                    if row.item is not None
                )
                yield Labelled(held[0].where, clip, turns=turns, source=clip, complete=len(turns) == len(held))


def read_subtitles(files: Sequence[Path], names: Mapping[str, str]) -> Iterator[Labelled | LabelProblem]:
    """SRT and WebVTT: one file a clip, of the same name. Speakers are taken from `<v Name>`, `NAME:` and `[Name]:`.

    Cues that only describe sound ("[door slams]", "♪") are no speech and are passed over.
    """
    for path in files:
        text = read_text(path)
        if isinstance(text, LabelProblem):
            yield text
            continue
        turns: list[Placed[Turn]] = []
        complete = True
        for where, block in _blocks(path, text):
            cue = _cue(where, block, names)
            if isinstance(cue, LabelProblem):
                complete = False
                yield cue
            else:
                turns += cue
        yield Labelled(f"{path}:1", path.stem, turns=tuple(turns), source=path.stem, complete=complete)


def _blocks(path: Path, text: str) -> Iterator[tuple[str, list[str]]]:
    """Runs of lines between blank lines, each from its time line on; headers, notes and styles have none."""
    block: list[str] = []
    begin = 1
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if line.strip():
            if not block:
                begin = number
            block.append(line)
            continue
        head = block[0].split()[0] if block else ""
        if block and head not in ("WEBVTT", "NOTE", "STYLE", "REGION"):
            at = next((index for index, row in enumerate(block) if "-->" in row), 0)
            yield f"{path}:{begin + at}", block[at:]
        block = []


def _cue(where: str, block: list[str], names: Mapping[str, str]) -> list[Placed[Turn]] | LabelProblem:
    match = _CUE.fullmatch(block[0])
    if match is None:
        return LabelProblem(where, f"is no time line: {block[0][:60]!r}; write 00:00:01,000 --> 00:00:02,500")
    start, end = (_clock(match.groups()[at : at + 4]) for at in (0, 4))
    said: list[tuple[str, list[str]]] = []
    for line in block[1:]:
        voice = _VOICE.search(line)
        plain = html.unescape(_MARKUP.sub("", line)).strip()
        named = _SPEAKER.match(plain)
        speaker = ""
        if voice is not None:
            speaker = html.unescape(voice[1]).strip()
        elif named is not None:
            speaker = (named[1] or named[2]).strip()
            plain = plain[named.end() :]
        dashed = plain.startswith("-") and len(block) > 2
        words = " ".join(_SOUND.sub(" ", plain.removeprefix("-")).split())
        if not words:
            continue
        if speaker or dashed or not said:
            said.append((names.get(speaker, speaker), [words]))
        else:
            said[-1][1].append(words)
    if len(said) > 1:
        # Two people share one cue: who spoke when inside it is not known, only that both did.
        speakers = " / ".join(dict.fromkeys(speaker or "?" for speaker, _ in said))
        return LabelProblem(where, f"holds the words of several speakers ({speakers}); give each a cue of its own")
    return [Placed(where, Turn(start, end, speaker, " ".join(words))) for speaker, words in said]


def _clock(fields: tuple[str | None, ...]) -> float:
    hours, minutes, whole, part = (int(field or 0) for field in fields)
    digits = len(fields[3] or "")
    return round(hours * 3600 + minutes * 60 + whole + part / 10.0**digits, 3)
