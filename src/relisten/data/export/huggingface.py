"""Hugging Face `datasets`: a folder of parquet shards with the sounds inside, for `load_dataset(folder)`.

Sounds go in as they are where they are wav, flac, mp3, ogg or opus, else as flac at 16 kHz. The column is an
`Audio` feature: it is decoded on access, at 16 kHz; `cast_column("audio", Audio(decode=False))` gives the bytes.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, Final

import soundfile

from relisten.audio import SAMPLE_RATE, Clip
from relisten.data.examples import Example
from relisten.data.export.base import ExportFormat, ExportOptions, SplitWriter, sound_path
from relisten.data.export.parquet import ParquetFile, need_pyarrow
from relisten.data.filters import clip_hash, duration
from relisten.jsonl import dump_json

SHARD_BYTES: Final = 500 << 20
_KEPT: Final = (".wav", ".flac", ".mp3", ".ogg", ".opus")
_NUMBER: Final = "[0-9]" * 5
_FILES: Final = f"data/{{split}}-{_NUMBER}-of-{_NUMBER}.parquet"
_TEXTS: Final = ("id", "question", "answer", "response", "kind", "difficulty", "clip_hash", "source", "metadata")


def schema() -> Any:
    """The columns' types, with the note that tells `datasets` which of them is a sound."""
    arrow = need_pyarrow()
    text = arrow.string()
    columns = {
        "id": text,
        "audio": arrow.struct({"bytes": arrow.binary(), "path": text}),
        "duration": arrow.float64(),
        "question": text,
        "choices": arrow.list_(text),
        **{name: text for name in _TEXTS if name not in ("id", "question")},
    }
    value = {"dtype": "string", "_type": "Value"}
    features: dict[str, Any] = dict.fromkeys(columns, value)
    features["audio"] = {"sampling_rate": SAMPLE_RATE, "_type": "Audio"}
    features["duration"] = {"dtype": "float64", "_type": "Value"}
    features["choices"] = [value]
    note = json.dumps({"info": {"features": features}})
    return arrow.schema(columns.items(), metadata={"huggingface": note})


class _HubWriter:
    def __init__(self, folder: Path, split: str) -> None:
        self._folder = folder / "data"
        self._folder.mkdir(exist_ok=True)
        self._split = split
        self._schema = schema()
        self._shards = [self._new_shard(0)]

    def add(self, example: Example) -> None:
        question = example.question
        source = question.metadata.get("source")
        path = sound_path(example)
        sound = _sound_bytes(path)
        row = {
            "id": question.id,
            "audio": {"bytes": sound, "path": path.name},
            "duration": duration(example),
            "question": question.text,
            "choices": list(question.choices),
            "answer": question.answer,
            "response": example.response or None,
            "kind": example.kind or None,
            "difficulty": example.difficulty or None,
            "clip_hash": clip_hash(example),
            "source": None if source is None else str(source),
            "metadata": dump_json(question.metadata),
        }
        if self._shards[-1].bytes >= SHARD_BYTES:
            self._shards[-1].finish()
            self._shards.append(self._new_shard(len(self._shards)))
        self._shards[-1].add(row, len(sound) + 2000, question.id)

    def finish(self) -> None:
        for shard in self._shards:
            shard.finish()

    def close(self) -> None:
        for old in self._folder.glob(f"{self._split}-*-of-*.parquet"):
            old.unlink()
        for number, shard in enumerate(self._shards):
            shard.close(self._folder / f"{self._split}-{number:05d}-of-{len(self._shards):05d}.parquet")

    def discard(self) -> None:
        for shard in self._shards:
            shard.discard()

    def _new_shard(self, number: int) -> ParquetFile:
        return ParquetFile(self._folder / f"{self._split}-{number:05d}.parquet", self._schema)


def _sound_bytes(path: Path) -> bytes:
    if path.suffix.lower() in _KEPT:
        return path.read_bytes()
    buffer = io.BytesIO()
    soundfile.write(buffer, Clip.load(path).samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def _open(folder: Path, split: str, options: ExportOptions) -> SplitWriter:
    return _HubWriter(folder, split)


HUGGING_FACE: Final = ExportFormat("hf", "Hugging Face datasets: parquet with the sounds inside", _open, _FILES)
