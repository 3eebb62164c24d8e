"""A set of simulated clips on disk: sound files and a manifest, made by several processes, going on after a kill.

A folder holds `simulate.json` (how its clips are made), `manifest.jsonl` and `clips/`. Clips are made and listed
in order, so what the manifest lists is finished; whatever else lies there is made again. The same settings and seed
give the same files, however often the making was interrupted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from relisten.audio import Clip, write_clip
from relisten.data.manifest import ClipRecord, record_row
from relisten.data.mixing import RESOLUTION, MixSpec, Sources, mix_scene
from relisten.data.parallel import ordered_map
from relisten.data.scenes import Scene, SceneSpec, make_scene
from relisten.data.subject import scene_events
from relisten.data.synth import SPLITS
from relisten.data.voices import converse, require_speech
from relisten.errors import InputError
from relisten.files import lock_folder, write_whole
from relisten.jsonl import dump_row, parse_row

MANIFEST: Final = "manifest.jsonl"
SETTINGS: Final = "simulate.json"
_FOLDER_SIZE: Final = 1000
_VERSION: Final = 1
_OPTIONS: Final = {"sources": "recordings (--sources, --backgrounds)", "speech": "--speech"}
_GROUPS: Final = ("scenes", "mix")
"""Settings of which one is there: which, is told by the options."""


@dataclass(frozen=True)
class SimulateOptions:
    """How the clips of a folder are made.

    Raises:
        InputError: for an unknown split or a negative seed.
    """

    split: str = "train"
    seed: int = 0
    scenes: SceneSpec | None = None
    """Synthetic scenes, unless recordings or speech are asked for."""
    mix: MixSpec = field(default_factory=MixSpec)
    sources: Sources | None = None
    speech: bool = False

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise InputError(f"split {self.split!r} is unknown; use one of {', '.join(SPLITS)}")
        if self.seed < 0:
            raise InputError(f"seed {self.seed}: it must be 0 or more")

    def settings(self) -> dict[str, Any]:
        """What must not change while a folder grows."""
        mixed = self.sources is not None or self.speech
        return {
            "version": _VERSION,
            "split": self.split,
            "seed": self.seed,
            "scenes": None if mixed else asdict(self.scenes or SceneSpec()),
            "mix": asdict(self.mix) if mixed else None,
            "sources": None if self.sources is None else self.sources.digest,
            "speech": self.speech,
        }


@dataclass(frozen=True)
class Simulated:
    """One finished clip: its manifest row, and what could not be used in it."""

    row: dict[str, Any]
    problems: tuple[str, ...] = ()


class SimulatedSet:
    """A folder of simulated clips that can grow; a context manager that keeps others out meanwhile."""

    def __init__(self, folder: Path, options: SimulateOptions) -> None:
        """Open or begin a folder.

        Raises:
            InputError: it was made with other settings, holds a manifest of other clips, cannot be written, or
                espeak-ng is needed and missing.
        """
        self.folder = folder
        self.options = options
        if options.speech:
            require_speech()
        try:
            self._lock = lock_folder(folder)
            try:
                _keep_settings(folder / SETTINGS, json.loads(json.dumps(options.settings())))
                self.finished = self._repaired()
            except BaseException:
                self._lock.close()
                raise
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error.strerror}); give another folder") from None

    def __enter__(self) -> SimulatedSet:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def _repaired(self) -> int:
        """How many clips are finished; the manifest is cut behind the last one whose row and sound are whole.

        Raises:
            InputError: a row is not one of these clips; the manifest stays as it is.
        """
        path = self.folder / MANIFEST
        if not path.exists():
            return 0
        good = count = 0
        whole = True
        with path.open("rb") as file:
            for index, line in enumerate(file):
                where = f"{path}:{index + 1}"
                row = parse_row(line, where)
                torn = not line.endswith(b"\n")
                if torn and isinstance(row, InputError):
                    break
                name = _clip_name(self.options, index)
                if isinstance(row, InputError) or row[1].get("id") != name:
                    raise InputError(
                        f"{where}: is not clip {name}, so simulate did not write it; give another folder"
                    )
                # What lies behind a lost sound is made again, but read here: it may be somebody else's.
                whole = whole and not torn and (self.folder / str(row[1].get("audio"))).is_file()
                if whole:
                    good += len(line)
                    count += 1
        os.truncate(path, good)
        return count

    def grow(self, count: int, processes: int = 1) -> Iterator[Simulated]:
        """Make clips until there are `count`; each is listed in the manifest when it comes out.

        Raises:
            InputError: the folder cannot be written.
        """
        make = partial(make_clip, self.folder, self.options)
        try:
            with (self.folder / MANIFEST).open("a", encoding="utf-8", newline="\n") as file:
                for done in ordered_map(make, range(self.finished, count), processes):
                    file.write(dump_row(done.row))
                    file.flush()
                    self.finished += 1
                    yield done
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be written ({error.strerror}); free some space") from None


def _keep_settings(path: Path, settings: dict[str, Any]) -> None:
    """Write how the clips are made, or check that it is how they were made before.

    Raises:
        InputError: it is not, or there is a manifest and nothing says how it was made.
    """
    if not path.exists():
        if (path.parent / MANIFEST).exists():
            raise InputError(f"{path.parent}: holds a manifest that simulate did not write; give another folder")
        write_whole(path, json.dumps(settings, indent=1) + "\n")
        return
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{path}: is damaged; give another folder, or remove this one") from None
    if changed := ", ".join(_differences(held, settings)):
        raise InputError(f"{path.parent}: was begun {changed}; use the same settings to go on, or another folder")


def _differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Each setting that differs, in words; of a group of settings only those in it that differ."""
    for name in before | now:
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            yield from (
                f"with {name}.{inner} {old.get(inner)!r} instead of {new.get(inner)!r}"
                for inner in old | new
                if old.get(inner) != new.get(inner)
            )
        elif name == "sources" and old and new:
            yield "with other recordings"
        elif name in _OPTIONS:
            yield f"{'with' if old else 'without'} {_OPTIONS[name]}"
        elif name not in _GROUPS:
            yield f"with {name} {old!r} instead of {new!r}"


def _clip_name(options: SimulateOptions, index: int) -> str:
    return f"{options.split}-{options.seed}-{index}"


def make_clip(folder: Path, options: SimulateOptions, index: int) -> Simulated:
    """Make clip `index`: write its sound, return its row."""
    name = _clip_name(options, index)
    path = folder / "clips" / f"{index // _FOLDER_SIZE:04d}" / f"{name}.flac"
    if options.sources is None and not options.speech:
        scene = make_scene(options.split, options.seed, index, options.scenes)
        return Simulated(record_row(scene_record(scene, path, _write(path, scene.clip)), folder))
    entropy = [options.seed, SPLITS.index(options.split), index, 1]
    rng = np.random.default_rng(np.random.SeedSequence(entropy))
    talk = converse(require_speech(), rng) if options.speech else None
    sources = options.sources.of_split(options.split) if options.sources else Sources(folder, {})
    mixed = mix_scene(sources, options.mix, rng, talk.sounds if talk else ())
    clip = Clip(mixed.samples, name)
    labelled = bool(sources.labels)
    record = ClipRecord(
        id=name,
        audio=path,
        duration=clip.duration,
        hash=_write(path, clip),
        source=name,
        split=options.split,
        resolution=RESOLUTION,
        label_set="recordings" if labelled else "",
        events=mixed.events if labelled else None,
        turns=talk.turns if talk else None,
        metadata={**mixed.metadata, **({"voices": [voice.name for voice in talk.voices]} if talk else {})},
    )
    return Simulated(record_row(record, folder), mixed.problems)


def scene_record(scene: Scene, path: Path, digest: str) -> ClipRecord:
    """A simulated scene as a manifest row; its times stay exact to the sample."""
    return ClipRecord(
        id=scene.clip.name,
        audio=path,
        duration=scene.clip.duration,
        hash=digest,
        source=scene.clip.name,
        split=scene.split,
        label_set="scenes",
        events=scene_events(scene),
    )


def _write(path: Path, clip: Clip) -> str:
    """Write the sound, whole or not at all; returns its hash as it will be read back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_name(f".{path.stem}.{os.getpid()}.flac")
    try:
        write_clip(partial_path, clip)
        digest = Clip.load(partial_path).hash
        partial_path.replace(path)
    finally:
        partial_path.unlink(missing_ok=True)
    return digest
