"""Examples in the formats of other trainers. One format a file; each is registered here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from relisten.data.export.base import ExportFormat, export_examples
from relisten.data.export.huggingface import HUGGING_FACE
from relisten.data.export.rows import JSONL
from relisten.data.export.swift import MS_SWIFT
from relisten.data.export.verl import VERL

FORMATS: Final[Mapping[str, ExportFormat]] = {
    "ms-swift": MS_SWIFT,
    "verl": VERL,
    "hf": HUGGING_FACE,
    "jsonl": JSONL,
}

__all__ = ["FORMATS", "ExportFormat", "export_examples"]
