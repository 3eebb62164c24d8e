"""A run at the smallest size."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.questions import write_rows
from support.rewards import EVENNESS
from support.sounds import noise_clip

from relisten.audio import write_clip
from relisten.train.grpo.config import GrpoConfig


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    rows: list[dict[str, object]] = []
    for i in range(6):
        write_clip(folder / f"{i}.wav", noise_clip(2.0 + 0.5 * (i % 2), i))
        rows.append(
            {"id": f"q{i}", "audio": f"{i}.wav", "question": f"How many {i}?", "answer": "1", "kind": "count"}
        )
    return write_rows(folder / "questions.jsonl", rows)


@pytest.fixture
def config(tiny_folder: Path, questions: Path) -> GrpoConfig:
    return GrpoConfig(
        model=str(tiny_folder),
        questions=str(questions),
        reward=EVENNESS,
        batch_size=3,
        group_size=4,
        update_size=2,
        steps=4,
        max_tokens=8,
        lr=1e-3,
        save_every=1,
        tensorboard=False,
        train_audio=False,
        device="cpu",
    )
