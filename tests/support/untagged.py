"""A checkpoint that writes tags in several tokens, as Qwen's do before they learn others."""

from __future__ import annotations

import json
from pathlib import Path

from relisten.models.text import RESPONSE_TAGS


def untag(folder: Path) -> Path:
    """Take the tags out of a checkpoint's tokenizer, in place."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        content = json.loads((folder / name).read_text())
        for key in ("added_tokens", "additional_special_tokens"):
            if key in content:
                content[key] = [token for token in content[key] if _content(token) not in RESPONSE_TAGS]
        (folder / name).write_text(json.dumps(content))
    return folder


def _content(token: str | dict[str, str]) -> str:
    return token if isinstance(token, str) else token["content"]
