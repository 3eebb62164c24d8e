"""`relisten data judge`: a verdict on every example of a file, whoever made it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
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
from relisten.cli.data.synthesize import STORE, count_rows, refuse_outcomes
from relisten.data.examples import Example, read_examples
from relisten.data.llm.facts import Captions
from relisten.data.lookup import RowIndex
from relisten.data.manifest import ClipRecord, parse_record
from relisten.errors import InputError
from relisten.jsonl import check_limit
from relisten.llm.endpoint import Endpoint
from relisten.llm.limits import Budget

if TYPE_CHECKING:
    from relisten.llm.store import ReplyStore

Case = tuple[Example, ClipRecord, Captions | None] | InputError


def judge(
    examples: Annotated[Path, typer.Argument(help="Questions, with or without responses (JSONL).")],
    manifest: Annotated[Path, typer.Option(help="The labels of their clips.")],
    out: Annotated[Path, typer.Option(help="The folder of the run; one that is there goes on.")],
    judge: Annotated[Model, model_option("judge", "Judges them: chat endpoint and model.")] = None,
    judge_key_env: Annotated[str | None, key_option("judge")] = None,
    judge_price: Annotated[Price, price_option("judge")] = None,
    captions: Annotated[Path | None, typer.Option(help="captions.jsonl of a synthesis, if there is one.")] = None,
    endpoints: EndpointsFile = None,
    limit: Annotated[int | None, typer.Option(help="Only the first examples.")] = None,
    budget: BudgetLimit = None,
    rpm: PerMinute = None,
    concurrency: Concurrency = None,
    timeout: Timeout = None,
    stream: Stream = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Judge examples against the labels of their clips, and split them as `relisten data synthesize` does.

    Structural flaws discard an example before anything is paid. Examples find their clip by hash, else by id.
    Exit status: 0 done, 1 stopped early or with examples that failed, 2 for bad input.
    """
    need_httpx()
    check_limit(limit)
    allowed = Budget(budget)
    limits = {"requests_per_minute": rpm, "concurrency": concurrency, "timeout": timeout, "stream": stream}
    endpoint = resolve({"judge": Role(judge, judge_key_env, judge_price)}, endpoints, limits)["judge"]
    refuse_outcomes(out, examples, manifest, *filter(None, [captions]))
    from relisten.llm.store import ReplyStore

    total = count_rows(examples, limit)
    cases = islice(_cases(examples, manifest, captions), limit)
    with ReplyStore(out / STORE) as store:
        summary = asyncio.run(_run(cases, endpoint, store, out, allowed, total, as_json))
    raise typer.Exit(show_summary(summary, "example", as_json))


def _cases(examples: Path, manifest: Path, captions: Path | None) -> Iterator[Case]:
    with ExitStack() as stack:
        clips = stack.enter_context(RowIndex(manifest, ("hash", "id")))
        texts = None if captions is None else stack.enter_context(RowIndex(captions, ("hash", "clip")))
        for example in read_examples(examples):
            if isinstance(example, InputError):
                yield example
                continue
            known = example.question.metadata
            digest, clip = str(known.get("hash", "")), str(known.get("clip", ""))
            found = clips.find(hash=digest, id=clip)
            if found is None:
                missing = f"its clip (hash {digest or 'unknown'}, id {clip or 'unknown'}) is not in {manifest}"
                yield InputError(f"example {example.question.id!r}: {missing}; give the manifest it was made from")
                continue
            try:
                record = parse_record(found[1], manifest.parent, found[0])
            except InputError as error:
                yield error
                continue
            yield example, record, _captions(texts, digest, clip)


def _captions(texts: RowIndex | None, digest: str, clip: str) -> Captions | None:
    found = None if texts is None else texts.find(hash=digest, clip=clip)
    if found is None:
        return None
    row = found[1]
    speech, music = (value if isinstance(value := row.get(name), str) else None for name in ("speech", "music"))
    return Captions(str(row.get("description", "")), speech, music)


async def _run(
    cases: Iterator[Case],
    endpoint: Endpoint,
    store: ReplyStore,
    out: Path,
    budget: Budget,
    total: int,
    quiet: bool,
) -> dict[str, Any]:
    from relisten.data.llm.outcome import OutcomeFolder
    from relisten.data.llm.pipeline import rejudge
    from relisten.llm.client import ChatClient

    budget.spent = started = store.spent()
    bar = SpendBar(budget, total, "examples", quiet=quiet)
    async with ChatClient(endpoint, store, budget, on_wait=bar.told) as client:
        with OutcomeFolder(out) as folder:
            await bar.follow(rejudge(cases, client, budget), folder)
    summary = summarize(folder, {"judge": client}, store, budget, started)
    folder.write_json("run.json", {"summary": summary, "settings": {"endpoints": {"judge": asdict(endpoint)}}})
    return summary
