"""Examples to train on, from any of the forms that `relisten data export` writes.

| given | read as |
|---|---|
| `rows.jsonl` whose rows have `messages` | ms-swift: a system turn (or none), `<audio>` and question, response |
| any other `rows.jsonl` | our own rows (`relisten.data.examples`) |
| a folder with `data/SPLIT-*.parquet` | Hugging Face datasets, the sounds inside |
| a folder with `SPLIT.jsonl` | that file |

What is read back equals what was exported, but for what a format leaves out: ms-swift has no ids and no metadata,
and its texts carry a space in `< audio>` and the like.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from relisten.data.examples import Example, parse_example
from relisten.data.export.parquet import need_pyarrow
from relisten.errors import InputError
from relisten.jsonl import read_parsed
from relisten.protocol import FINDINGS_HEAD, parse_answer
from relisten.question import Question

TRAIN: Final = "train"
_SOUND: Final = "<audio>"
_CHOICES: Final = "\nChoices:\n"
_FINDINGS: Final = f"\n{FINDINGS_HEAD}\n"
_CHOICE: Final = "- "


def read_dataset(
    path: str | Path, split: str = TRAIN, sounds: Path | None = None
) -> Iterator[Example | InputError]:
    """The examples of a file or folder, in order; a bad row comes out as the `InputError` that says why.

    Args:
        split: which part of a folder.
        sounds: where sounds that lie inside parquet files are put, one file for each different sound.

    Raises:
        InputError: there is nothing to read, or a library for it is missing.
    """
    path = Path(path)
    if not path.is_dir():
        return read_parsed(path, _parse_line)
    shards = sorted((path / "data").glob(f"{split}-*.parquet"))
    if shards:
        if sounds is None:
            raise InputError(f"{path}: has its sounds inside parquet files; say where they may be put")
        return _read_parquet(shards, sounds)
    if (path / f"{split}.jsonl").is_file():
        return read_parsed(path / f"{split}.jsonl", _parse_line)
    raise InputError(
        f"{path}: holds neither data/{split}-*.parquet nor {split}.jsonl; give a JSONL file or what "
        "`relisten data export` wrote"
    )


def _parse_line(row: dict[str, Any], folder: Path, where: str) -> Example:
    return (parse_swift if "messages" in row else parse_example)(row, folder, where)


def parse_swift(row: Mapping[str, Any], folder: Path, where: str) -> Example:
    """One example from a row of ms-swift: one question about one sound, and its response.

    The system turn is not kept: the instruction follows from the format that is trained.

    Raises:
        InputError: with `where` in front, for a row of another shape.
    """
    turns = row.get("messages")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise InputError(f"{where}: 'messages' is {turns!r}; it must be a list of turns with role and content")
    said = {turn.get("role"): turn.get("content") for turn in turns if turn.get("role") != "system"}
    user, response = said.get("user"), said.get("assistant")
    sounds = row.get("audios")
    roles = [turn.get("role") for turn in turns if turn.get("role") != "system"]
    if roles != ["user", "assistant"] or not isinstance(user, str) or not isinstance(response, str):
        raise InputError(
            f"{where}: has the turns {roles}; it must be one text of the user and one of the assistant"
        )
    if not isinstance(sounds, list) or len(sounds) != 1 or not isinstance(sounds[0], str):
        raise InputError(f"{where}: 'audios' is {sounds!r}; it must be a list of one path")
    if user.count(_SOUND) > 1:
        raise InputError(f"{where}: the user's turn has {user.count(_SOUND)} times {_SOUND}; it must be one sound")
    text, choices, findings = split_user_text(user.replace(_SOUND, "", 1).strip())
    identifier, answer = where.rpartition(":")[2], parse_answer(response)
    return Example(Question(text, choices, folder / sounds[0], identifier, answer, {}, findings), response, "")


def split_user_text(text: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Question, choices and findings as `protocol.user_text` writes them, taken apart again; other text has
    neither choices nor findings."""
    asked, _, found = text.rpartition(_FINDINGS)
    findings = found.split("\n") if asked else []
    if not all(finding.strip() for finding in findings):
        asked, findings = "", []
    question, _, listed = (asked or text).rpartition(_CHOICES)
    lines = listed.split("\n")
    if not question or not all(line.startswith(_CHOICE) and line != _CHOICE for line in lines):
        return asked or text, (), tuple(findings)
    return question, tuple(line.removeprefix(_CHOICE) for line in lines), tuple(findings)


def _read_parquet(shards: list[Path], sounds: Path) -> Iterator[Example | InputError]:
    parquet = need_pyarrow().parquet
    sounds.mkdir(parents=True, exist_ok=True)
    for shard in shards:
        try:
            file = parquet.ParquetFile(shard)
        except Exception as error:  # the library has many
            raise InputError(f"{shard}: cannot be read as parquet ({error}); export it again") from None
        number = 0
        with file:
            for group in file.iter_batches(batch_size=64):
                for row in group.to_pylist():
                    number += 1
                    try:
                        yield _parse_columns(row, sounds, f"{shard}:{number}")
                    except InputError as error:
                        yield error


def _parse_columns(row: dict[str, Any], sounds: Path, where: str) -> Example:
    sound = row.pop("audio", None)
    if not isinstance(sound, dict) or not isinstance(sound.get("bytes"), bytes):
        raise InputError(f"{where}: has no sound in 'audio'; export the set with its sounds")
    content: bytes = sound["bytes"]
    name = hashlib.sha256(content).hexdigest()[:32] + Path(sound.get("path") or "sound").suffix.lower()
    target = sounds / name
    if not target.exists():
        part = target.with_name(f"{name}.part")
        part.write_bytes(content)
        part.replace(target)
    for derived in ("duration", "clip_hash", "source"):  # in the metadata, too, where the set had them
        row.pop(derived, None)
    try:
        metadata = json.loads(row.pop("metadata", None) or "{}")
    except ValueError as error:
        raise InputError(f"{where}: 'metadata' is no JSON ({error}); export the set again") from None
    return parse_example({**row, "audio": name, "metadata": metadata}, sounds, where)
