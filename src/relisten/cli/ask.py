"""`relisten ask`: one question with everything shown as it happens, or a file of questions as JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from relisten.audio import Clip
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
from relisten.cli.display import AnswerDisplay
from relisten.cli.outputs import refuse_same
from relisten.cli.routing import RouteName, RouterFolder, ToolCacheFile, chosen, tell_routes
from relisten.cli.words import plural
from relisten.engines.drive import Piece
from relisten.engines.options import named_values
from relisten.errors import InputError
from relisten.files import check_writable
from relisten.jsonl import dump_row
from relisten.listener import DEFAULT_MODEL, Listener
from relisten.protocol import MAX_LISTENS, MAX_TOKENS, Finish, Format, Listen, same_answer
from relisten.question import BadQuestionError, Question, read_questions
from relisten.trace import Routing, Sampling, Trace


class Ask(typer.core.TyperCommand):
    """Lets `--choices` take several words at once: everything up to the next option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        spread: list[str] = []
        taking = False
        for argument, following in pairwise([*args, "--"]):
            if argument == "--choices":
                if following.startswith("--"):
                    raise InputError("--choices: no choice stands behind it; write --choices 2 3")
                taking = True
            elif argument.startswith("--"):
                taking = argument.startswith("--choices=")
                spread.append(argument)
            else:
                spread += ["--choices", argument] if taking else [argument]
        return super().parse_args(ctx, spread)


def ask(
    audio: Annotated[Path | None, typer.Argument(help="A sound file (wav, flac, ogg, mp3, m4a, ...).")] = None,
    question: Annotated[str | None, typer.Argument(help="What to ask about it.")] = None,
    choices: Annotated[
        list[str] | None,
        typer.Option(
            "--choices", metavar="A B C", help="Answers to choose from; everything up to the next option."
        ),
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(
            "--questions", help="Instead: a JSONL file of questions (id, audio, question, choices, answer)."
        ),
    ] = None,
    model: ModelName = DEFAULT_MODEL,
    format: Reasoning = Format.INTERLEAVED,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Annotated[
        int | None, typer.Option(help="Makes sampled answers repeatable.", show_default="a new one")
    ] = None,
    max_listens: MaxListens = MAX_LISTENS,
    max_tokens: MaxTokens = MAX_TOKENS,
    router: RouterFolder = None,
    route: RouteName = None,
    tool_cache: ToolCacheFile = None,
    device: Device = "auto",
    dtype: WeightType = "auto",
    engine: Engine = "native",
    engine_option: EngineOptions = None,
    trace: Annotated[Path | None, typer.Option(help="Also write the trace (JSON) to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the trace as JSON and nothing else.")] = False,
) -> None:
    """Ask a question about a sound; shows the reasoning, where it listened again, and the answer.

    Exit status: 0 with an answer, 1 without one, 2 for bad input. With --questions every answer is one JSON line
    on standard output, in the order in which they finish; 0 means that every question got an answer.
    """
    sampling = Sampling(temperature, top_p, seed, max_tokens, max_listens)
    options: dict[str, Any] = {"format": format, **asdict(sampling)}
    routed = chosen(router, route, tool_cache)
    loaded = partial(
        Listener.load,
        model,
        device=device,
        dtype=dtype,
        engine=engine,
        engine_options=named_values(engine_option or ()),
        **routed.options,
    )
    if choices is not None and len(choices) == 1:
        raise InputError(f"--choices {choices[0]} is one choice; write --choices 2 3")
    if questions is not None:
        if audio is not None or question is not None or choices or trace is not None:
            raise InputError("--questions stands alone: leave out the sound, the question, --choices and --trace")
        answered = _ask_file(questions, loaded, options)
    else:
        if audio is None or question is None:
            taken = "; --choices takes all words behind it, so put sound and question in front" if choices else ""
            raise InputError(
                f'nothing to ask: give a sound and a question, as in `relisten ask drums.wav "..."`{taken}'
            )
        asked = Question(question, tuple(choices or ()), Clip.load(audio))
        if trace is not None:
            refuse_same(trace, audio)
            check_writable(trace, "--trace")
        result = _ask_one(asked, loaded, options, as_json)
        if trace is not None:
            try:
                trace.write_text(dump_row(result.to_json()), encoding="utf-8")
            except OSError as error:  # one of a full disk names no file
                raise OSError(error.errno, error.strerror, str(trace)) from None
        answered = result.answer is not None
    raise typer.Exit(0 if answered else 1)


def _ask_one(question: Question, load: Callable[[], Listener], options: dict[str, Any], as_json: bool) -> Trace:
    clip = question.clip()
    with load() as listener:
        if as_json:
            result = listener.ask(clip, question.text, question.choices, **options)
            print(dump_row(result.to_json()), end="")
            return result
        display = AnswerDisplay(Console(), clip, listener.engine.model)
        for event in listener.stream(clip, question.text, question.choices, **options):
            if isinstance(event, Piece):
                display.write(event.text)
            elif isinstance(event, Listen):
                display.listen(event.segment)
            elif isinstance(event, Routing):
                display.routing(event)
            elif isinstance(event, Trace):
                result = event
        display.close(result)
        return result


def _ask_file(path: Path, load: Callable[[], Listener], options: dict[str, Any]) -> bool:
    rows = read_questions(path)
    references: list[str | None] = []
    ids: list[str] = []
    bad: list[InputError] = []

    held: list[Question | InputError] = []
    for row in rows:  # a file without one question needs no model
        held.append(row)
        if isinstance(row, Question):
            break
    else:
        first = next((f"the first bad row: {row}" for row in held), "write one JSON object a line")
        raise InputError(f"{path}: holds no question; {first}")

    def noted() -> Iterator[Question | InputError]:
        for row in chain(held, rows):
            references.append(row.answer if isinstance(row, Question) else None)
            ids.append(row.id if isinstance(row, (Question, BadQuestionError)) else "")
            if isinstance(row, InputError):
                bad.append(row)
            yield row

    answered = right = judged = finished = 0
    routings: list[Routing] = []
    errors = Console(stderr=True)
    with (
        load() as listener,
        Progress(
            SpinnerColumn(),
            TextColumn("{task.completed} answered"),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=errors,
            transient=True,
            disable=not errors.is_terminal,
        ) as progress,
    ):
        task = progress.add_task("", total=None, note="")
        for index, result in listener.ask_each(noted(), **options):
            print(dump_row(replace(result, id=ids[index]).to_json()), end="", flush=True)
            finished += 1
            answered += result.answer is not None
            if result.routing is not None:
                routings.append(result.routing)
            reference = references[index]
            if reference is not None and result.finish is not Finish.FAILED:
                judged += 1
                right += same_answer(result.answer, reference)
            progress.update(task, completed=finished, note=f"accuracy {right}/{judged}" if judged else "")
    summary = f"{answered} of {finished} questions answered"
    if judged:
        summary += f"; accuracy {right / judged:.1%} ({right} of {judged} with a reference)"
    if routings:
        summary += f"; routes: {tell_routes(routings)}"
    if bad:
        summary += f"; {plural(len(bad), 'bad row')}, the first: {bad[0]}"
    print(summary, file=sys.stderr)
    return answered == finished
