"""A prompt: one Markdown file, known by name and content, so that a changed word is a new request."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from string import Template


@dataclass(frozen=True)
class Prompt:
    """A prompt's text with `$name` places, and its version: "write@3f9a12c4"."""

    text: str
    version: str

    def fill(self, **values: object) -> str:
        return Template(self.text).substitute(values)


def read_prompt(package: str, name: str) -> Prompt:
    """The prompt in `<name>.md` of a package."""
    text = files(package).joinpath(f"{name}.md").read_text(encoding="utf-8").strip()
    return Prompt(text, f"{name}@{hashlib.sha256(text.encode()).hexdigest()[:8]}")
