"""`relisten rubrics`: MMAR's criteria for reasoning, judged by a language model."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from relisten.cli.console import plain_console
from relisten.cli.data.endpoints import (
    BudgetLimit,
    Concurrency,
    EndpointsFile,
    Model,
    PerMinute,
    Price,
    Role,
    Timeout,
    key_option,
    model_option,
    need_httpx,
    price_option,
    resolve,
)
from relisten.cli.scores import percent
from relisten.errors import InputError
from relisten.jsonl import check_limit, dump_json
from relisten.llm.limits import Budget

if TYPE_CHECKING:
    from relisten.evaluate.rubrics import Case, Judged
    from relisten.llm.endpoint import Endpoint


def rubrics(
    predictions: Annotated[Path, typer.Argument(help="A run folder of mmar, or a prediction file for it.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the verdicts.", show_default="rubrics in the run folder")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="MMAR's own data, for a prediction file without it.")] = None,
    judge: Annotated[Model, model_option("judge", "Judges them: chat endpoint and model.")] = None,
    judge_key_env: Annotated[str | None, key_option("judge")] = None,
    judge_price: Annotated[Price, price_option("judge")] = None,
    endpoints: EndpointsFile = None,
    limit: Annotated[int | None, typer.Option(help="Only the first answers.")] = None,
    budget: BudgetLimit = None,
    rpm: PerMinute = None,
    concurrency: Concurrency = None,
    timeout: Timeout = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the means as JSON and nothing else.")] = False,
) -> None:
    """Judge the reasoning of MMAR answers by the criteria of each item (MMAR-Rubrics).

    Replies are kept: stop it when you like, and give the same command to go on. Exit status: 0 all judged, 1 some
    not (those that failed are named), 2 for bad input.
    """
    need_httpx()
    check_limit(limit)
    allowed = Budget(budget)
    limits = {"requests_per_minute": rpm, "concurrency": concurrency, "timeout": timeout}
    endpoint = resolve({"judge": Role(judge, judge_key_env, judge_price)}, endpoints, limits)["judge"]
    if out is None:
        if not predictions.is_dir():
            raise InputError(f"{predictions}: is a file; say with --out where the verdicts go")
        out = predictions / "rubrics"
    cases = _cases(predictions, data)[:limit]
    if not cases:
        raise InputError(f"{predictions}: holds no answer to judge")
    judged, summary = asyncio.run(_judge(cases, endpoint, out, allowed, as_json))
    from relisten.evaluate.rubrics import write_verdicts

    write_verdicts(out, judged, summary)
    if as_json:
        print(dump_json(summary, indent=1))
    else:
        _show(summary)
    if summary["stopped"]:
        print(f"stopped early: {summary['stopped']}. Run the same command again to go on", file=sys.stderr)
    raise typer.Exit(1 if summary["not_judged"] else 0)


def _cases(predictions: Path, data: Path | None) -> list[Case]:
    from relisten.evaluate.benchmarks.registry import find_benchmark
    from relisten.evaluate.predictions import known_questions, read_predictions
    from relisten.evaluate.results import read_run
    from relisten.evaluate.rubrics import prediction_cases, run_cases

    if predictions.is_dir():
        return list(run_cases(read_run(predictions)))
    benchmark = find_benchmark("mmar")
    file = read_predictions(predictions, benchmark.official)
    questions, _ = known_questions(benchmark, file, data)
    return list(prediction_cases(questions, file.rows, "thinking_prediction"))


async def _judge(
    cases: list[Case], endpoint: Endpoint, out: Path, budget: Budget, quiet: bool
) -> tuple[list[Judged], dict[str, Any]]:
    from rich.progress import Progress

    from relisten.evaluate.benchmarks.registry import find_benchmark
    from relisten.evaluate.rubrics import PROMPT, judge_all, summarize
    from relisten.llm.client import ChatClient
    from relisten.llm.store import ReplyStore

    judged = []
    with ReplyStore(out / "replies.sqlite") as store:
        budget.spent = store.spent()
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
            task = bar.add_task("judging", total=len(cases))
            async with ChatClient(endpoint, store, budget) as client:
                async for each in judge_all(client, cases, budget):
                    judged.append(each)
                    bar.update(task, advance=1)
        summary = summarize(judged, find_benchmark("mmar").breakdowns) | {
            "judge": asdict(endpoint),
            "prompt": PROMPT.version,
            "stopped": budget.closed,
            "replies_paid": client.counts.paid,
            "replies_stored": client.counts.stored,
            "spent_in_all": store.spent(),
        }
    return judged, summary


def _show(summary: dict[str, Any]) -> None:
    console = plain_console()
    console.print(f"MMAR-Rubrics, {summary['answers']} answers judged by {summary['judge']['model']}")
    console.print(f"  mean score {percent(summary['mean'])} %")
    console.print(f"  over the {summary['right_answers']} right answers {percent(summary['mean_of_right'])} %")
    console.print(f"  with wrong answers as 0 {percent(summary['mean_wrong_as_0'])} %")
    for key, values in summary["breakdowns"].items():
        console.print(f"  by {key}")
        for value, means in values.items():
            console.print(f"    {value}: {percent(means['mean'])} % over {means['answers']}")
    failed = [row for row in summary["not_judged"] if row["error"] != summary["stopped"]]
    for row in failed[:20]:
        console.print(f"  not judged: {row['id']}: {row['error']}", style="yellow")
    console.print(
        f"{summary['replies_paid']} replies paid, {summary['replies_stored']} were there already; "
        f"${summary['spent_in_all']:.4f} in all"
    )
