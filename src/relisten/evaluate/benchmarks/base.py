"""What a benchmark offers, and what its files share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from relisten.errors import InputError
from relisten.evaluate.scoring import Rule
from relisten.jsonl import parse_row
from relisten.question import Question


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be asked, and why."""

    id: str
    error: str


@dataclass(frozen=True)
class Official:
    """The format of the benchmark's own prediction file: its rows, with the answer under a further key."""

    output_key: str
    lines: bool
    """One object a line, instead of one list."""
    thinking_key: str | None = None
    """Where the reasoning goes, if anywhere."""
    letters: bool = False
    """The answer is the letter of a choice instead of its text."""

    @property
    def file_name(self) -> str:
        return "predictions.jsonl" if self.lines else "predictions.json"


class Benchmark(Protocol):
    """Rows in, and what is needed to score and to hand in the answers.

    `Question.metadata` of an official benchmark is its whole row as it was read.
    """

    name: str
    about: str
    """One line for `relisten eval --help`."""
    breakdowns: tuple[str, ...]
    """Metadata keys, in the order in which the official script prints them. Empty: found in the rows."""
    rule: Rule
    """The rule to show where there is room for one: the benchmark's own, where it is one of ours."""
    official: Official | None

    def rows(self, data: Path | None, audio: Path | None = None) -> Iterator[Question | BadRow]:
        """The rows, in order; a bad one never stops the others.

        Args:
            data: the benchmark's folder, or its metadata file.
            audio: the folder that paths of sounds are relative to; None takes that of the metadata.

        Raises:
            InputError: there is no such data.
        """


# Rows as JSON, for the run folder


def question_to_json(row: Question | BadRow) -> dict[str, Any]:
    """The object that `question_from_json` reads."""
    if isinstance(row, BadRow):
        return {"id": row.id, "error": row.error}
    return {
        "id": row.id,
        "question": row.text,
        "choices": list(row.choices),
        "answer": row.answer,
        "audio": audio_reference(row),
        "metadata": dict(row.metadata),
    }


def question_from_json(data: Mapping[str, Any]) -> Question | BadRow:
    """Raises KeyError, TypeError or ValueError for anything that `question_to_json` did not write."""
    if "error" in data:
        return BadRow(data["id"], data["error"])
    from relisten.evaluate.benchmarks.scenes import SceneQuestion, parse_reference  # it imports this module

    values: dict[str, Any] = {
        "text": data["question"],
        "choices": tuple(data["choices"]),
        "id": data["id"],
        "answer": data["answer"],
        "metadata": data["metadata"],
    }
    scene = parse_reference(data["audio"])
    return Question(audio=Path(data["audio"]), **values) if scene is None else SceneQuestion(scene=scene, **values)


def audio_reference(question: Question) -> str:
    """The path of a question's sound, or `scene:...` for one that is simulated.

    Raises:
        InputError: the sound is in memory only; a run must be able to go on in another process.
    """
    reference = getattr(question, "reference", None)
    if isinstance(reference, str):
        return reference
    if not isinstance(question.audio, Path):
        raise InputError(f"question {question.id!r}: its sound is no file; write it to one, or use a benchmark")
    return str(question.audio.absolute())


def digest(rows: Iterable[Question | BadRow]) -> str:
    """SHA-256 (hex) over what is asked and what is right; where the sound lies is left out."""
    total = hashlib.sha256()
    for row in rows:
        if isinstance(row, BadRow):
            content: list[Any] = [row.id]
        else:
            content = [row.id, row.text, list(row.choices), row.answer]
        total.update(json.dumps(content).encode() + b"\n")
    return total.hexdigest()


# Reading what others wrote


def unique(rows: Iterable[Question | BadRow]) -> Iterator[Question | BadRow]:
    """The rows with every id used once: a further row of the same id is bad, under an id of its own."""
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        if row.id in seen:
            error = f"row {number}: id {row.id!r} is already that of an earlier row; give each its own"
            row = BadRow(f"{row.id} (row {number})", error)
        seen.add(row.id)
        yield row


def read_metadata(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | InputError]]:
    """(number from 1, object) for every row of a metadata file: one JSON list, or one object a line.

    Which of the two it is is seen from its content. A row that is no object comes out as the error that says so.

    Raises:
        InputError: the file cannot be read, or is neither.
    """
    text = read_text(path)
    start = text.lstrip()[:1]
    if start == "[":
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: is not JSON ({error}); copy the official file again") from None
        for number, row in enumerate(found, 1):
            wrong = InputError(f"{path}, row {number}: is {type(row).__name__}; a row is an object")
            yield number, row if isinstance(row, dict) else wrong
        return
    if start != "{":
        raise InputError(f"{path}: begins with {start!r}; it must hold one JSON list, or one JSON object a line")
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            parsed = parse_row(line.encode(), f"{path}:{number}")
            yield number, parsed if isinstance(parsed, InputError) else parsed[1]


def read_text(path: Path) -> str:
    """Raises InputError where the file cannot be read or is no UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from None


def find_file(data: Path | None, names: tuple[str, ...], benchmark: str) -> Path:
    """The metadata file that `--data` means: itself, or the first of `names` in that folder.

    Raises:
        InputError: there is none.
    """
    wanted = f"give --data with the folder that holds {' or '.join(names)}, or with the file itself"
    if data is None:
        raise InputError(f"{benchmark}: needs its data; {wanted}")
    if data.is_file():
        return data
    for name in names:
        if (data / name).is_file():
            return data / name
    what = f"holds no {' and no '.join(names)}" if data.is_dir() else "no such file or folder"
    raise InputError(f"{benchmark}: {data}: {what}; {wanted}")


def find_audio(path: str, metadata: Path, audio: Path | None) -> Path:
    """Where the sound `path` of a row lies: under `audio`, as written or by its bare name, else beside the
    metadata. Whether it is there shows when the question is asked."""
    if audio is None:
        return metadata.parent / path
    bare = audio / Path(path).name
    return bare if bare.is_file() and not (audio / path).is_file() else audio / path


@dataclass(frozen=True)
class Keys:
    """Under which keys an official row has what a question needs."""

    id: str = "id"
    question: str = "question"
    answer: str = "answer"
    audio: str = "audio_path"
    choices: str | tuple[str, ...] = "choices"
    """Of a list, or of one text each."""


def as_question(
    row: Mapping[str, Any] | InputError, number: int, keys: Keys, metadata: Path, audio: Path | None
) -> Question | BadRow:
    """A question from an official row.

    Empty choices and repeated ones are left out, and white space around texts: neither changes what the official
    rule says. An answer that is missing, null or empty is withheld.
    """
    unnamed = f"(row {number})"
    if isinstance(row, InputError):
        return BadRow(unnamed, str(row))
    where = f"{metadata.name}, row {number}"
    identifier = row.get(keys.id)
    if not isinstance(identifier, (str, int)) or not str(identifier).strip():
        return BadRow(unnamed, f"{where}: {keys.id} is {_shown(identifier)}; it must be a text")
    choices = _choices(row, keys)
    sounds = row.get(keys.audio)
    sounds = [sounds] if isinstance(sounds, str) else sounds
    answer, text = row.get(keys.answer), row.get(keys.question)
    wrong = None
    if not isinstance(text, str) or not text.strip():
        wrong = f"{keys.question} is {_shown(text)}; it must be a text that is not empty"
    elif choices is None:
        wrong = "the choices are no list of texts"
    elif not isinstance(sounds, list) or not all(isinstance(sound, str) and sound for sound in sounds):
        wrong = f"{keys.audio} is {_shown(sounds)}; it must be a path"
    elif len(sounds) != 1:
        wrong = f"asks about {len(sounds)} sounds; only questions about one can be asked"
    elif not isinstance(answer, (str, int, float, type(None))):
        wrong = f"{keys.answer} is {_shown(answer)}; it must be a text"
    if wrong is not None or choices is None or sounds is None:
        return BadRow(str(identifier), f"{where}: {wrong}")
    known = None if answer is None else str(answer).strip() or None
    sound = find_audio(sounds[0], metadata, audio)
    return Question(str(text).strip(), choices, sound, str(identifier), known, dict(row))


def _choices(row: Mapping[str, Any], keys: Keys) -> tuple[str, ...] | None:
    if isinstance(keys.choices, tuple):
        found: Any = [row[key] for key in keys.choices if row.get(key) is not None]
    else:
        found = row.get(keys.choices) or []
    if not isinstance(found, list) or not all(isinstance(choice, (str, int, float)) for choice in found):
        return None
    return tuple(dict.fromkeys(stripped for choice in found if (stripped := str(choice).strip())))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
