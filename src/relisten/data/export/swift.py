"""ms-swift: JSON lines of `messages` and `audios`, for supervised fine-tuning (`--dataset train.jsonl`).

`<audio>` in the user turn is where the sound goes. Nothing is inserted inside the response: stage 1 of Echo trains
on the text alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from relisten.data.examples import Example
from relisten.data.export.base import ExportFormat, ExportOptions, Sounds, SplitWriter, need_response, plain
from relisten.data.export.rows import ROW_FILES, RowWriter
from relisten.protocol import system_prompt, user_text


def _open(folder: Path, split: str, options: ExportOptions) -> SplitWriter:
    sounds = Sounds(folder, options)
    instruction = system_prompt(options.format)

    def row(example: Example) -> Mapping[str, Any]:
        response = need_response(example)
        return {
            "messages": [
                {"role": "system", "content": instruction},
                {"role": "user", "content": f"<audio>{plain(user_text(example.question))}"},
                {"role": "assistant", "content": plain(response)},
            ],
            "audios": [sounds.path_of(example)],
        }

    return RowWriter(folder, split, row)


MS_SWIFT: Final = ExportFormat("ms-swift", "SFT with ms-swift: JSON lines of messages and audios", _open, ROW_FILES)
