"""What is known about a clip, as the writer and the judge read it."""

from __future__ import annotations

from dataclasses import dataclass

from relisten.data.manifest import ClipRecord, Music


@dataclass(frozen=True)
class Captions:
    """Three texts by a model that heard the clip (Echo, section 3.2); None where there is none of it."""

    description: str
    speech: str | None = None
    music: str | None = None


def has_timed_facts(record: ClipRecord) -> bool:
    """Whether anything is known that lies on the time axis; without it no temporal question can be checked."""
    return bool(record.events or record.turns or (record.music and (record.music.beats or record.music.chords)))


def facts_text(record: ClipRecord, captions: Captions | None) -> str:
    """Everything known about a clip: a text of lines, times in seconds. Without captions: the labels alone."""
    lines = [f"Duration: {record.duration:.2f} s"]
    if captions is not None:
        lines += [
            f"Description: {captions.description}",
            f"Speech: {captions.speech or 'none'}",
            f"Music: {captions.music or 'none'}",
        ]
    if record.resolution:
        lines.append(f"Labelled times are exact to {record.resolution:g} s")
    if not record.complete:
        lines.append("The timed facts are not complete: nothing may rest on how many there are, or on an absence")
    if record.events is not None:
        lines.append("Timed events:")
        lines += [f"- {e.onset:.2f} to {e.offset:.2f} s: {_line(e.label)}" for e in record.events] or ["- none"]
    if record.turns is not None:
        lines.append("Timed speech:")
        lines += [
            f"- {turn.start:.2f} to {turn.end:.2f} s: speaker {_line(turn.speaker) or 'unknown'}"
            + (f': "{_line(turn.text)}"' if turn.text else "")
            for turn in record.turns
        ] or ["- none"]
    if record.music is not None:
        lines += _music_lines(record.music)
    return "\n".join(lines)


def _music_lines(music: Music) -> list[str]:
    lines = []
    if music.key:
        lines.append(f"Key: {_line(music.key)}")
    if music.tempo:
        lines.append(f"Tempo: {music.tempo:g} beats per minute")
    if music.instruments:
        lines.append(f"Instruments: {', '.join(map(_line, music.instruments))}")
    if music.beats:
        bars = set(music.downbeats)
        beats = (f"{beat:.2f}{' (bar)' if beat in bars else ''}" for beat in music.beats)
        lines.append(f"Beats at (s): {', '.join(beats)}")
    if music.chords:
        lines.append(f"Chords from (s): {', '.join(f'{c.start:.2f} {_line(c.name)}' for c in music.chords)}")
    return lines


def _line(text: str) -> str:
    """A label as one line of text: it comes from a file and must not look like a fact of its own."""
    return " ".join(text.split())
