"""`relisten data synthesize`: from a manifest to EAQA-SFT and EAQA-RL with models that caption, write and judge."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relisten.cli.data.endpoints import (
    BudgetLimit,
    Concurrency,
    EndpointsFile,
    Model,
    PerMinute,
    Price,
    Role,
    SpendBar,
    Stream,
    Timeout,
    key_option,
    model_option,
    need_httpx,
    price_option,
    resolve,
    show_summary,
    summarize,
)
from relisten.cli.outputs import refuse_same
from relisten.cli.words import plural
from relisten.data.manifest import ClipRecord, read_manifest
from relisten.errors import InputError
from relisten.jsonl import check_limit
from relisten.llm.endpoint import Endpoint
from relisten.llm.limits import Budget

if TYPE_CHECKING:
    from relisten.llm.store import ReplyStore

STORE = "replies.sqlite"


def synthesize(
    manifest: Annotated[Path, typer.Argument(help="Clips with timed labels (JSONL).")],
    out: Annotated[Path, typer.Option(help="The folder of the run; one that is there goes on.")],
    captioner: Annotated[Model, model_option("captioner", "Hears each clip: chat endpoint and model.")] = None,
    captioner_key_env: Annotated[str | None, key_option("captioner")] = None,
    captioner_price: Annotated[Price, price_option("captioner")] = None,
    writer: Annotated[Model, model_option("writer", "Writes questions and reasoning.")] = None,
    writer_key_env: Annotated[str | None, key_option("writer")] = None,
    writer_price: Annotated[Price, price_option("writer")] = None,
    judge: Annotated[Model, model_option("judge", "Judges them.", default="the writer")] = None,
    judge_key_env: Annotated[str | None, key_option("judge")] = None,
    judge_price: Annotated[Price, price_option("judge")] = None,
    endpoints: EndpointsFile = None,
    per_clip: Annotated[int, typer.Option(help="Questions asked for from each clip.")] = 3,
    limit: Annotated[int | None, typer.Option(help="Only the first clips.")] = None,
    budget: BudgetLimit = None,
    rpm: PerMinute = None,
    concurrency: Concurrency = None,
    timeout: Timeout = None,
    stream: Stream = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what it would cost; send nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Make questions with reasoning from labelled clips, the way the Echo paper does.

    Each clip is captioned by a model that hears it; a writer makes questions, choices and reasoning from captions
    and labels; what is not built right goes back to it once; a judge says whether question and reasoning hold. Both
    good: sft.jsonl. Only the question: rl.jsonl, without reasoning. The rest: discarded.jsonl, with reasons.

    Every reply is kept in OUT/replies.sqlite before it is used. Stop the run or kill it when you like: the same
    command goes on and pays for nothing twice. Keys come from environment variables only.

    Exit status: 0 done, 1 stopped early or with clips that failed (the next run tries them), 2 for bad input.
    """
    need_httpx()
    check_limit(limit)
    if per_clip < 1:
        raise InputError(f"--per-clip {per_clip}: ask for at least 1 question")
    allowed = Budget(budget)
    roles = {
        "captioner": Role(captioner, captioner_key_env, captioner_price),
        "writer": Role(writer, writer_key_env, writer_price),
        "judge": Role(judge, judge_key_env, judge_price),
    }
    limits = {"requests_per_minute": rpm, "concurrency": concurrency, "timeout": timeout, "stream": stream}
    crew = resolve(roles, endpoints, limits)
    refuse_outcomes(out, manifest)
    from relisten.llm.store import ReplyStore

    total = count_rows(manifest, limit)
    records = islice(read_manifest(manifest), limit)
    if dry_run:
        with ReplyStore(out / STORE if (out / STORE).exists() else ":memory:") as store:
            _tell_cost(records, crew, store, per_clip, as_json)
        return
    with ReplyStore(out / STORE) as store:
        summary = asyncio.run(_run(records, crew, store, out, per_clip, allowed, total, as_json))
    raise typer.Exit(show_summary(summary, "clip", as_json))


async def _run(
    records: Iterator[ClipRecord | InputError],
    endpoints: Mapping[str, Endpoint],
    store: ReplyStore,
    out: Path,
    per_clip: int,
    budget: Budget,
    total: int,
    quiet: bool,
) -> dict[str, Any]:
    from relisten.data.llm.outcome import OutcomeFolder
    from relisten.data.llm.pipeline import Crew
    from relisten.data.llm.pipeline import synthesize as results_of
    from relisten.data.llm.prompts import PROMPTS, load_prompt
    from relisten.llm.client import ChatClient
    from relisten.llm.structured import REPAIR

    budget.spent = started = store.spent()
    bar = SpendBar(budget, total, "clips", quiet=quiet)
    clients: list[ChatClient] = []
    by_role: dict[str, ChatClient] = {}
    for role, endpoint in endpoints.items():
        # A judge that is the writer shares its limits.
        client = next((known for known in clients if known.endpoint == endpoint), None)
        if client is None:
            client = ChatClient(endpoint, store, budget, on_wait=bar.told)
            clients.append(client)
        by_role[role] = client
    async with AsyncExitStack() as stack:
        for client in clients:
            await stack.enter_async_context(client)
        with OutcomeFolder(out) as folder:
            crew = Crew(**by_role)
            await bar.follow(results_of(records, crew, budget, count=per_clip), folder)
    summary = summarize(folder, by_role, store, budget, started)
    settings = {
        "per_clip": per_clip,
        "prompts": [prompt.version for prompt in (*map(load_prompt, PROMPTS), REPAIR)],
        "endpoints": {role: asdict(one) for role, one in endpoints.items()},
    }
    folder.write_json("run.json", {"summary": summary, "settings": settings})
    return summary


def refuse_outcomes(out: Path, *inputs: Path) -> None:
    """
    Raises:
        InputError: the run would write over one of the inputs.
    """
    from relisten.data.llm.outcome import FILES

    for name in FILES:
        refuse_same(out / f"{name}.jsonl", *inputs)


def count_rows(path: Path, limit: int | None) -> int:
    """Rows of a file, at most `limit`: only for the bar."""
    try:
        with path.open("rb") as file:
            return sum(1 for line in islice(file, limit) if line.strip())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None


def _tell_cost(
    records: Iterator[ClipRecord | InputError],
    endpoints: Mapping[str, Endpoint],
    store: ReplyStore,
    per_clip: int,
    as_json: bool,
) -> None:
    from relisten.data.llm.estimate import estimate_cost

    estimate = estimate_cost(records, endpoints, store, per_clip)
    cost = sum(usage.cost for usage in estimate.steps.values())
    if as_json:
        steps = {step: asdict(usage) for step, usage in estimate.steps.items()}
        print(json.dumps({"clips": estimate.clips, "bad_rows": estimate.bad, "cost": cost, "steps": steps}))
        return
    for step, usage in estimate.steps.items():
        print(
            f"{step:<8} {usage.requests:>9,} requests {usage.prompt_tokens:>12,} tokens in "
            f"{usage.completion_tokens:>12,} out   ${usage.cost:,.2f}"
        )
    prices = "" if all(one.priced for one in endpoints.values()) else " (prices of some models are not known)"
    bad = f", {plural(estimate.bad, 'bad row')}" if estimate.bad else ""
    clips = f"{estimate.clips:,} clip{'' if estimate.clips == 1 else 's'}{bad}"
    print(f"{clips}: about ${cost:,.2f} still to pay{prices}; nothing was sent")
