"""Where a model goes, and what its weights are held in there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from relisten.models import default_dtype, resolve_device


@pytest.mark.parametrize(("gpu", "found"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_a_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch, gpu: bool, found: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert resolve_device("auto") == found
    assert [resolve_device(name) for name in ("cpu", "cuda:1", "gpu")] == ["cpu", "cuda:1", "gpu"]


def checkpoint(folder: Path, size: int, divided: bool) -> Path:
    """A folder that says it has so many bytes of weights."""
    folder.mkdir()
    if divided:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": size}}))
    else:
        with (folder / "model.safetensors").open("wb") as file:
            file.truncate(size)  # takes no room on the disk
    return folder


@pytest.mark.parametrize("divided", [True, False])
@pytest.mark.parametrize(
    ("device", "halves", "size", "dtype"),
    [
        ("cpu", True, 2**30 - 1, "float32"),
        ("cpu", True, 2**30, "bfloat16"),
        ("cpu:0", False, 2**30, "float32"),
        ("cuda", False, 1, "bfloat16"),
        ("cuda:1", True, 2**30, "bfloat16"),
    ],
)
def test_bfloat16_is_taken_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str, halves: bool, size: int, dtype: str, divided: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: halves)
    assert default_dtype(device, checkpoint(tmp_path / "model", size, divided)) == dtype


def test_echo_tiny_computes_in_float32_on_any_cpu() -> None:
    assert default_dtype("cpu", "echo-tiny") == "float32"


def test_a_single_file_of_the_hub_is_there_before_it_is_weighed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.extend(allow_patterns)
        if "model.safetensors" in asked and not (tmp_path / "model").exists():
            checkpoint(tmp_path / "model", 2**30, divided=False)
        return str(tmp_path / "model")

    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr("relisten.models.checkpoint.snapshot_download", download)
    assert default_dtype("cpu", "owner/model") == "bfloat16"
