"""Rollouts: many answers to each of some questions, side by side in one engine, and what they earned."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from relisten.audio import Clip
from relisten.engines.base import Engine
from relisten.engines.drive import answer_or_failure, failed_trace
from relisten.engines.native import NativeEngine
from relisten.errors import InputError
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.protocol import Finish, Format
from relisten.question import Question
from relisten.trace import Sampling, Trace
from relisten.train.grpo.config import GrpoConfig
from relisten.train.rewards import Reward, Score

_DTYPES: Final = {"fp32": "float32", "bf16": "bfloat16"}
_GPU_SHARE: Final = 0.4  # share of the GPU's memory that vLLM takes; training needs the rest


@runtime_checkable
class TakesWeights(Protocol):
    """An engine with weights of its own, which a trainer keeps up to date."""

    def update_weights(self, tensors: Iterable[tuple[str, Tensor]]) -> object:
        """Replace the thinker's tensors, which have the names of its `state_dict`. No answer is under way."""


def make_engine(config: GrpoConfig, family: Qwen2_5Omni) -> Engine:
    """The engine that answers in a run of `config`.

    Args:
        family: the model in training. The native engine answers from these very weights, in lockstep, so that a run
            that goes on samples the same answers; vLLM loads the checkpoint that training starts from.

    Raises:
        InputError: vLLM is not installed, or does not take its options.
        EngineError: it did not start.
    """
    if config.engine == "native":
        return NativeEngine(family, max_rows=config.max_rows, lockstep=True)
    from relisten.engines.vllm import load

    options = {"max_rows": config.max_rows, "dtype": _DTYPES[config.precision]}
    if family.device.type == "cuda":
        options["gpu_memory_utilization"] = _GPU_SHARE
    return load(config.model, **{**options, **config.options_of_engine})


@dataclass(frozen=True, eq=False)
class Rollout:
    """One answer of a group."""

    question: Question
    clip: Clip | None
    """None where the sound could not be read, and in answers from another process, which has it."""
    trace: Trace
    score: Score | None
    """None for an answer that failed or could not be scored: it earned nothing and teaches nothing."""
    advantage: float | None = None
    """None without a score, and in a group that teaches nothing."""
    unscored: str | None = None
    """Why an answer that did not fail has no score."""

    @property
    def error(self) -> str | None:
        """What was wrong with the answer, or with scoring it."""
        return self.unscored or self.trace.error

    def to_json(self, full: bool) -> dict[str, Any]:
        """Its row in `rollouts/`: the whole trace if `full`, else what people want to read."""
        told = self.trace.to_json()
        if not full:
            kept = ("id", "question", "answer", "text", "segments", "finish", "error")
            told = {name: told[name] for name in kept}
        earned = None if self.score is None else {"reward": self.score.total, **self.score.parts}
        told |= {"error": self.error, "reference": self.question.answer}
        return {**told, "earned": earned, "advantage": self.advantage}


def roll_out(
    engine: Engine,
    questions: Sequence[Question],
    count: int,
    reward: Reward,
    *,
    format: Format,
    sampling: Sampling,
    seed: Sequence[int],
    places: Sequence[int] | None = None,
    on_answer: Callable[[], None] = lambda: None,
) -> list[list[Rollout]]:
    """`count` answers to each question, all of them at once; a group for each question, in order.

    An answer that fails or cannot be scored, and a question whose sound cannot be read, become rollouts without a
    score and stop nothing.

    Args:
        sampling: of every answer, but for its seed, which is drawn from `seed`, the question's place and the
            answer's.
        places: the questions' places in the step, for these seeds; None counts them.
        on_answer: called after every answer.
    """
    seeds = [(*seed, place) for place in places or range(len(questions))]
    return asyncio.run(_all(engine, questions, count, reward, format, sampling, seeds, on_answer))


async def _all(
    engine: Engine,
    questions: Sequence[Question],
    count: int,
    reward: Reward,
    format: Format,
    sampling: Sampling,
    seeds: Sequence[tuple[int, ...]],
    on_answer: Callable[[], None],
) -> list[list[Rollout]]:
    clips = await asyncio.gather(*(asyncio.to_thread(_clip, question) for question in questions))

    async def one(place: int, member: int) -> Rollout:
        question, clip = questions[place], clips[place]
        if isinstance(clip, InputError):
            trace = failed_trace(question, str(clip), format, engine.model)
        else:
            own = replace(sampling, seed=_draw_seed((*seeds[place], member)))
            # The very same clip for the whole group, so that the engine encodes it once.
            trace = await answer_or_failure(engine, replace(question, audio=clip), format=format, sampling=own)
        on_answer()
        made = Rollout(question, None if isinstance(clip, InputError) else clip, trace, None)
        if trace.finish is Finish.FAILED:
            return made
        try:
            return replace(made, score=reward(trace, question))
        except InputError as error:
            return replace(made, unscored=str(error))

    together = engine.together() if isinstance(engine, NativeEngine) else contextlib.nullcontext()
    with together:
        tasks = [
            [asyncio.ensure_future(one(place, member)) for member in range(count)]
            for place in range(len(questions))
        ]
        await asyncio.sleep(0)  # lets every answer get to where it waits for its first token
    try:
        return [[await task for task in group] for group in tasks]
    finally:
        for task in (task for group in tasks for task in group):
            task.cancel()


def _clip(question: Question) -> Clip | InputError:
    try:
        return question.clip()
    except InputError as error:
        return error


def _draw_seed(path: Sequence[int]) -> int:
    return int(np.random.SeedSequence(path).generate_state(1, np.uint64)[0]) >> 1
