"""`relisten eval`: a benchmark into a run folder. `relisten score`: anybody's predictions."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from relisten.cli.answering import (
    Device,
    Engine,
    EngineOptions,
    MaxListens,
    MaxTokens,
    ModelName,
    Reasoning,
    Temperature,
    TopP,
    WeightType,
)
from relisten.cli.bars import noted_bar
from relisten.cli.console import plain_console
from relisten.cli.routing import RouteName, RouterFolder, ToolCacheFile, chosen, tell_routes
from relisten.cli.scores import percent, print_official, print_summary
from relisten.cli.side_by_side import side_by_side
from relisten.cli.statuses import INTERRUPTED
from relisten.engines.options import named_values
from relisten.errors import InputError
from relisten.jsonl import dump_json
from relisten.listener import DEFAULT_MODEL, Listener
from relisten.protocol import MAX_LISTENS, MAX_TOKENS, Format
from relisten.trace import Sampling

if TYPE_CHECKING:
    from relisten.evaluate.run_folder import Progress

_BENCHMARKS = "questions, scenes, mmar, mmau_mini, mmau, mmsu, mmau_pro or star_bench."
_QUIET = 20.0


def evaluate(
    benchmark: Annotated[str, typer.Argument(help=_BENCHMARKS)],
    out: Annotated[Path, typer.Option(help="The run folder. One that is there goes on where it stopped.")],
    data: Annotated[
        Path | None, typer.Option(help="The benchmark's folder, or its metadata file. Not needed for scenes.")
    ] = None,
    audio: Annotated[
        Path | None, typer.Option(help="Folder of the sounds, if they are not beside the metadata.")
    ] = None,
    model: ModelName = DEFAULT_MODEL,
    format: Reasoning = Format.INTERLEAVED,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Annotated[int, typer.Option(help="Each question draws its own from it.")] = 0,
    max_listens: MaxListens = MAX_LISTENS,
    max_tokens: MaxTokens = MAX_TOKENS,
    limit: Annotated[int | None, typer.Option(help="Only the first rows.")] = None,
    silent: Annotated[
        bool, typer.Option("--silent", help="Control: play silence of the same length instead of every sound.")
    ] = False,
    crop_speed: Annotated[
        float,
        typer.Option(help="Playback speed of what is heard again; 0.5 is half speed, with twice the audio tokens."),
    ] = 1.0,
    router: RouterFolder = None,
    route: RouteName = None,
    tool_cache: ToolCacheFile = None,
    device: Device = "auto",
    dtype: WeightType = "auto",
    engine: Engine = "native",
    engine_option: EngineOptions = None,
    at_once: Annotated[
        int | None,
        typer.Option(
            help="Questions that a process has open at once.", show_default="as many as the engine takes, and 32"
        ),
    ] = None,
    processes: Annotated[
        int,
        typer.Option(
            help="Processes that answer, each with its own copy of the model, and its own GPU if there is one."
        ),
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON and nothing else.")] = False,
) -> None:
    """Ask a model all questions of a benchmark and score the answers.

    Every finished question is kept at once: stop it or kill it when you like, and give the same command to go on.
    Several processes, on several machines, may work on one run folder at the same time; --processes starts some.

    Exit status: 0 when every row was asked, 1 when some failed (they are named), 2 for bad input.
    """
    # Slow to import, and needless for --help.
    from relisten.evaluate.benchmarks.registry import find_benchmark
    from relisten.evaluate.predictions import write_predictions
    from relisten.evaluate.provenance import model_hash, router_name
    from relisten.evaluate.results import read_run
    from relisten.evaluate.run_folder import Evaluated, Settings, check_out, prepare
    from relisten.evaluate.runner import work
    from relisten.evaluate.summary import summarize_run, write_summary
    from relisten.models import default_dtype
    from relisten.models.checkpoint import model_folder

    bench = find_benchmark(benchmark)
    if at_once is not None and at_once < 1:
        raise InputError(f"--at-once {at_once}: give 1 or more")
    check_out(out)
    sampling = Sampling(temperature, top_p, seed, max_tokens, max_listens, crop_speed)
    settings = Settings(format, sampling, silent)
    devices = _devices(device, processes, engine)
    device = devices[0]
    folder = model_folder(model)
    if dtype == "auto":
        dtype = default_dtype(device, folder)
    routed = chosen(router, route, tool_cache)
    evaluated = Evaluated(model, model_hash(folder), engine, dtype, router_name(router, route))
    run = prepare(bench, out, evaluated, settings, data=data, audio=audio, limit=limit)
    if run.unfinished:
        try:
            same = {
                "benchmark": benchmark, "out": out, "data": data, "audio": audio, "limit": limit, "model": model,
                "format": format, "temperature": temperature, "top_p": top_p, "seed": seed, "silent": silent,
                "max_tokens": max_tokens, "max_listens": max_listens, "crop_speed": crop_speed, "router": router,
                "route": route, "tool_cache": tool_cache, "dtype": dtype, "engine": engine,
                "engine_option": engine_option, "at_once": at_once,
            }  # fmt: skip
            others = [same | {"device": other} for other in devices[1:]]
            with (
                side_by_side(evaluate, others, out),
                Listener.load(
                    model,
                    device=device,
                    dtype=dtype,
                    engine=engine,
                    engine_options=named_values(engine_option or ()),
                    **routed.options,
                ) as listener,
                _Show(len(run.rows), bench.rule) as show,
            ):
                about = {"device": device, "model": str(folder), "engine": engine}
                work(
                    run,
                    listener.engine,
                    ask=listener.answer_by,
                    at_once=at_once,
                    on_progress=show.update,
                    about=about,
                )
        except KeyboardInterrupt:
            run.refresh()
            done = run.progress()
            print(
                f"stopped; {done.finished} of {done.total} are finished, the same command goes on", file=sys.stderr
            )
            raise typer.Exit(INTERRUPTED) from None
    read = read_run(out)
    summary = summarize_run(read)
    write_summary(out, summary)
    if evaluated.router:
        told = tell_routes(row.trace.routing for row in read.rows if row.trace is not None)
        print(f"routes: {told}", file=sys.stderr)
    if bench.official is not None:
        path = write_predictions(read, bench.official)
        print(f"answers in the official format: {path}", file=sys.stderr)
    if as_json:
        print(dump_json(summary.to_json(), indent=1))
    else:
        print_summary(plain_console(), summary)
    raise typer.Exit(1 if summary.failures else 0)


def score(
    benchmark: Annotated[str, typer.Argument(help=_BENCHMARKS)],
    predictions: Annotated[Path, typer.Argument(help="A prediction file (JSON or JSONL), or a run folder.")],
    data: Annotated[
        Path | None,
        typer.Option(help="The benchmark's own data: then its references count, whatever the file says."),
    ] = None,
    key: Annotated[str | None, typer.Option(help="Field that holds the answer, if it is not recognised.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON and nothing else.")] = False,
) -> None:
    """Score a prediction file: what the official script prints, and ours.

    Exit status: 0 scored, 1 scored with something noted (missing, repeated or foreign rows, ...), 2 bad input.
    """
    from relisten.evaluate.benchmarks.registry import find_benchmark
    from relisten.evaluate.predictions import read_predictions, score_predictions
    from relisten.evaluate.results import read_run
    from relisten.evaluate.summary import card_to_json, summarize_run

    bench = find_benchmark(benchmark)
    official = None
    if predictions.is_dir():
        run = read_run(predictions)
        if run.config.benchmark != bench.name:
            raise InputError(f"{predictions}: is a run of {run.config.benchmark}, not of {bench.name}")
        ours = summarize_run(run)
    else:
        scored = score_predictions(bench, read_predictions(predictions, bench.official, key), data)
        ours, official = scored.ours, scored.official
    if as_json:
        shown = ours.to_json() | {"official_script": card_to_json(official) if official is not None else None}
        print(dump_json(shown, indent=1))
    else:
        console = plain_console()
        if official is not None:
            print_official(console, official)
        print_summary(console, ours)
    raise typer.Exit(1 if ours.problems or ours.failures else 0)


def _devices(device: str, processes: int, engine: str) -> list[str]:
    """Where each process has its model.

    Raises:
        InputError: there can't be so many processes.
    """
    import torch

    if processes < 1:
        raise InputError(f"processes {processes}: give 1 or more")
    if engine == "vllm" and processes > 1:
        raise InputError("--processes with vllm: it uses several GPUs by itself, as --engine-option says")
    if device != "auto":
        return [device] * processes
    gpus = torch.cuda.device_count()
    if processes == 1 or not gpus:
        return ["cuda" if gpus else "cpu"] * processes
    if processes > gpus:
        raise InputError(f"processes {processes}: there are {gpus} GPUs; give --device cuda to share one")
    return [f"cuda:{number}" for number in range(processes)]


class _Show:
    """A progress bar on standard error; a line now and then where that is no terminal."""

    def __init__(self, total: int, rule: str) -> None:
        self._console = Console(stderr=True)
        self._rule = rule
        self._told = time.monotonic()
        self._bar = noted_bar(self._console)
        self._task = self._bar.add_task("asking", total=total, note="")

    def __enter__(self) -> _Show:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, progress: Progress) -> None:
        tally = progress.tally
        note = f"{percent(tally.accuracy)} % {self._rule}, {progress.listens:.2f} listens"
        if tally.failed:
            note += f", {tally.failed} failed"
        if progress.waiting:
            note += f", waiting for {progress.waiting} that others have"
        self._bar.update(self._task, completed=progress.finished, note=note)
        if not self._console.is_terminal and time.monotonic() - self._told > _QUIET:
            self._told = time.monotonic()
            print(f"{progress.finished} of {progress.total}: {note}", file=sys.stderr, flush=True)
