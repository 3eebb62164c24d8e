"""The prompts: one Markdown file each, known by name and content, so that a changed word is a new request."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Template
from typing import Final

PROMPTS: Final = (
    "caption", "write", "focus-sound", "focus-music-basic", "focus-music-expert", "judge", "repair",
)  # fmt: skip


@dataclass(frozen=True)
class Prompt:
    """A prompt's text with `$name` places, and its version: "write@3f9a12c4"."""

    text: str
    version: str

    def fill(self, **values: object) -> str:
        return Template(self.text).substitute(values)


@cache
def load_prompt(name: str) -> Prompt:
    """The prompt in `<name>.md` beside this file."""
    data = files(__name__).joinpath(f"{name}.md").read_bytes()
    text = data.decode("utf-8").strip()
    return Prompt(text, f"{name}@{hashlib.sha256(text.encode()).hexdigest()[:8]}")
