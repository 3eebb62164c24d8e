"""verl: parquet for reinforcement learning, as its `RLHFDataset` reads it (`data.train_files=train.parquet`).

| column | content |
|---|---|
| `data_source` | "relisten": which reward function is meant |
| `prompt` | messages; `<audio>` in the user turn is where the sound goes |
| `audios` | one absolute path |
| `ability` | "audio-qa" |
| `reward_model` | `style` "rule", `ground_truth` the reference answer |
| `extra_info` | `index`, `id`, `split`, `question`, `choices`, `duration` (seconds), `clip_hash`, `kind` |
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from relisten.data.examples import Example
from relisten.data.export.base import ExportFormat, ExportOptions, Sounds, SplitWriter, need_answer, plain
from relisten.data.export.parquet import ParquetFile, need_pyarrow
from relisten.data.filters import clip_hash, duration
from relisten.protocol import system_prompt, user_text

DATA_SOURCE: Final = "relisten"
_FILES: Final = "{split}.parquet"


def schema() -> Any:
    """The columns' types."""
    arrow = need_pyarrow()
    text = arrow.string()
    return arrow.schema(
        {
            "data_source": text,
            "prompt": arrow.list_(arrow.struct({"role": text, "content": text})),
            "audios": arrow.list_(text),
            "ability": text,
            "reward_model": arrow.struct({"style": text, "ground_truth": text}),
            "extra_info": arrow.struct(
                {
                    "index": arrow.int64(),
                    "id": text,
                    "split": text,
                    "question": text,
                    "choices": arrow.list_(text),
                    "duration": arrow.float64(),
                    "clip_hash": text,
                    "kind": text,
                }
            ),
        }.items()
    )


class _VerlWriter:
    def __init__(self, folder: Path, split: str, options: ExportOptions) -> None:
        self._file = ParquetFile(folder / _FILES.format(split=split), schema())
        self._sounds = Sounds(folder, options)
        self._instruction = system_prompt(options.format)
        self._split = split
        self._index = 0

    def add(self, example: Example) -> None:
        question = example.question
        row = {
            "data_source": DATA_SOURCE,
            "prompt": [
                {"role": "system", "content": self._instruction},
                {"role": "user", "content": f"<audio>{plain(user_text(question))}"},
            ],
            "audios": [self._sounds.path_of(example)],
            "ability": "audio-qa",
            # As the model reads it: an answer is compared with what it was offered.
            "reward_model": {"style": "rule", "ground_truth": plain(need_answer(example))},
            "extra_info": {
                "index": self._index,
                "id": question.id,
                "split": self._split,
                "question": question.text,
                "choices": list(question.choices),
                "duration": duration(example),
                "clip_hash": clip_hash(example),
                "kind": example.kind,
            },
        }
        self._file.add(row, 2000, question.id)
        self._index += 1

    def finish(self) -> None:
        self._file.finish()

    def close(self) -> None:
        self._file.close()

    def discard(self) -> None:
        self._file.discard()


def _open(folder: Path, split: str, options: ExportOptions) -> SplitWriter:
    return _VerlWriter(folder, split, options)


VERL: Final = ExportFormat("verl", "RL with verl: parquet for RLHFDataset", _open, _FILES)
