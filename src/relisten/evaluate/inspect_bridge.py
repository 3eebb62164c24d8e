"""Evaluating a `Listener` with inspect_ai: a model, a solver for anybody's tasks, and our questions and rules.

    inspect eval relisten/questions -T data=my.jsonl --model relisten/echo-tiny
    inspect eval their_task.py --solver relisten/listen --model relisten/echo-tiny

inspect_ai finds this module by its entry point; `pip install relisten[inspect]` installs both.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageUser,
    ContentAudio,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.scorer import CORRECT, INCORRECT, NOANSWER, Score, Scorer, Target, accuracy, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver

from relisten.audio import Clip
from relisten.engines.drive import open_at_once, question_seed
from relisten.errors import EngineError, InputError
from relisten.evaluate.benchmarks.base import BadRow, unique
from relisten.evaluate.benchmarks.registry import find_benchmark
from relisten.evaluate.predictions import thinking
from relisten.evaluate.scoring import Outcome, Rule, chosen, grade
from relisten.listener import Listener
from relisten.protocol import MAX_TOKENS, Finish, user_text
from relisten.question import Question
from relisten.trace import Trace

_KEY: Final = "relisten"
_CONNECTIONS: Final = 96  # what the native engine takes; a task does not know its model
_TRACE: Final = "trace"
_VALUES: Final = {Outcome.RIGHT: CORRECT, Outcome.WRONG: INCORRECT, Outcome.NO_ANSWER: NOANSWER}
_STOPS: Final = {Finish.LENGTH: "max_tokens", Finish.CONTEXT: "model_length"}


@modelapi(name="relisten")
class ListenerAPI(ModelAPI):
    """`relisten/MODEL`: echo-tiny, a checkpoint folder or a hub id.

    `-M` passes `device`, `dtype` and `max_rows` to `Listener.load`, and `format` and `max_listens` to every answer;
    temperature, top-p, seed and max tokens are inspect's own options. In Python, `listener` takes one that is open.

    The completion is what stands between the answer tags, and empty where nothing does; what was written before is
    the message's reasoning. The whole `Trace` is in the output's metadata under "trace".
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        *,
        listener: Listener | None = None,
        format: str = "interleaved",
        max_listens: int | None = None,
        **load: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        self._listener = listener or Listener.load(model_name, **load)
        self._owned = listener is None
        self._options: dict[str, Any] = {"format": format}
        if max_listens is not None:
            self._options["max_listens"] = max_listens

    async def generate(
        self, input: list[ChatMessage], tools: list[Any], tool_choice: Any, config: GenerateConfig
    ) -> ModelOutput:
        """Raises InputError for what cannot be asked, and EngineError for an answer that failed."""
        if tools:
            raise InputError(f"{len(tools)} tools given; a listener calls none, leave them out")
        question = await asyncio.to_thread(_asked, input)
        trace = await self._listener.answer(question, **self._options, **_sampling(config, question))
        if trace.finish is Finish.FAILED:
            raise EngineError(trace.error or "the answer failed without a word")
        return _output(trace)

    def max_connections(self) -> int:
        return open_at_once(self._listener.engine)

    async def aclose(self) -> None:
        if self._owned:
            self._listener.close()


def _asked(messages: list[ChatMessage]) -> Question:
    """The one user message as a question. `listen` leaves the question and its choices apart in the message's
    metadata; without them the whole text is the question.

    Raises:
        InputError: there are other messages (the instruction is the listener's own), not exactly one sound, a sound
            that cannot be read, or no text.
    """
    if len(messages) != 1 or not isinstance(messages[0], ChatMessageUser):
        roles = ", ".join(message.role for message in messages) or "nobody"
        raise InputError(f"messages of {roles}; a listener takes exactly one, of the user")
    parts = (messages[0].metadata or {}).get(_KEY) or {"text": messages[0].text, "choices": [], "id": ""}
    sound = _sound(messages[0])
    # inspect reads files before a sample begins; what a solver adds later is still a path.
    audio = _inline_clip(sound) if sound.startswith("data:") else Path(sound)
    return Question(parts["text"], tuple(parts["choices"]), audio, parts["id"])


def _sound(message: ChatMessageUser) -> str:
    """Path or data URL of the message's one sound."""
    parts = [] if isinstance(message.content, str) else message.content
    sounds = [part.audio for part in parts if isinstance(part, ContentAudio)]
    if len(sounds) != 1:
        raise InputError(f"the message has {len(sounds)} sounds; a listener takes exactly one")
    return str(sounds[0])


def _inline_clip(url: str) -> Clip:
    head, _, body = url.partition(",")
    try:
        if not head.endswith(";base64"):
            raise ValueError("no base64")
        content = base64.b64decode(body, validate=True)
    except (ValueError, binascii.Error) as error:
        raise InputError(f"sound {head[:40]!r}: cannot be decoded ({error}); give a base64 data URL") from None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "inline-sound")
        file.write_bytes(content)
        return replace(Clip.load(file), name="inline sound")


def _sampling(config: GenerateConfig, question: Question) -> dict[str, Any]:
    """What inspect sets; every question draws its own seed, as in `relisten eval`."""
    given = {
        "temperature": config.temperature,
        "top_p": config.top_p,
        "seed": None if config.seed is None else question_seed(config.seed, question),
        "max_tokens": config.max_tokens or MAX_TOKENS,
    }
    return {key: value for key, value in given.items() if value is not None}


def _output(trace: Trace) -> ModelOutput:
    written = sum(len(span.ids) for span in trace.generated)
    read = len(trace.token_ids) - written
    said = [ContentReasoning(reasoning=thinking(trace.text)), ContentText(text=trace.answer or "")]
    message = ChatMessageAssistant(content=said, model=trace.model, source="generate")
    return ModelOutput(
        model=trace.model,
        choices=[ChatCompletionChoice(message=message, stop_reason=_STOPS.get(trace.finish, "stop"))],
        usage=ModelUsage(input_tokens=read, output_tokens=written, total_tokens=read + written),
        metadata={_TRACE: trace.to_json()},
    )


@solver
def listen() -> Solver:
    """Asks the sample's user message, with the sample's choices, as one question.

    It stands in for `generate()` and `multiple_choice()` in any task whose user message has a `ContentAudio`. A
    choice that the answer names is marked, so that the `choice()` scorer works; the `Trace` is kept in the sample's
    metadata. What cannot be asked raises, so that the sample has an error and no score.
    """

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        own = state.metadata.get(_KEY, {})
        if error := own.get("error"):
            raise InputError(error)
        asked = state.user_prompt
        choices = [choice.value for choice in state.choices]
        question = Question(asked.text, tuple(choices), id=str(state.sample_id))
        sounds = [part for part in asked.content if isinstance(part, ContentAudio)]
        asked.content = [*sounds, ContentText(text=user_text(question))]
        parts = {"text": question.text, "choices": choices, "id": question.id}
        asked.metadata = {**(asked.metadata or {}), _KEY: parts}
        state = await generate(state)
        trace = state.metadata[_TRACE] = _trace(state)
        named = chosen(trace["answer"], choices) if trace["answer"] is not None else None
        for number in range(len(choices)):
            state.choices.mark_choice(number, number == named)
        return state

    return solve


def _trace(state: TaskState) -> dict[str, Any]:
    """Raises InputError where another model wrote the output."""
    trace: dict[str, Any] | None = (state.output.metadata or {}).get(_TRACE)
    if trace is None:
        raise InputError(f"model {state.model}: is no listener; give --model relisten/MODEL")
    return trace


@task
def questions(data: str, audio: str | None = None, benchmark: str = "questions") -> Task:
    """A questions file, or any benchmark of `relisten eval` whose sounds are files, by our rules.

    A row that cannot be asked becomes a sample with an error: it is in no score and stops nothing.

    Args:
        data: the file or folder, as `--data`.
        audio: the folder of the sounds, where they lie elsewhere.
        benchmark: its name.

    Raises:
        InputError: there is no such benchmark or data.
    """
    rows = unique(find_benchmark(benchmark).rows(Path(data), Path(audio) if audio else None))
    dataset = MemoryDataset(list(_samples(rows)), name=benchmark)
    # inspect begins with 20 at once and feels its way up: made for endpoints that refuse, which an engine does not.
    config = GenerateConfig(max_connections=_CONNECTIONS)
    return Task(dataset=dataset, solver=listen(), scorer=rules(), config=config, fail_on_error=False)


def _samples(rows: Iterator[Question | BadRow]) -> Iterator[Sample]:
    for row in rows:
        if isinstance(row, BadRow):
            yield Sample(row.error, id=row.id, metadata={_KEY: {"error": row.error}})
            continue
        if not isinstance(row.audio, Path):
            raise InputError(f"question {row.id!r}: its sound is no file; render it with relisten data simulate")
        # inspect knows two formats; a listener looks at the content instead.
        path = row.audio.absolute()
        sound = ContentAudio(audio=str(path), format="mp3" if path.suffix.lower() == ".mp3" else "wav")
        metadata = {**row.metadata, _KEY: {"answer": row.answer}}
        message = ChatMessageUser(content=[sound, ContentText(text=row.text)])
        yield Sample([message], list(row.choices) or None, row.answer or "", row.id, metadata)


@scorer(metrics={**{str(rule): [accuracy(), stderr()] for rule in Rule}, "no_answer": [mean()]})
def rules() -> Scorer:
    """Right, wrong or no answer by every rule of `relisten.evaluate.scoring`, and the share without an answer.

    A target that is a letter means that choice, as inspect's own scorers have it; `questions` takes the file's
    answer as it stands. A sample without a reference is unscored.
    """

    async def score(state: TaskState, target: Target) -> Score:
        choices = [choice.value for choice in state.choices]
        own = state.metadata.get(_KEY, {})
        reference = own["answer"] if "answer" in own else _reference(target, choices)
        prediction = _trace(state)["answer"]
        if reference is None:
            return Score.unscored(answer=prediction, explanation="there is no reference answer")
        outcomes = grade(prediction, reference, choices)
        values = {str(rule): _VALUES[outcomes[rule]] for rule in Rule}
        return Score(value={**values, "no_answer": int(prediction is None)}, answer=prediction)

    return score


def _reference(target: Target, choices: list[str]) -> str | None:
    if len(target) > 1:
        raise InputError(f"{len(target)} targets; these rules compare with one")
    named = chosen(target.text, choices) if target.text else None
    return target.text or None if named is None else choices[named]
