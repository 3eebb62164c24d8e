"""`Question`: what is asked about which sound; and files of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relisten.audio import Clip
from relisten.errors import InputError
from relisten.jsonl import read_parsed


@dataclass(frozen=True)
class Question:
    """A question about one clip.

    `audio` is the sound itself or a path that is read when the question is asked; a text becomes a path, and a list
    of choices a tuple. `answer` is the reference (None: not known). `findings` are lines that audio tools reported
    about the clip; a model reads them behind the question. `metadata` holds whatever else a row carried; it is
    never shown to a model.
    """

    text: str
    choices: tuple[str, ...] = ()
    audio: Clip | Path | None = None
    id: str = ""
    answer: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        choices: Sequence[str] = self.choices
        if isinstance(choices, str):  # a sequence of its letters
            raise InputError(f"choices {choices!r}: give a list of texts, such as [{choices!r}]")
        object.__setattr__(self, "choices", tuple(choices))
        if isinstance(self.audio, (str, os.PathLike)):
            object.__setattr__(self, "audio", Path(self.audio))
        if not self.text.strip():
            raise InputError(f"question {self.id or '(no id)'}: the text is empty; say what is asked")
        if any(not choice.strip() for choice in self.choices):
            raise InputError(f"question {self.id or '(no id)'}: a choice is empty; leave it out or fill it in")
        if len(set(self.choices)) != len(self.choices):
            raise InputError(f"question {self.id or '(no id)'}: a choice is listed twice; list each once")
        if any(not finding.strip() or "\n" in finding for finding in self.findings):
            raise InputError(f"question {self.id or '(no id)'}: a finding is empty or has two lines; give one each")

    def clip(self) -> Clip:
        """The sound, read from disk if need be.

        Raises:
            InputError: there is none, or it cannot be read.
        """
        if self.audio is None:
            raise InputError(f"question {self.id or '(no id)'}: names no sound; give a clip or a path")
        return self.audio if isinstance(self.audio, Clip) else Clip.load(self.audio)


class BadQuestionError(InputError):
    """A row of a questions file that is no question; `id` is what it would have been asked under, "" if that is
    no text or number."""

    def __init__(self, message: str, id: str = "") -> None:  # a default, for pickle
        super().__init__(message)
        self.id = id


def read_questions(path: str | Path) -> Iterator[Question | InputError]:
    """The questions of a JSONL file, in order; blank lines are passed over, a missing id becomes the line number.

    A bad row comes out as the `InputError` that tells what is wrong with it, so that it never stops the others; it
    is a `BadQuestionError` where the row is an object.

    Raises:
        InputError: the file itself cannot be read; at once, before any question is asked for.
    """
    return read_parsed(path, parse_question)


def parse_question(row: Mapping[str, Any], folder: Path, where: str) -> Question:
    """One question from a decoded JSON row: `question` and `audio` (a path relative to `folder`) are required;
    `id`, `choices`, `answer`, `findings` are known; every other key becomes metadata, as do those of an object
    `metadata`. An id that is missing or null becomes the line's number, the end of `where`.

    Raises:
        BadQuestionError: with `where` in front, for a row that is none of this.
    """
    identifier = row.get("id")
    if identifier is None:
        identifier = where.rpartition(":")[2]
    try:
        return _question({**row, "id": identifier}, folder)
    except InputError as error:
        known = str(identifier) if isinstance(identifier, (str, int)) else ""
        raise BadQuestionError(f"{where}: {error}", known) from None


def _question(rest: dict[str, Any], folder: Path) -> Question:
    text, audio, identifier = rest.pop("question", None), rest.pop("audio", None), rest.pop("id")
    choices, answer = rest.pop("choices", None), rest.pop("answer", None)
    findings, metadata = rest.pop("findings", None), rest.pop("metadata", None) or {}
    for key, value in (("question", text), ("audio", audio)):
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{key!r} is {value!r}; it must be a text that is not empty")
    for key, texts in (("choices", choices), ("findings", findings)):
        if not isinstance(texts, (list, type(None))) or not all(isinstance(text, str) for text in texts or ()):
            raise InputError(f"{key!r} is {texts!r}; it must be a list of texts")
    if not isinstance(answer, (str, type(None))):
        raise InputError(f"'answer' is {answer!r}; it must be a text")
    if not isinstance(metadata, dict):
        raise InputError(f"'metadata' is {metadata!r}; it must be an object")
    if not isinstance(identifier, (str, int)):
        raise InputError(f"'id' is {identifier!r}; it must be a text or a whole number")
    return Question(
        text=str(text),
        choices=tuple(choices or ()),
        audio=folder / str(audio),
        id=str(identifier),
        answer=answer,
        metadata=rest | metadata,
        findings=tuple(findings or ()),
    )
