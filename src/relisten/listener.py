"""`Listener`: the public face. Load a model, ask it about sounds, get traces."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, get_args

import numpy as np
from numpy.typing import NDArray

from relisten.audio import Clip
from relisten.engines.base import Engine
from relisten.engines.drive import Ask, Happening, OnEvent, answer, answer_or_failure, open_at_once, question_seed
from relisten.engines.loop import BackgroundLoop
from relisten.engines.options import check_kind, check_options
from relisten.errors import InputError
from relisten.protocol import Format
from relisten.question import Question
from relisten.trace import Sampling, Trace

if TYPE_CHECKING:
    from relisten.models.base import Family
    from relisten.router.answering import Router

Sound = str | Path | Clip | NDArray[np.floating]
Dtype = Literal["auto", "float32", "bfloat16"]
EngineName = Literal["native", "vllm"]
DEFAULT_MODEL = "echo-tiny"
_NO_OPTIONS = ("model", "device", "dtype")  # of engines: they have arguments of their own
_WHOLE: dict[str, Any] = {
    "max_rows": int,
    "max_context": int | None,
}  # options that vLLM gets from us


class AskOptions(TypedDict, total=False):
    """What every way of asking takes: `format`, and the fields of `Sampling`."""

    format: Format | str
    temperature: float
    top_p: float
    seed: int | None
    max_tokens: int
    max_listens: int
    crop_speed: float


class Listener:
    """Answers questions about sounds, listening again while it reasons.

    Every way of asking takes the same options (`AskOptions`), and raises InputError for one that does not exist:

    * `format`: "interleaved" (re-listens), "grounded" (cites segments), "text" (plain chain of thought).
    * `temperature`: 0 takes the likeliest token; the paper evaluates at 0.7.
    * `crop_speed`: what every listen is played at; 0.5 slows it to twice its length.
    * `top_p`, `seed`, `max_tokens`, `max_listens`: see `Sampling`.

    Any number of threads and tasks may ask at once; the engine batches them. Close it, or use it as a context
    manager, to free what answers take; the model's weights go with the listener.
    """

    def __init__(self, engine: Engine, router: Router | None = None) -> None:
        self.engine = engine
        self.router = router
        self.answer_by: Ask = answer if router is None else router.answer
        """How answers are made, for those that ask the engine themselves."""
        self._loop = BackgroundLoop("listener")

    @classmethod
    def load(
        cls,
        model: str | Path = DEFAULT_MODEL,
        *,
        device: str = "auto",
        dtype: Dtype = "auto",
        max_rows: int | None = None,
        engine: EngineName = "native",
        engine_options: Mapping[str, Any] | None = None,
        router: Router | str | Path | None = None,
        tool_cache: str | Path | None = None,
    ) -> Listener:
        """A listener on a model.

        Args:
            model: "echo-tiny" (shipped), a checkpoint folder, or a hub id such as "Qwen/Qwen2.5-Omni-7B", which is
                the only one that may use the network.
            device: "cpu", "cuda", "cuda:1", ...; "auto" takes a GPU if there is one.
            dtype: "auto" is bfloat16 on a GPU, and for large models on CPUs that multiply it; else float32.
            max_rows: answers decoded at once; None takes the engine's default.
            engine: "native", or "vllm" where that is installed.
            engine_options: more for that engine's constructor, such as vLLM's `gpu_memory_utilization`.
            router: what decides on audio tools before each answer: folder of a policy that `relisten router train`
                wrote, or a `Router`.
            tool_cache: file in which the tools of such a policy keep what they found.

        Raises:
            InputError: there is no such checkpoint, device, policy or engine, one is not complete, or they do not
                fit together.
        """
        options = dict(engine_options or {}) | ({} if max_rows is None else {"max_rows": max_rows})
        if engine not in get_args(EngineName):
            raise InputError(f"engine {engine}: choose one of {', '.join(get_args(EngineName))}")
        for name in _NO_OPTIONS:
            if name in options:
                raise InputError(f"engine option {name}: give it as --{name}, or as `{name}` to Listener.load")
        if engine == "vllm":
            from relisten.engines.vllm import load as start_vllm

            for name in options.keys() & _WHOLE.keys():
                check_kind(name, options[name], _WHOLE[name])
            served = start_vllm(model, device=device, dtype=dtype, **options)
            try:
                return cls(served, _router(router, tool_cache, served.family, "cpu"))
            except BaseException:
                served.close()
                raise
        # Imported here so that `import relisten` stays quick for those who only read traces.
        from relisten.engines.native import NativeEngine
        from relisten.models import default_dtype, load, resolve_device

        check_options(engine, NativeEngine.__init__, options, given=("name",))
        device = resolve_device(device)
        family = load(model, device=device, dtype=default_dtype(device, model) if dtype == "auto" else dtype)
        routed = _router(router, tool_cache, family, device)
        return cls(NativeEngine(family, name=str(model), **options), routed)

    def ask(
        self,
        audio: Sound,
        question: str,
        choices: Sequence[str] = (),
        *,
        on_event: OnEvent | None = None,
        **options: Unpack[AskOptions],
    ) -> Trace:
        """Answer one question about one sound (a file, a `Clip`, or mono samples at 16 kHz).

        Closing the listener meanwhile makes it a trace with `Finish.FAILED`.

        Raises:
            InputError: the sound cannot be read, the question is empty, both do not fit the model, or an option is
                unknown or out of range.
            EngineError: the listener was closed before the answer began, or by `on_event`.
        """
        format, sampling = _split(options)
        asked = _question(audio, question, choices)
        return self._loop.run(
            self.answer_by(self.engine, asked, format=format, sampling=sampling, on_event=on_event)
        )

    def stream(
        self, audio: Sound, question: str, choices: Sequence[str] = (), **options: Unpack[AskOptions]
    ) -> Iterator[Happening | Trace]:
        """Like `ask`, telling what happens as it happens: `Piece` of text, `Listen`, `Skip`, `Stop`, with a router
        `Routing`, and the `Trace` last. Leaving the iteration early cancels the answer.

        Options and choices are checked at once; a file is read, and the answer begun, with the first `next`.
        """
        format, sampling = _split(options)
        return self._events(_question(audio, question, choices), format, sampling)

    def _events(self, asked: Question, format: Format, sampling: Sampling) -> Iterator[Happening | Trace]:
        events: queue.SimpleQueue[Happening | Future[Trace]] = queue.SimpleQueue()
        task = self._loop.start(
            self.answer_by(self.engine, asked, format=format, sampling=sampling, on_event=events.put)
        )
        task.add_done_callback(events.put)  # comes also from a task that is cancelled before it begins
        try:
            while not isinstance(event := events.get(), Future):
                yield event
            yield self._loop.result(event)
        finally:
            task.cancel()

    def ask_many(self, questions: Iterable[Question | InputError], **options: Unpack[AskOptions]) -> list[Trace]:
        """Answer many questions as fast as the engine can batch; traces come in the order of the questions.

        A question that cannot be answered becomes a trace with `Finish.FAILED` and stops nothing; so does a bad row
        that `read_questions` hands on. With a `seed`, each question gets its own, drawn from it and from the
        question's id and text, so that neither order nor company changes an answer.
        """
        traces = dict(self.ask_each(questions, **options))
        return [traces[index] for index in sorted(traces)]

    def ask_each(
        self, questions: Iterable[Question | InputError], **options: Unpack[AskOptions]
    ) -> Iterator[tuple[int, Trace]]:
        """Like `ask_many`, yielding (position, trace) as answers finish. A thread of its own reads `questions`
        meanwhile, as many ahead as may be open at once; what they raise is raised here.

        Options are checked at once; the first question is read with the first `next`.
        """
        format, sampling = _split(options)
        return self._answers(questions, format, sampling)

    def _answers(
        self, questions: Iterable[Question | InputError], format: Format, sampling: Sampling
    ) -> Iterator[tuple[int, Trace]]:
        # Positions of answers; then None, or what the reading of questions ended with.
        told: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
        tasks: dict[int, Future[Trace]] = {}
        most = open_at_once(self.engine)
        changed = threading.Condition()  # of `tasks` and `left`
        left = False

        def begin(index: int, question: Question | InputError) -> Future[Trace]:
            own = sampling
            if sampling.seed is not None and isinstance(question, Question):
                own = replace(sampling, seed=question_seed(sampling.seed, question))
            task = self._loop.start(
                answer_or_failure(self.engine, question, format=format, sampling=own, ask=self.answer_by)
            )
            task.add_done_callback(lambda _: told.put(index))
            return task

        def read() -> None:
            end: BaseException | None = None
            try:
                for index, question in enumerate(questions):
                    with changed:
                        changed.wait_for(lambda: left or len(tasks) < most)
                        if left:
                            return
                        tasks[index] = begin(index, question)
            except BaseException as error:
                end = error
            told.put(end)

        threading.Thread(target=read, name="relisten-questions", daemon=True).start()
        reading = True
        try:
            while reading or tasks:
                index = told.get()
                if isinstance(index, BaseException):
                    raise index
                if index is None:
                    reading = False
                    continue
                with changed:
                    task = tasks.pop(index)
                    changed.notify()
                yield index, self._loop.result(task)
        finally:
            with changed:
                left = True
                changed.notify()
                for task in tasks.values():
                    task.cancel()

    async def answer(
        self, question: Question, *, on_event: OnEvent | None = None, **options: Unpack[AskOptions]
    ) -> Trace:
        """The asynchronous way: await as many of these at once as you like, in any event loop. Closing the listener
        meanwhile makes it a trace with `Finish.FAILED`."""
        format, sampling = _split(options)
        return await self.answer_by(self.engine, question, format=format, sampling=sampling, on_event=on_event)

    def close(self) -> None:
        """End all answers, and free their memory; from within `on_event`, that happens behind it."""
        self.engine.close()
        self._loop.close()

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _router(
    router: Router | str | Path | None, tool_cache: str | Path | None, family: Family, device: str
) -> Router | None:
    if not isinstance(router, str | Path):
        return router
    from relisten.router.answering import Router
    from relisten.router.policy import load_policy
    from relisten.tools.cache import ToolCache

    policy = load_policy(router, family, device=device)
    return Router(policy, None if tool_cache is None else ToolCache(tool_cache))


def _question(audio: Sound, text: str, choices: Sequence[str]) -> Question:
    sound = Clip.from_samples(audio) if isinstance(audio, np.ndarray) else audio
    return Question(text, choices, sound)  # type: ignore[arg-type]  # it makes a tuple and a path of these


def _split(options: AskOptions) -> tuple[Format, Sampling]:
    """The format, and the sampling made of everything else.

    Raises:
        InputError: an option is unknown or out of range.
    """
    rest: dict[str, Any] = {**options}
    if unknown := [name for name in rest if name not in AskOptions.__annotations__]:
        raise InputError(f"option {unknown[0]}: there is none; choose from {', '.join(AskOptions.__annotations__)}")
    format = rest.pop("format", Format.INTERLEAVED)
    if format not in list(Format):
        raise InputError(f"format {format}: choose one of {', '.join(Format)}")
    return Format(format), Sampling(**rest)
