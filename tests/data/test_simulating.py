from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relisten.audio import SAMPLE_RATE, Clip, write_clip
from relisten.data.manifest import ClipRecord, read_manifest
from relisten.data.mixing import MixSpec, Sources, find_sources, looped, loudness, mix_scene, stretched, trim
from relisten.data.scenes import SceneSpec, make_scene
from relisten.data.simulating import SimulatedSet, SimulateOptions
from relisten.data.voices import converse, require_speech
from relisten.errors import InputError

SHORT = SceneSpec(duration=(1.0, 1.5), long_share=0.0, events=(1, 3))
needs_speech = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def grown(folder: Path, count: int, processes: int = 1, **options: object) -> dict[str, bytes]:
    with SimulatedSet(folder, SimulateOptions(**{"scenes": SHORT} | options)) as made:  # type: ignore[arg-type]
        before = made.finished
        assert len(list(made.grow(count, processes))) == count - before
    return contents(folder)


def records(folder: Path) -> list[ClipRecord]:
    return [item for item in read_manifest(folder / "manifest.jsonl") if isinstance(item, ClipRecord)]


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Two labels of three recordings each, with silence around them, and a background."""
    rng = np.random.default_rng(0)
    t = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    for number in range(3):
        noise = np.pad(0.3 * rng.standard_normal(6000), (3000, 5000))
        tone = 0.4 * np.sin(2 * np.pi * (500 + 90 * number) * t)
        for label, samples in (("dog", noise), ("horn", tone)):
            path = tmp_path / "sources" / label / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_clip(path, Clip.from_samples(samples.astype(np.float32)))
    (tmp_path / "hums").mkdir()
    write_clip(
        tmp_path / "hums" / "hum.wav", Clip.from_samples(0.1 * np.sin(2 * np.pi * 60 * t).astype(np.float32))
    )
    return tmp_path / "sources"


# The folder


def test_a_set_is_a_manifest_and_sounds_that_fit_it(tmp_path: Path) -> None:
    grown(tmp_path / "set", 3)
    clips = records(tmp_path / "set")
    assert [clip.id for clip in clips] == ["train-0-0", "train-0-1", "train-0-2"]
    for index, clip in enumerate(clips):
        sound = Clip.load(clip.audio)
        scene = make_scene("train", 0, index, SHORT)
        assert (clip.duration, clip.hash) == (sound.duration, sound.hash)
        assert np.abs(sound.samples - scene.clip.samples).max() < 1e-4
        assert clip.events is not None
        assert [(e.onset, e.offset, e.label, e.level) for e in clip.events] == [
            (e.onset, e.offset, e.label, e.level) for e in scene.events
        ]


def test_neither_processes_nor_steps_nor_a_rerun_change_a_set(tmp_path: Path) -> None:
    alone = grown(tmp_path / "a", 6)
    assert grown(tmp_path / "b", 6, processes=2) == alone
    grown(tmp_path / "c", 2)
    assert grown(tmp_path / "c", 6) == alone
    assert grown(tmp_path / "c", 6) == alone


def test_what_a_kill_leaves_is_mended(tmp_path: Path) -> None:
    whole = grown(tmp_path / "a", 5)
    grown(tmp_path / "b", 5)
    manifest = tmp_path / "b" / "manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join(lines[:3]) + lines[3][:40])
    (tmp_path / "b" / "clips" / "0000" / "train-0-2.flac").unlink()
    (tmp_path / "b" / "clips" / "0000" / "train-0-4.flac").write_bytes(b"half")
    with SimulatedSet(tmp_path / "b", SimulateOptions(scenes=SHORT)) as made:
        assert made.finished == 2
    assert grown(tmp_path / "b", 5) == whole


def test_a_killed_run_goes_on_to_the_same_set(tmp_path: Path) -> None:
    code = "import sys; from relisten.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "data", "simulate", "--seconds", "1", "1.5", "--processes", "1"]
    command += ["--count", "40", "--out"]
    process = subprocess.Popen([*command, str(tmp_path / "a")], start_new_session=True, stdout=subprocess.DEVNULL)
    manifest = tmp_path / "a" / "manifest.jsonl"
    deadline = time.monotonic() + 100
    while not (manifest.exists() and manifest.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run([*command, str(tmp_path / "a")], check=True, capture_output=True)
    subprocess.run([*command, str(tmp_path / "b")], check=True, capture_output=True)
    left = {name: data for name, data in contents(tmp_path / "a").items() if not Path(name).name.startswith(".")}
    assert left == contents(tmp_path / "b")


def test_other_settings_are_refused_and_say_what_differs(tmp_path: Path, recordings: Path) -> None:
    grown(tmp_path / "set", 1)
    with pytest.raises(InputError, match="was begun with seed 0 instead of 1; use the same settings to go on"):
        SimulatedSet(tmp_path / "set", SimulateOptions(seed=1, scenes=SHORT))
    told = r"scenes.duration \[1.0, 1.5\] instead of \[1.0, 3.0\], with scenes.events \[1, 3\] instead of \[1, 4\];"
    with pytest.raises(InputError, match=told):
        SimulatedSet(tmp_path / "set", SimulateOptions(scenes=replace(SHORT, duration=(1.0, 3.0), events=(1, 4))))
    told = r"was begun without recordings \(--sources, --backgrounds\); use"
    with pytest.raises(InputError, match=told):
        SimulatedSet(tmp_path / "set", SimulateOptions(sources=find_sources(recordings, None)))
    with SimulatedSet(tmp_path / "mixed", SimulateOptions(sources=find_sources(recordings, None))):
        pass
    with pytest.raises(InputError, match=r"was begun with recordings \(--sources, --backgrounds\); use the same"):
        SimulatedSet(tmp_path / "mixed", SimulateOptions(scenes=SHORT))


def test_a_manifest_that_simulate_did_not_write_stays(tmp_path: Path) -> None:
    folder, manifest = tmp_path / "set", tmp_path / "set" / "manifest.jsonl"
    folder.mkdir()
    foreign = '{"id": "a", "audio": "a.wav", "duration": 1.0}\n'
    manifest.write_text(foreign)
    with pytest.raises(InputError, match="set: holds a manifest that simulate did not write; give another folder"):
        SimulatedSet(folder, SimulateOptions(scenes=SHORT))
    assert manifest.read_text() == foreign


def test_rows_that_are_no_simulated_clips_are_never_cut_off(tmp_path: Path) -> None:
    grown(tmp_path / "set", 2)
    manifest = tmp_path / "set" / "manifest.jsonl"
    own, foreign = manifest.read_text(), '{"id": "a", "audio": "a.wav", "duration": 1.0}'
    (tmp_path / "set" / "clips" / "0000" / "train-0-1.flac").unlink()
    for rows in (own + foreign + "\n", own + foreign, own + "[]\n", own.splitlines(keepends=True)[1]):
        manifest.write_text(rows)
        with pytest.raises(InputError, match=r"manifest.jsonl:[13]: is not clip train-0-[02], so simulate did not"):
            SimulatedSet(tmp_path / "set", SimulateOptions(scenes=SHORT))
        assert manifest.read_text() == rows


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    options = SimulateOptions(scenes=SHORT)
    with (
        SimulatedSet(tmp_path / "set", options),
        pytest.raises(InputError, match="another run is at work here"),
    ):
        SimulatedSet(tmp_path / "set", options)
    with SimulatedSet(tmp_path / "set", options) as made:
        assert made.finished == 0


@pytest.mark.parametrize(
    ("options", "message"), [({"split": "dev"}, "split 'dev' is unknown"), ({"seed": -1}, "-1")]
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SimulateOptions(**options)  # type: ignore[arg-type]


# Mixing


def test_labels_of_a_mix_are_where_the_sound_is(recordings: Path) -> None:
    sources = find_sources(recordings, None)
    spec = MixSpec(snr=(70, 80), gain=(0, 0), duration=(5, 8))
    for seed in range(12):
        mixed = mix_scene(sources, spec, np.random.default_rng(seed))
        frames = mixed.samples[: len(mixed.samples) // 160 * 160].reshape(-1, 160)
        loud = np.sqrt((frames**2).mean(1)) > 0.01 * np.abs(mixed.samples).max()
        for number, heard in enumerate(loud):
            time = number * 0.01
            inside = any(event.onset - 0.011 <= time < event.offset + 0.001 for event in mixed.events)
            core = any(event.onset + 0.011 <= time < event.offset - 0.021 for event in mixed.events)
            assert inside or not heard
            assert heard or not core


def test_no_label_overlaps_itself_and_no_three_sounds_meet(recordings: Path) -> None:
    sources = find_sources(recordings, recordings.parent / "hums")
    for seed in range(30):
        events = mix_scene(sources, MixSpec(events=(5, 9)), np.random.default_rng(seed)).events
        assert all(0 <= event.onset < event.offset for event in events)
        for number, event in enumerate(events):
            later = [other for other in events[number + 1 :] if other.onset < event.offset]
            assert all(other.label != event.label for other in later)


def test_a_mix_changes_with_the_seed_and_tells_its_recordings(recordings: Path) -> None:
    sources = find_sources(recordings, recordings.parent / "hums")
    one, same, other = (mix_scene(sources, MixSpec(), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one.samples, same.samples)
    assert one.events == same.events
    assert one.events != other.events
    assert one.metadata["background"] == "hum.wav"
    assert set(one.metadata["recordings"]) <= {f"{label}/{n}.wav" for label in ("dog", "horn") for n in range(3)}


def test_a_recording_that_cannot_be_used_is_told_and_left_out(recordings: Path) -> None:
    for path in (recordings / "dog").iterdir():
        path.write_bytes(b"RIFF")
    write_clip(recordings / "horn" / "0.wav", Clip.from_samples(np.zeros(4000, np.float32)))
    sources = find_sources(recordings, None)
    problems = [mix_scene(sources, MixSpec(events=(6, 6)), np.random.default_rng(s)).problems for s in range(6)]
    told = " ".join(problem for found in problems for problem in found)
    assert "is not a sound file" in told
    assert "is silent; take it out of the folder" in told


def test_sources_are_dealt_out_between_splits(tmp_path: Path) -> None:
    many = Sources(tmp_path, {"dog": tuple(f"{n}.wav" for n in range(40)), "cat": ("1.wav", "2.wav")})
    parts = [set(many.of_split(split).labels["dog"]) for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [32, 4, 4]
    assert set.union(*parts) == set(many.labels["dog"])
    assert many.of_split("test").labels["cat"] == ("1.wav", "2.wav")


@pytest.mark.parametrize("count", [5, 6, 7, 8, 15])
def test_few_sources_are_shared_by_no_two_splits(tmp_path: Path, count: int) -> None:
    few = Sources(tmp_path, {"dog": tuple(f"{n}\udcff.wav" for n in range(count))})
    parts = [few.of_split(split).labels["dog"] for split in ("train", "validation", "test")]
    assert min(map(len, parts)) >= 1
    assert sorted(sum(parts, ())) == sorted(few.labels["dog"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: find_sources(path / "none", None), "is not a folder"),
        (lambda path: find_sources(path, None), "no sub-folder holds a sound; lay sounds out as LABEL/file.wav"),
        (lambda path: find_sources(None, path), "holds no sound; name a folder of background recordings"),
        (lambda path: MixSpec(duration=(5, 4)), "mix duration 5 to 4"),
        (lambda path: MixSpec(stretch=(0.1, 1)), "within 0.5 to 2"),
    ],
)
def test_folders_and_ranges_that_cannot_be_used(make: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        make(tmp_path)  # type: ignore[operator]


@settings(max_examples=20)
@given(factor=st.floats(0.7, 1.8), pitch=st.floats(150, 2000))
def test_a_stretch_changes_length_and_not_pitch(factor: float, pitch: float) -> None:
    tone = np.sin(2 * np.pi * pitch * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    changed = stretched(tone, factor)
    assert len(changed) == pytest.approx(factor * len(tone), abs=800)
    middle = changed[2000 : 2000 + 8192] * np.hanning(8192)
    peak = np.argmax(np.abs(np.fft.rfft(middle))) * SAMPLE_RATE / 8192
    assert peak == pytest.approx(pitch, rel=0.03)


def test_a_loop_is_endless_and_has_no_seam() -> None:
    t = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    sound = np.sin(2 * np.pi * 100.5 * t).astype(np.float32)
    found = looped(sound, 3 * SAMPLE_RATE, np.random.default_rng(0))
    assert found.shape == (3 * SAMPLE_RATE,)
    assert np.abs(np.diff(found)).max() < 1.5 * np.abs(np.diff(sound)).max()
    assert looped(sound[:1], 10, np.random.default_rng(0)).shape == (10,)


def test_trimming_keeps_what_is_heard() -> None:
    sound = np.zeros(8000, np.float32)
    sound[3200:4800] = 0.25
    kept = trim(sound, "x")
    assert len(kept) == 1600
    assert np.abs(kept).max() == 1
    assert loudness(kept) > loudness(sound)
    with pytest.raises(InputError, match="x: is silent"):
        trim(np.zeros(100, np.float32), "x")


# Speech


@needs_speech
def test_turns_are_where_the_voices_are(tmp_path: Path) -> None:
    program = require_speech()
    for seed in range(3):
        talk = converse(program, np.random.default_rng(seed))
        assert 2 <= len(talk.turns) == len(talk.sounds)
        assert len({turn.text for turn in talk.turns}) == len(talk.turns)
        assert all(a.speaker != b.speaker for a, b in zip(talk.turns, talk.turns[1:], strict=False))
        for turn, sound in zip(talk.turns, talk.sounds, strict=True):
            assert turn.start == sound.onset
            assert turn.end == pytest.approx(turn.start + len(sound.samples) / SAMPLE_RATE, abs=1e-3)
            head, tail = sound.samples[:480], sound.samples[-480:]
            floor = 0.01 * np.abs(sound.samples).max()
            assert np.abs(head).max() > floor
            assert np.abs(tail).max() > floor


@needs_speech
def test_spoken_clips_have_turns_and_with_recordings_events(tmp_path: Path, recordings: Path) -> None:
    grown(tmp_path / "talk", 1, scenes=None, speech=True)
    (talk,) = records(tmp_path / "talk")
    assert talk.turns
    assert talk.events is None
    assert len(talk.metadata["voices"]) >= 2
    grown(tmp_path / "both", 1, scenes=None, speech=True, sources=find_sources(recordings, None))
    (both,) = records(tmp_path / "both")
    assert both.turns
    assert both.events is not None
    assert json.loads((tmp_path / "both" / "simulate.json").read_text())["speech"] is True


def test_a_missing_espeak_names_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="install it with `apt-get install espeak-ng`"):
        SimulatedSet(tmp_path / "set", SimulateOptions(speech=True))
