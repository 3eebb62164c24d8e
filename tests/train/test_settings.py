"""Settings in files and on the command line: what is wrong is named, what is right comes back as it was."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from relisten.cli.train.options import configured
from relisten.errors import InputError
from relisten.protocol import Format
from relisten.train.grpo.config import GrpoConfig
from relisten.train.settings import SHIPPED, differences, dump_settings, make_config, read_settings


@dataclass(frozen=True)
class Config:
    model: Annotated[str, "What is trained."]
    rate: Annotated[float, "How fast."] = 1e-6
    betas: Annotated[tuple[float, float], "Of the optimizer."] = (0.9, 0.99)
    kind: Annotated[Literal["a", "b"], "Which."] = "a"
    format: Annotated[Format, "How."] = Format.INTERLEAVED
    rank: Annotated[int | None, "Of adapters."] = None
    layers: tuple[str, ...] = ()
    audio: Annotated[bool, "Too."] = False

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise InputError(f"rate {self.rate}: it must be more than 0")


FULL = Config('a "quoted" \\ näme\n', 2e-7, (0.5, 1.0), "b", Format.TEXT, 4, ("x", "y"), True)


@pytest.mark.parametrize("config", [Config("m"), FULL])
def test_a_file_brings_the_same_settings_back(config: Config, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(dump_settings(config), encoding="utf-8")
    assert make_config(Config, read_settings(tmp_path / "c.toml")) == config


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "no model: give --model"),
        ({"model": "m", "rat": 1.0}, "did you mean rate"),
        ({"model": "m", "zzz": 1.0}, "known are model"),
        ({"model": 3}, "must be a text"),
        ({"model": "m", "rate": "fast"}, "must be a number"),
        ({"model": "m", "rate": True}, "must be a number"),
        ({"model": "m", "rank": 1.5}, "must be a whole number"),
        ({"model": "m", "betas": [0.1]}, "must have 2 values"),
        ({"model": "m", "betas": 0.1}, "must be a list"),
        ({"model": "m", "kind": "c"}, "one of a, b"),
        ({"model": "m", "format": "loud"}, "one of text, grounded, interleaved"),
        ({"model": "m", "audio": "yes"}, "true or false"),
        ({"model": "m", "rate": 0}, "more than 0"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=r"^here: ") as caught:
        make_config(Config, values, "here")
    assert says in str(caught.value)


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_settings(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("rate: 3")
    with pytest.raises(InputError, match="is no TOML"):
        read_settings(tmp_path / "bad.toml")


def test_shipped_settings_for_grpo_make_sense() -> None:
    names = [name for name in SHIPPED if name.startswith("grpo")]
    assert names
    for name in names:
        config = make_config(GrpoConfig, read_settings(name) | {"questions": "q.jsonl"}, name)
        assert (config.group_size, config.batch_size, config.update_size, config.kl) == (8, 64, 32, 0.04)


def test_differences_are_named() -> None:
    assert differences(Config("m"), Config("m")) == ""
    assert differences(Config("m"), Config("n", rate=0.5)) == "model m instead of n, rate 1e-06 instead of 0.5"


def test_options_go_before_the_file_and_the_file_before_defaults(tmp_path: Path) -> None:
    seen: list[tuple[Config, Path, bool]] = []

    @configured(Config)
    def command(
        config: Config,
        out: Annotated[Path, typer.Option(help="Where.")],
        as_json: Annotated[bool, typer.Option("--json")] = False,
    ) -> None:
        """What it does."""
        seen.append((config, out, as_json))

    app = typer.Typer()
    app.command()(command)
    (tmp_path / "c.toml").write_text('model = "m"\nrate = 3\nbetas = [0.5, 1]\n')
    run = CliRunner().invoke
    given = ["--config", str(tmp_path / "c.toml"), "--rate", "0.5", "--audio", "--format", "text", "--out", "o"]
    assert run(app, given, catch_exceptions=False).exit_code == 0
    config, out, as_json = seen[0]
    assert config == Config("m", 0.5, (0.5, 1.0), format=Format.TEXT, audio=True)
    assert (out, as_json) == (Path("o"), False)
    assert run(app, ["--model", "x", "--out", "o", "--json"], catch_exceptions=False).exit_code == 0
    assert seen[1] == (Config("x"), Path("o"), True)
    assert run(app, ["--model", "x"]).exit_code == 2
    told = run(app, ["--help"]).output
    assert all(text in told for text in ("What it does.", "How fast.", "Default: a."))
