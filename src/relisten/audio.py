"""`Clip`: mono float32 sound at 16 kHz. Reading, resampling and cropping live here and nowhere else."""

from __future__ import annotations

import hashlib
import math
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, groupby
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import soundfile
import soxr
from numpy.typing import ArrayLike, NDArray

from relisten.errors import InputError

SAMPLE_RATE = 16_000
MAX_DURATION = 3_600.0
"""Longest clip in seconds that is read (230 MB of samples); no model here listens further than that."""
MAX_AMPLITUDE = 1e6
"""Loudest sample that is read, full scale being 1: far above any recording, far below where energies overflow."""
SOUND_ENDINGS = frozenset(
    (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".m4a", ".aac", ".mp4", ".webm",
     ".mka", ".mkv", ".wma", ".w64", ".caf")
)  # fmt: skip
"""Files that count as sounds where a folder is searched for them."""

_BLOCK_FRAMES = 1 << 18


def seconds_to_samples(seconds: float) -> int:
    """The sample index at `seconds` from the start of a clip, rounded half up.

    Half up and not to even, so that neighbouring times on a fixed grid stay equally far apart. Every
    conversion from seconds to samples in this package is this one.
    """
    return math.floor(seconds * SAMPLE_RATE + 0.5)


@dataclass(frozen=True, eq=False)
class Clip:
    """A mono waveform at 16 kHz.

    `samples` is a read-only float32 array of shape (n,), n >= 1, all finite; full scale is +-1, and louder
    samples, up to `MAX_AMPLITUDE`, are kept as they are. A crop shares memory with the clip it was cut from.
    """

    samples: NDArray[np.float32]
    name: str = ""

    @classmethod
    def from_samples(cls, samples: ArrayLike, sample_rate: int = SAMPLE_RATE, name: str = "") -> Clip:
        """A clip from an array of shape (n,) or (n, channels) at any rate; channels are averaged.

        Raises:
            InputError: for no samples, NaN, infinite or absurdly loud samples, more than `MAX_DURATION` seconds,
                or an array that is not one- or two-dimensional.
        """
        array = np.asarray(samples)
        if array.ndim not in (1, 2) or array.dtype.kind not in "fi":
            raise InputError(
                f"{name or 'audio'}: got an array of shape {array.shape} and type {array.dtype}; "
                "give floats or signed integers of shape (n,) or (n, channels)"
            )
        if array.dtype.kind != "f":
            # As libsndfile scales them, so that a clip has one hash whichever way its samples came.
            array = array.astype(np.float32) / np.float32(-np.iinfo(array.dtype).min)
        blocks = _resampled(iter([_downmix(array.astype(np.float32, copy=False))]), sample_rate, name)
        return cls(_collect(blocks, name), name)

    @classmethod
    def load(cls, path: str | Path) -> Clip:
        """Read a sound file: what libsndfile knows (wav, flac, ogg, aiff, ...), else what FFmpeg knows
        (mp3, m4a, webm, the sound track of an mp4, ...). Channels are averaged, the rate becomes 16 kHz.

        While a clip is in use, its file gives the same object again, so that engines compute only once what
        questions about it have in common.

        Raises:
            InputError: the file is missing, empty, cut off, not audio, holds NaN, infinite or absurdly loud
                samples, no sample at all, or more than `MAX_DURATION` seconds; or nothing can have that name.
        """
        path = Path(path)
        name = str(path)
        try:
            found = path.stat()
            with path.open("rb"):
                pass
        except FileNotFoundError:
            raise InputError(f"{name}: no such file; check the path") from None
        except IsADirectoryError:
            raise InputError(f"{name}: is a folder; name one sound file in it") from None
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            why = error.strerror if isinstance(error, OSError) else error
            raise InputError(f"{name}: cannot be read ({why}); check its name and permissions") from None
        if found.st_size == 0:
            raise InputError(f"{name}: is empty (0 bytes); give a file that holds sound")
        key = (name, found.st_ino, found.st_mtime_ns, found.st_size)
        with _READING[hash(key) % len(_READING)]:  # who comes while it is read waits for the same clip
            clip = _IN_USE.get(key)
            if clip is None:
                clip = _IN_USE[key] = cls(_collect(_read(path), name), name)
        return clip

    def __post_init__(self) -> None:
        samples = self.samples
        if samples.ndim != 1 or samples.dtype != np.float32 or len(samples) == 0:
            raise InputError(
                f"{self.name or 'audio'}: a clip needs float32 samples of shape (n,) with n >= 1, got "
                f"{samples.dtype} of shape {samples.shape}; use Clip.from_samples"
            )
        samples.flags.writeable = False

    @property
    def num_samples(self) -> int:
        return len(self.samples)

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLE_RATE

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the samples (hex): the same sound has the same hash whatever file it came from."""
        return hashlib.sha256(np.ascontiguousarray(self.samples).data).hexdigest()

    def crop(self, start: float, end: float, speed: float = 1.0) -> Clip:
        """The part from `start` to `end` seconds, as a view. An `end` past the clip means the clip's end.

        Args:
            speed: what it is played at; 0.5 makes it twice as long and an octave lower, as a slowed record. Another
                speed than 1 makes new samples.

        Raises:
            InputError: if that part holds no sample.
        """
        first = seconds_to_samples(start)
        last = min(seconds_to_samples(end), self.num_samples)
        if not 0 <= first < last:
            raise InputError(
                f"crop {start:g} to {end:g} s holds no sample of a clip of {self.duration:g} s; "
                "a crop needs 0 <= start < end and start inside the clip"
            )
        part, name = self.samples[first:last], f"{self.name}[{start:g}:{end:g}]"
        if speed == 1:
            return Clip(part, name)
        return Clip(soxr.resample(part, SAMPLE_RATE * speed, SAMPLE_RATE), f"{name} at speed {speed:g}")

    def __repr__(self) -> str:
        return f"Clip({self.name!r}, {self.duration:.3f} s)"


_IN_USE: WeakValueDictionary[tuple[str, int, int, int], Clip] = WeakValueDictionary()
_READING = tuple(threading.Lock() for _ in range(32))


def write_clip(path: str | Path, clip: Clip) -> None:
    """Write a clip as 16-bit wav or flac, chosen by the ending of `path`.

    Raises:
        InputError: for another ending, or where the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in (".wav", ".flac"):
        raise InputError(f"{path}: clips are written as .wav or .flac; change the ending")
    try:
        soundfile.write(path, clip.samples, SAMPLE_RATE, subtype="PCM_16")
    except (OSError, soundfile.LibsndfileError) as error:
        raise InputError(f"{path}: cannot be written ({error})") from error


def _downmix(block: NDArray[np.float32]) -> NDArray[np.float32]:
    return block if block.ndim == 1 else block.mean(axis=1, dtype=np.float32)


def _is_mpeg(path: Path) -> bool:
    """Whether a file is, or claims to be, an mp3. libsndfile reads those too, but writes notes of its own to
    standard error where one is broken."""
    with path.open("rb") as file:
        head = file.read(3)
    return path.suffix.lower() == ".mp3" or head == b"ID3" or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")


def _read(path: Path) -> Iterator[NDArray[np.float32]]:
    """Blocks of mono samples at 16 kHz."""
    if not _is_mpeg(path):
        try:
            return _read_soundfile(path)
        except (soundfile.LibsndfileError, TypeError):  # TypeError: it wants to be told about a .raw
            pass  # FFmpeg knows more formats
    return _read_av(path)


def _read_soundfile(path: Path) -> Iterator[NDArray[np.float32]]:
    """Blocks of mono samples at 16 kHz. Opening happens here and now, so that a file unknown to libsndfile
    fails before the first block is asked for."""
    file = soundfile.SoundFile(os.fsencode(path))  # it cannot encode a name that is no UTF-8
    declared = _declared_wav_bytes(file.extra_info)
    if declared is not None:
        present, promised = declared
        file.close()
        raise InputError(f"{path}: is cut off ({present} of {promised} bytes of sound); copy the file again")
    _check_duration(file.frames / file.samplerate, str(path))

    def blocks() -> Iterator[NDArray[np.float32]]:
        read = 0
        with file:
            try:
                for block in file.blocks(_BLOCK_FRAMES, dtype="float32", always_2d=True):
                    read += len(block)
                    yield _downmix(block)
            except soundfile.LibsndfileError as error:
                raise InputError(
                    f"{path}: is damaged after {read / file.samplerate:.2f} s ({error}); copy the file again"
                ) from error
            if read < file.frames:
                raise InputError(f"{path}: is cut off ({read} of {file.frames} frames); copy the file again")

    return _resampled(blocks(), file.samplerate, str(path))


def _declared_wav_bytes(log: str) -> tuple[int, int] | None:
    """(bytes present, bytes promised) where libsndfile's header log tells of a shortened data chunk.

    Programs that stream a wav cannot know its length and write 0 or a huge one: those are not cut off.
    """
    match = re.search(r"data\s*:\s*(\d+) \(should be (\d+)\)", log)
    if match is None:
        return None
    promised, present = int(match[1]), int(match[2])
    streamed = promised == 0 or promised >= 0x7FFFF000
    return None if streamed or present >= promised else (present, promised)


def _read_av(path: Path) -> Iterator[NDArray[np.float32]]:
    import av  # slow to import, and most files never need it

    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        what = error.strerror
        raise InputError(f"{path}: is not a sound file that can be read ({what}); convert it to wav") from None
    if not container.streams.audio:
        container.close()
        raise InputError(f"{path}: has no sound track; give a file that holds sound")
    stream = container.streams.audio[0]
    rate = stream.rate  # now, since it is the decoder's latest
    if not rate:  # it goes by the file's name, where the content tells nothing
        container.close()
        raise InputError(f"{path}: is not a sound file that can be read; convert it to wav")
    if container.duration is not None:
        _check_duration(container.duration / 1e6, str(path))

    def kind(frame: av.AudioFrame) -> tuple[int, str, str]:
        return frame.sample_rate, frame.format.name, frame.layout.name

    def blocks() -> Iterator[NDArray[np.float32]]:
        with container:
            try:
                for _, frames in groupby(container.decode(stream), kind):  # some files change midway
                    to_float = av.AudioResampler(format="fltp", rate=rate)
                    for frame in chain(frames, [None]):
                        for converted in to_float.resample(frame):
                            yield converted.to_ndarray().mean(axis=0, dtype=np.float32)
            except av.FFmpegError as error:
                raise InputError(f"{path}: is damaged ({error.strerror}); convert it to wav") from error

    return _resampled(blocks(), rate, str(path))


def _resampled(blocks: Iterator[NDArray[np.float32]], rate: int, name: str) -> Iterator[NDArray[np.float32]]:
    if rate <= 0:
        raise InputError(f"{name or 'audio'}: sample rate {rate} Hz; it must be above 0")
    if rate == SAMPLE_RATE:
        yield from blocks
        return
    resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
    for block in blocks:
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def _collect(blocks: Iterator[NDArray[np.float32]], name: str) -> NDArray[np.float32]:
    """All blocks as one array, checked as they come, so that a bad or endless file stops early."""
    parts: list[NDArray[np.float32]] = []
    total = 0
    for block in blocks:
        sound = np.abs(block) <= MAX_AMPLITUDE  # false for NaN, too
        if not sound.all():
            at = (total + int(np.argmin(sound))) / SAMPLE_RATE
            raise InputError(
                f"{name or 'audio'}: holds samples that are NaN, infinite or beyond {MAX_AMPLITUDE:,.0f} times "
                f"full scale (first at {at:.3f} s); export it again"
            )
        total += len(block)
        _check_duration(total / SAMPLE_RATE, name)
        parts.append(block)
    if total == 0:
        raise InputError(f"{name or 'audio'}: holds no sound (0 samples); give a file with at least one sample")
    return np.concatenate(parts) if len(parts) > 1 else np.array(parts[0], np.float32)


def _check_duration(seconds: float, name: str) -> None:
    if seconds > MAX_DURATION:
        raise InputError(
            f"{name or 'audio'}: lasts {seconds:,.0f} s; at most {MAX_DURATION:,.0f} s are read. Cut the file"
        )
