"""Reading sound: every kind of file that people have, and every kind of broken one."""

from __future__ import annotations

import gc
import subprocess
import sys
import wave
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from relisten.audio import MAX_DURATION, SAMPLE_RATE, Clip, seconds_to_samples, write_clip
from relisten.errors import InputError


def tone(seconds: float = 1.0, rate: int = SAMPLE_RATE, frequency: float = 440.0) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * frequency * t)).astype(np.float32)


def write_av(path: Path, samples: np.ndarray, rate: int, codec: str) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.rate = rate
        resampler = av.AudioResampler(
            stream.format, "mono", rate, frame_size=stream.codec_context.frame_size or None
        )
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


def pitch(clip: Clip) -> float:
    spectrum = np.abs(np.fft.rfft(clip.samples * np.hanning(clip.num_samples)))
    return float(np.argmax(spectrum) * SAMPLE_RATE / clip.num_samples)


def test_a_crop_at_half_speed_lasts_twice_as_long_an_octave_lower() -> None:
    clip = Clip.from_samples(tone(3.0, frequency=800.0))
    slow = clip.crop(0.5, 2.0, 0.5)
    assert slow.duration == pytest.approx(3.0, abs=0.001)
    spectrum = np.abs(np.fft.rfft(slow.samples))
    assert np.argmax(spectrum) * SAMPLE_RATE / slow.num_samples == pytest.approx(400.0, abs=1.0)
    assert clip.crop(0.5, 2.0, 1.0).hash == clip.crop(0.5, 2.0).hash


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3", "aiff"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_formats_of_libsndfile(tmp_path: Path, ending: str, rate: int, channels: int) -> None:
    channels = min(channels, 2) if ending == "mp3" else channels  # all that mp3 has
    path = tmp_path / f"tone.{ending}"
    soundfile.write(path, np.tile(tone(1.0, rate)[:, None], channels), rate)
    clip = Clip.load(path)
    assert clip.samples.dtype == np.float32
    assert clip.duration == pytest.approx(1.0, abs=0.08 if ending == "mp3" else 0.001)
    assert pitch(clip) == pytest.approx(440, abs=3)
    assert np.abs(clip.samples).max() == pytest.approx(0.5, abs=0.05)
    assert clip.name == str(path)


@pytest.mark.parametrize(("ending", "codec"), [("m4a", "aac"), ("webm", "libopus"), ("mp4", "aac")])
def test_formats_of_ffmpeg(tmp_path: Path, ending: str, codec: str) -> None:
    path = tmp_path / f"tone.{ending}"
    write_av(path, tone(1.0, 48_000), 48_000, codec)
    clip = Clip.load(path)
    assert clip.duration == pytest.approx(1.0, abs=0.06)
    assert pitch(clip) == pytest.approx(440, abs=3)


@pytest.mark.parametrize("rates", [(44_100, 22_050), (22_050, 44_100)])
def test_a_stream_whose_rate_changes_midway(tmp_path: Path, rates: tuple[int, int]) -> None:
    with (tmp_path / "both.aac").open("ab") as both:
        for rate in rates:
            write_av(tmp_path / "part.aac", tone(1.0, rate), rate, "aac")
            both.write((tmp_path / "part.aac").read_bytes())
    clip = Clip.load(tmp_path / "both.aac")
    assert clip.duration == pytest.approx(2.0, abs=0.25)
    assert pitch(clip.crop(0.2, 0.8)) == pytest.approx(440, abs=3)
    assert pitch(clip.crop(1.4, 1.9)) == pytest.approx(440, abs=3)


def test_channels_are_averaged() -> None:
    left, right = tone(), -tone()
    assert np.abs(Clip.from_samples(np.stack([left, right], axis=1)).samples).max() == 0
    assert np.array_equal(Clip.from_samples(np.stack([left, left], axis=1)).samples, left)


def test_integers_become_full_scale_floats() -> None:
    assert Clip.from_samples(np.array([0, 16384, -32768], np.int16)).samples.tolist() == [0, 0.5, -1]


def test_the_same_samples_have_one_hash_in_memory_and_in_a_file(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(-32768, 32768, 1000).astype(np.int16)
    soundfile.write(tmp_path / "x.wav", samples, SAMPLE_RATE)
    assert Clip.load(tmp_path / "x.wav").hash == Clip.from_samples(samples).hash


def test_a_crop_is_a_view_and_the_hash_is_of_the_sound() -> None:
    clip = Clip.from_samples(tone(3.0), name="x")
    crop = clip.crop(1.0, 2.5)
    assert np.shares_memory(crop.samples, clip.samples)
    assert crop.num_samples == 24_000
    assert clip.crop(0, 99).hash == clip.hash
    assert Clip.from_samples(clip.samples[16_000:40_000], name="y").hash == crop.hash
    assert crop.hash != clip.hash
    with pytest.raises(ValueError, match="read-only"):
        clip.samples[0] = 1


@pytest.mark.parametrize(("start", "end"), [(2.0, 1.0), (1.0, 1.0), (3.0, 4.0), (-1.0, 1.0)])
def test_a_crop_without_samples_is_refused(start: float, end: float) -> None:
    with pytest.raises(InputError, match="holds no sample"):
        Clip.from_samples(tone(3.0)).crop(start, end)


@given(st.integers(0, 10**9))
def test_sample_times_come_back_as_their_sample(index: int) -> None:
    assert seconds_to_samples(index / SAMPLE_RATE) == index


def test_half_a_sample_rounds_up() -> None:
    assert [seconds_to_samples((n + 0.5) / SAMPLE_RATE) for n in range(4)] == [1, 2, 3, 4]


def test_written_clips_read_back(tmp_path: Path) -> None:
    clip = Clip.from_samples(tone(0.5))
    for name in ("a.wav", "a.flac"):
        write_clip(tmp_path / name, clip)
        assert np.abs(Clip.load(tmp_path / name).samples - clip.samples).max() < 1e-4
    with pytest.raises(InputError, match=r"\.wav or \.flac"):
        write_clip(tmp_path / "a.mp3", clip)


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        Clip.load(tmp_path / "none.wav")
    with pytest.raises(InputError, match="is a folder"):
        Clip.load(tmp_path)


@pytest.mark.parametrize("name", ["a" * 300, "a\0b.wav", "\ud800.wav"])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"cannot be read .*; check its name"):
        Clip.load(tmp_path / name)


def test_empty_and_not_audio(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").write_bytes(b"")
    with pytest.raises(InputError, match="0 bytes"):
        Clip.load(tmp_path / "empty.wav")
    (tmp_path / "text.wav").write_text("this is no sound\n" * 100)
    for name in ("text.wav", "text.flac"):
        (tmp_path / "text.wav").replace(tmp_path / name)
        with pytest.raises(InputError, match="not a sound file"):
            Clip.load(tmp_path / name)
        (tmp_path / name).replace(tmp_path / "text.wav")
    for name in ("noise.mp4", "noise.raw"):
        (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(5000))
        with pytest.raises(InputError):
            Clip.load(tmp_path / name)


def test_a_picture_has_no_sound(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        container.mux([*stream.encode(frame), *stream.encode(None)])
    with pytest.raises(InputError, match="no sound track"):
        Clip.load(tmp_path / "film.mp4")


def test_zero_samples(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "zero.wav", np.zeros(0, np.float32), SAMPLE_RATE)
    with pytest.raises(InputError, match="holds no sound"):
        Clip.load(tmp_path / "zero.wav")
    with pytest.raises(InputError, match="holds no sound"):
        Clip.from_samples(np.zeros(0, np.float32))


def test_one_sample_and_silence_are_clips(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "one.wav", np.full(1, 0.5, np.float32), SAMPLE_RATE)
    assert Clip.load(tmp_path / "one.wav").num_samples == 1
    soundfile.write(tmp_path / "silent.wav", np.zeros(16_000, np.float32), SAMPLE_RATE)
    assert not Clip.load(tmp_path / "silent.wav").samples.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1e18])
def test_samples_that_are_no_sound(tmp_path: Path, bad: float) -> None:
    samples = tone()
    samples[8000] = bad
    soundfile.write(tmp_path / "bad.wav", samples, SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(InputError, match=r"first at 0\.500 s"):
        Clip.load(tmp_path / "bad.wav")
    with pytest.raises(InputError, match="NaN, infinite or beyond"):
        Clip.from_samples(samples)
    samples[8000] = 30_000  # somebody's 16-bit samples as floats
    assert Clip.from_samples(samples).samples.max() == 30_000


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2, 2)), np.zeros(4, complex), np.array(["a"]), np.zeros(4, np.uint8)]
)
def test_arrays_that_are_no_sound(array: np.ndarray) -> None:
    with pytest.raises(InputError):
        Clip.from_samples(array)


def test_a_wav_that_is_cut_off(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "whole.wav", tone(), SAMPLE_RATE)
    (tmp_path / "cut.wav").write_bytes((tmp_path / "whole.wav").read_bytes()[:20_000])
    with pytest.raises(InputError, match="cut off"):
        Clip.load(tmp_path / "cut.wav")


def test_a_flac_that_is_cut_off(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 5 * SAMPLE_RATE)
    soundfile.write(tmp_path / "whole.flac", samples, SAMPLE_RATE)
    data = (tmp_path / "whole.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"cut off|damaged"):
        Clip.load(tmp_path / "cut.flac")


def test_an_m4a_that_is_cut_off(tmp_path: Path) -> None:
    write_av(tmp_path / "whole.m4a", tone(3.0, 48_000), 48_000, "aac")
    data = (tmp_path / "whole.m4a").read_bytes()
    (tmp_path / "cut.m4a").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError):
        Clip.load(tmp_path / "cut.m4a")


def test_a_streamed_wav_with_an_unknown_length_is_whole(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "whole.wav", tone(), SAMPLE_RATE, subtype="PCM_16")
    data = bytearray((tmp_path / "whole.wav").read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"  # RIFF and data sizes as a pipe leaves them
    (tmp_path / "piped.wav").write_bytes(data)
    assert Clip.load(tmp_path / "piped.wav").duration == pytest.approx(1.0, abs=0.01)


def test_eight_hours_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "night.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(8_000)
        file.writeframes(b"\x80" * 8_000)
    size = 8 * 3600 * 8_000
    data = bytearray(path.read_bytes()[:44])
    data[4:8] = (size + 36).to_bytes(4, "little")
    data[40:44] = size.to_bytes(4, "little")
    path.write_bytes(data)
    with path.open("r+b") as file:
        file.truncate(size + 44)  # sparse: eight hours that take no disk
    with pytest.raises(InputError, match=r"28,800 s; at most 3,600 s"):
        Clip.load(path)
    with pytest.raises(InputError, match="at most"):
        Clip.from_samples(np.zeros(seconds_to_samples(MAX_DURATION) + 1, np.int8))


def test_importing_costs_no_torch_and_no_router() -> None:
    code = (
        "import sys, relisten, relisten.audio, relisten.protocol, relisten.trace; "
        "sys.exit('torch' in sys.modules or 'relisten.router' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_file_in_use_gives_the_same_clip_until_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_clip(path, Clip(tone(1.0)))
    with ThreadPoolExecutor(8) as threads:
        clips = list(threads.map(Clip.load, [path] * 8))
    assert len({id(clip) for clip in clips}) == 1
    first = clips[0].hash
    write_clip(path, Clip(tone(2.0)))
    assert Clip.load(path).duration == 2.0
    assert clips[0].hash == first
    gone = weakref.ref(clips[0])
    del clips
    gc.collect()
    assert gone() is None
