"""Sounds of a report: small enough to stand in the page, and always with the outline of their waveform."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Final
from urllib.parse import quote

import av
import numpy as np

from relisten.audio import SAMPLE_RATE, Clip
from relisten.errors import InputError
from relisten.question import Question

PEAKS: Final = 480
_BITS_PER_SECOND: Final = 24_000  # clear to the ear, a tenth of FLAC
_OPUS: Final = {"compression_level": "5"}


class AudioMode(StrEnum):
    """How a report holds its sounds."""

    EMBED = "embed"
    """In the page, as Ogg Opus."""
    LINK = "link"
    """As links to the files, relative to the page."""
    NONE = "none"
    """Not at all; waveforms are drawn nevertheless."""


@dataclass(frozen=True)
class SoundFigure:
    """What the page knows of one clip."""

    duration: float
    peaks: str
    """Base64 of `PEAKS` or fewer bytes: the largest magnitude of each stretch, 255 the largest of all."""
    opus: bytes | None = None
    link: str | None = None


def prepare(
    questions: Iterable[Question], mode: AudioMode, budget: int, page: Path
) -> Iterator[SoundFigure | InputError]:
    """The sound of each question, in order, or why it cannot be read.

    Args:
        budget: bytes of embedded sound; once it is spent, further sounds come without.
        page: the report's file, which links are relative to.
    """
    workers = os.cpu_count() or 1
    spent = 0
    with ThreadPoolExecutor(workers) as pool:
        waiting = iter(questions)
        running: list[Future[SoundFigure | InputError]] = []

        def start(number: int) -> None:
            now = AudioMode.NONE if mode is AudioMode.EMBED and spent >= budget else mode
            running.extend(pool.submit(_sound, question, now, page) for question in islice(waiting, number))

        start(2 * workers)
        while running:
            sound = running.pop(0).result()
            size = len(sound.opus or b"") if isinstance(sound, SoundFigure) else 0
            if isinstance(sound, SoundFigure) and spent + size > budget:
                sound, size = SoundFigure(sound.duration, sound.peaks, link=sound.link), budget - spent
            spent += size
            start(1)
            yield sound


def _sound(question: Question, mode: AudioMode, page: Path) -> SoundFigure | InputError:
    try:
        clip = question.clip()
    except InputError as error:
        return error
    link = None
    if mode is AudioMode.LINK and isinstance(question.audio, Path):
        link = quote(os.fsencode(os.path.relpath(question.audio, page.parent).replace(os.sep, "/")))
    return SoundFigure(clip.duration, _peaks(clip), _opus(clip) if mode is AudioMode.EMBED else None, link)


def _peaks(clip: Clip) -> str:
    edges = np.linspace(0, clip.num_samples, min(PEAKS, clip.num_samples) + 1).astype(np.int64)[:-1]
    highest = np.maximum.reduceat(np.abs(clip.samples), edges)
    top = float(highest.max())
    scaled = np.round(highest * (255 / top)) if top > 0 else np.zeros_like(highest)
    return base64.b64encode(scaled.astype(np.uint8).tobytes()).decode()


def _opus(clip: Clip) -> bytes:
    """Ogg Opus by FFmpeg, which takes a tenth of libsndfile's time for the same size."""
    samples = clip.samples / max(1.0, float(np.abs(clip.samples).max()))  # Opus has no room above full scale
    frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=SAMPLE_RATE, layout="mono", options=_OPUS)
        stream.bit_rate = _BITS_PER_SECOND
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return buffer.getvalue()
