"""The options of every command that has a model answer questions."""

from __future__ import annotations

from typing import Annotated

import typer

from relisten.listener import Dtype, EngineName
from relisten.protocol import Format

ModelName = Annotated[
    str, typer.Option("--model", help="echo-tiny, a checkpoint folder, or a hub id such as Qwen/Qwen2.5-Omni-7B.")
]
Reasoning = Annotated[Format, typer.Option("--format", help="How to reason; only interleaved listens again.")]
Temperature = Annotated[float, typer.Option(help="0 takes the likeliest token; the paper uses 0.7.")]
TopP = Annotated[float, typer.Option(help="Draw from the likeliest tokens that have this mass.")]
MaxListens = Annotated[int, typer.Option(help="Listens an answer may have.")]
MaxTokens = Annotated[int, typer.Option(help="Sampled tokens an answer may have.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, ...; auto takes a GPU if there is one.")]
WeightType = Annotated[
    Dtype,
    typer.Option(
        "--dtype",
        help="Of weights; auto: bfloat16 on a GPU, and for 1 GiB or more on CPUs made for it; else float32.",
    ),
]
Engine = Annotated[EngineName, typer.Option("--engine", help="What decodes; vllm has to be installed.")]
EngineOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--engine-option", metavar="NAME=VALUE", help="For the engine, such as gpu_memory_utilization=0.8."
    ),
]
