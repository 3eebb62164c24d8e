"""Exports through the trainers' own readers. They are heavy, so these tests run where verl or ms-swift is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relisten.audio import Clip, write_clip
from relisten.data.examples import Example
from relisten.data.export import FORMATS, export_examples
from relisten.data.export.base import ExportOptions
from relisten.question import Question

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours to mend

RESPONSE = "<think>To see I play <seg>0.1, 0.6</seg> and hear a bark, so it is a dog.</think><answer>dog</answer>"
USER = "Which is < audio> number {}?\nChoices:\n- dog\n- cat"


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    path = tmp_path / "clip.wav"
    write_clip(path, Clip(np.zeros(16_000, np.float32)))
    return [
        Example(Question(f"Which is <audio> number {n}?", ("dog", "cat"), path, f"q{n}", "dog"), RESPONSE, "order")
        for n in range(5)
    ]


def test_verl_reads_it(examples: list[Example], tmp_path: Path) -> None:
    reader = pytest.importorskip(
        "verl.utils.dataset.rl_dataset", reason="verl is not installed: its RLHFDataset was not tried"
    )
    from omegaconf import OmegaConf

    export_examples(examples, FORMATS["verl"], tmp_path, ExportOptions(validation=0.0))
    config = OmegaConf.create({"cache_dir": str(tmp_path / "cache"), "filter_overlong_prompts": False})

    class Tokenizer:
        pass

    rows = reader.RLHFDataset([str(tmp_path / "train.parquet")], Tokenizer(), config, processor=object())
    assert len(rows) == 5
    row: dict[str, Any] = rows[3]
    system, user = row["raw_prompt"]
    sound, text = user["content"]
    assert system["content"][0]["text"].startswith("You answer questions about a sound.")
    assert (sound["type"], sound["audio"]) == ("audio", str(tmp_path / "clip.wav"))
    assert (text["type"], text["text"]) == ("text", USER.format(3))
    assert row["reward_model"]["ground_truth"] == "dog"
    assert row["index"] == 3
    assert row["extra_info"]["duration"] == 1.0
    assert reader.RLHFDataset._extract_audio_info(row["raw_prompt"]) == [str(tmp_path / "clip.wav")]
    assert reader.collate_fn([rows[0], rows[1]])["data_source"].tolist() == ["relisten"] * 2


def test_ms_swift_reads_it(examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
    core = pytest.importorskip(
        "swift.dataset.preprocessor.core", reason="ms-swift is not installed: its preprocessor was not tried"
    )
    import datasets

    export_examples(examples, FORMATS["ms-swift"], tmp_path, ExportOptions(validation=0.0))
    file = str(tmp_path / "train.jsonl")
    raw = datasets.load_dataset("json", data_files=file, cache_dir=str(tmp_path / "cache"))["train"]
    rows = core.AutoPreprocessor()(raw, load_from_cache_file=False, strict=True)
    assert rows.column_names == ["messages", "audios"]
    assert len(rows) == 5
    assert rows[2]["messages"][1] == {"role": "user", "content": f"<audio>{USER.format(2)}"}
    assert rows[2]["messages"][2]["content"] == RESPONSE
    assert rows[2]["audios"] == [str(tmp_path / "clip.wav")]
