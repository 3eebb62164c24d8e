"""The prompts of the steps, one Markdown file each."""

from __future__ import annotations

from functools import cache
from typing import Final

from relisten.llm.prompt import Prompt, read_prompt

PROMPTS: Final = (
    "caption", "write", "focus-sound", "focus-music-basic", "focus-music-expert", "judge",
)  # fmt: skip


@cache
def load_prompt(name: str) -> Prompt:
    """The prompt in `<name>.md` beside this file."""
    return read_prompt(__name__, name)
