"""What every export has in common: splits made by clip, sounds that can be found, text that stays text."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from relisten.data.examples import Example
from relisten.data.filters import clip_hash
from relisten.data.synth import OTHER_NAMES, SPLITS
from relisten.errors import InputError
from relisten.protocol import Format

TRAIN: Final = "train"
VALIDATION: Final = "validation"
_PLACEHOLDERS: Final = re.compile(
    r"<(?=(?:audio|image|video|bbox|ref-object|cot-process|start-image)>|\|[^<>|\s]{1,40}\|>)"
)


@dataclass(frozen=True)
class ExportOptions:
    """
    Raises:
        InputError: for a share outside 0 to 0.9.
    """

    validation: float = 0.05
    """Share of clips that become the validation split."""
    seed: int = 0
    format: Format = Format.INTERLEAVED
    """Decides the instruction in the system turn."""
    copy_audio: bool = False
    """Copy sounds beside the export, where it names files, instead of naming them where they are."""

    def __post_init__(self) -> None:
        if not 0 <= self.validation <= 0.9:
            raise InputError(f"validation share {self.validation:g}: it must be from 0 to 0.9")


class SplitWriter(Protocol):
    """Writes the examples of one split; complete once finished, and under its name once closed."""

    def add(self, example: Example) -> None:
        """
        Raises:
            InputError: this example cannot be written in this format; nothing was.
        """
        ...

    def finish(self) -> None:
        """Have the files hold everything; what lies under their names is still the export before."""
        ...

    def close(self) -> None:
        """Give the finished files their names."""
        ...

    def discard(self) -> None:
        """Leave nothing behind: the export failed."""
        ...


@dataclass(frozen=True)
class ExportFormat:
    """A format: its name, what it is for, and how a split of it is written."""

    name: str
    about: str
    open: Callable[[Path, str, ExportOptions], SplitWriter]
    files: str
    """Pattern of the files of a split, whose name stands for `{split}`."""

    def files_of(self, folder: Path, splits: Iterable[str] = SPLITS) -> list[Path]:
        """What lies in a folder under the names that splits get."""
        return [path for split in splits for path in folder.glob(self.files.format(split=split))]


@dataclass
class Exported:
    """What came of an export."""

    rows: Counter[str] = field(default_factory=Counter)
    """By split."""
    clips: Counter[str] = field(default_factory=Counter)
    bad: int = 0
    removed: list[Path] = field(default_factory=list)
    """Files of an earlier export, of splits that this one does not have."""


def export_examples(
    examples: Iterable[Example | InputError],
    format: ExportFormat,
    folder: str | Path,
    options: ExportOptions | None = None,
    on_bad: Callable[[InputError], None] = lambda error: None,
) -> Exported:
    """Write examples as they come. Bad rows, and those that the format has no use for, are told and left out.

    The folder then holds this export of the format alone; where no row could be written it stays as it was.

    Raises:
        InputError: the folder cannot be written, or a library is missing.
    """
    folder = Path(folder)
    options = options or ExportOptions()
    splitter = Splitter(options.validation, options.seed)
    writers: dict[str, SplitWriter] = {}
    found = Exported()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as undo:
            for example in examples:
                try:
                    if isinstance(example, InputError):
                        raise example
                    digest = clip_hash(example)
                    split = splitter.split_of(example, digest)
                    if split not in writers:
                        writers[split] = format.open(folder, split, options)
                        undo.callback(writers[split].discard)
                    writers[split].add(example)
                except MissingLibraryError:
                    raise
                except InputError as error:
                    found.bad += 1
                    on_bad(error)
                    continue
                found.rows[split] += 1
            if found.rows:
                for writer in writers.values():
                    writer.finish()
                for writer in writers.values():
                    writer.close()
                undo.pop_all()
                # Their clips may be in another split by now.
                found.removed = format.files_of(folder, [split for split in SPLITS if split not in writers])
                for path in found.removed:
                    path.unlink()
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); give another folder") from None
    for split in splitter.placed.values():
        found.clips[split] += 1
    return found


class MissingLibraryError(InputError):
    """An export needs a library that is not installed."""


class Splitter:
    """Puts every clip into one split, all its questions with it, and all clips of one source.

    A row that names a split other than "train" keeps it. The others are divided by a hash of source (or clip) and
    seed: a clip stays where it is when the set grows or its order changes.
    """

    def __init__(self, validation: float, seed: int) -> None:
        self._validation = validation
        self._seed = seed
        self.placed: dict[str, str] = {}
        """Split by clip hash."""

    def split_of(self, example: Example, digest: str) -> str:
        """
        Raises:
            InputError: the row names a split that there is not.
        """
        known = example.question.metadata
        given = str(known.get("split") or TRAIN)
        split = OTHER_NAMES.get(given, given)
        if split not in SPLITS:
            raise InputError(
                f"example {example.question.id!r}: split {given!r} is unknown; use one of {', '.join(SPLITS)}"
            )
        if split == TRAIN:
            origin = str(known.get("source") or digest)
            draw = hashlib.sha256(f"{self._seed}\0{origin}".encode("utf-8", "surrogatepass")).digest()
            split = VALIDATION if int.from_bytes(draw[:8]) < self._validation * 2**64 else TRAIN
        # One sound under two sources: where it came first decides.
        return self.placed.setdefault(digest, split)


def plain(text: str) -> str:
    """Text in which nothing is taken for a control token or a media placeholder by the trainer that reads it: a
    space parts `<` from what follows in `<audio>`, `<|im_end|>` and the like. Other text stays as it is."""
    return _PLACEHOLDERS.sub("< ", text)


class Sounds:
    """Names the sound of an example by an absolute path, after copying it where that is wanted."""

    def __init__(self, folder: Path, options: ExportOptions) -> None:
        self._folder = folder / "audio" if options.copy_audio else None

    def path_of(self, example: Example) -> str:
        source = sound_path(example)
        if self._folder is None:
            return str(source.resolve())
        self._folder.mkdir(exist_ok=True)
        target = self._folder / f"{clip_hash(example)[:32]}{source.suffix.lower()}"
        if not target.exists():
            part = target.with_name(f"{target.name}.part")
            shutil.copyfile(source, part)
            part.replace(target)
        return str(target.resolve())


def sound_path(example: Example) -> Path:
    """Where the sound lies.

    Raises:
        InputError: it is not in a file, or the file is not there.
    """
    audio = example.question.audio
    if not isinstance(audio, Path):
        raise InputError(
            f"example {example.question.id!r}: its sound is not in a file; write the clip to one first"
        )
    if not audio.is_file():
        raise InputError(f"example {example.question.id!r}: {audio}: no such file; check the path")
    return audio


def need_response(example: Example) -> str:
    """
    Raises:
        InputError: the example has no response to train on.
    """
    if not example.response:
        raise InputError(
            f"example {example.question.id!r} has no response to train on; without one it serves RL: "
            "`relisten train grpo`, or `relisten data export verl`"
        )
    return example.response


def need_answer(example: Example) -> str:
    """
    Raises:
        InputError: the example has no reference to reward.
    """
    if example.question.answer is None:
        raise InputError(f"example {example.question.id!r} has no answer, and this format rewards it; add 'answer'")
    return example.question.answer
