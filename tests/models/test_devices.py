"""Where a model goes, and what its weights are held in there."""

from __future__ import annotations

import pytest
import torch

from relisten.models import default_dtype, resolve_device


@pytest.mark.parametrize(("gpu", "found"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_a_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch, gpu: bool, found: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert resolve_device("auto") == found
    assert [resolve_device(name) for name in ("cpu", "cuda:1", "gpu")] == ["cpu", "cuda:1", "gpu"]


@pytest.mark.parametrize(
    ("device", "dtype"), [("cpu", "float32"), ("cpu:0", "float32"), ("cuda", "bfloat16"), ("cuda:1", "bfloat16")]
)
def test_the_cpu_computes_in_float32(device: str, dtype: str) -> None:
    assert default_dtype(device) == dtype
