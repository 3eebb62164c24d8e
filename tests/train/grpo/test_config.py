"""Settings of a run: read back, refused, and the learning rate that they say."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import Any

import pytest

from relisten.errors import InputError
from relisten.train.grpo.config import GrpoConfig
from relisten.train.settings import dump_settings, make_config

CONFIG = GrpoConfig(model="model", questions="questions.jsonl", betas=(0.9, 0.95))


def test_settings_come_back_from_their_file() -> None:
    assert make_config(GrpoConfig, tomllib.loads(dump_settings(CONFIG))) == CONFIG


@pytest.mark.parametrize(
    "wrong",
    [
        {"group_size": 1},
        {"lr": 0.0},
        {"clip_low": 1.0},
        {"kl": -1.0},
        {"betas": (0.9, 1.0)},
        {"batch_size": 0},
        {"engine_options": "max_rows=4"},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        replace(CONFIG, **wrong)


def test_learning_rate_by_hand() -> None:
    config = replace(CONFIG, lr=1.0, warmup=2, schedule="linear")
    assert [config.lr_at(step, 4) for step in range(4)] == [0.5, 0.75, 0.5, 0.25]
    assert replace(config, schedule="constant", warmup=0).lr_at(3, 4) == 1.0
