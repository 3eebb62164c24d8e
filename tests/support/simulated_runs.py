"""Runs as a listener could have made them, with every kind of ending, from simulated scenes or from noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from relisten.audio import SAMPLE_RATE, Clip
from relisten.data.questions import make_examples
from relisten.data.scenes import simulate
from relisten.evaluate.results import ResultRow, Run, RunConfig, groups_of
from relisten.evaluate.scoring import Outcome, Rule, grade
from relisten.protocol import Finish, Format, Interleaver, Segment, Skip, split_at_listens
from relisten.question import Question
from relisten.trace import GeneratedSpan, ListenSpan, PromptSpan, Span, Timings, Trace

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>\"'`&<!-- \ud800"

CONFIG = RunConfig(
    benchmark="scenes",
    questions="0" * 64,
    model="echo-tiny",
    model_hash="1" * 64,
    engine="native",
    dtype="float32",
    format=Format.INTERLEAVED,
    temperature=0.7,
    top_p=1.0,
    seed=0,
    max_tokens=512,
    max_listens=8,
    silent=False,
    prompt="You answer questions about a sound.",
    rule=Rule.STRICT,
    breakdowns=("kind", "split"),
)


def scene_questions(number: int, seed: int = 3) -> list[tuple[Question, str]]:
    """Questions about simulated scenes, each with a response that answers it."""
    found: list[tuple[Question, str]] = []
    for scene in simulate("test", seed, 0, -(-number // 3)):
        events = [{"onset": e.onset, "offset": e.offset, "label": e.label} for e in scene.events]
        for example in make_examples(scene, np.random.default_rng([seed, scene.index]), per_scene=3):
            parts = split_at_listens(example.response, scene.clip.duration)
            segments = [[part.start, part.end] for part in parts if isinstance(part, Segment)]
            metadata = {**example.question.metadata, "events": events, "segments": segments}
            question = replace(example.question, id=f"{example.question.id}-{len(found)}", metadata=metadata)
            found.append((question, example.response))
    return found[:number]


def noise_questions(number: int) -> list[tuple[Question, str]]:
    """Many cheap questions about a few short noises."""
    rng = np.random.default_rng(0)
    clips = [
        Clip.from_samples(rng.normal(0, 0.1, SAMPLE_RATE * 2).astype(np.float32), name=f"noise-{i}")
        for i in range(8)
    ]
    found = []
    for index in range(number):
        text = f"Which of these is number {index} in the long list of noises that nobody would want to hear twice?"
        start = round(float(rng.uniform(0, 1.2)), 1)
        response = (
            f"<think>It may be early, <seg>{start}, {start + 0.6:.1f}</seg> there is noise, so I go on and "
            "<seg>1.0, 2.0</seg> hear more of it, and nothing else that would tell them apart.</think>"
            f"<answer>{'abcd'[index % 4]}</answer>"
        )
        metadata = {"kind": f"kind {index % 12}", "split": "test"}
        choices = ("a", "b", "c", "d")
        question = Question(text, choices, clips[index % 8], f"q{index}", "abcd"[index % 4], metadata)
        found.append((question, response))
    return found


def make_run(
    name: str,
    asked: Sequence[tuple[Question, str]],
    *,
    seed: int = 0,
    right: float = 0.8,
    config: RunConfig = CONFIG,
) -> Run:
    """A run over `asked` that mostly answers as given, else wrongly, not at all, late or never."""
    rng = np.random.default_rng(seed)
    rows = [_row(index, question, text, rng, right, config) for index, (question, text) in enumerate(asked)]
    return Run(Path(name), config, tuple(rows), ({"worker": "1", "torch": "2.13.0", "git": "abc"},))


def _row(
    index: int, question: Question, text: str, rng: np.random.Generator, right: float, config: RunConfig
) -> ResultRow:
    groups = groups_of(question, config.breakdowns)
    luck = rng.random()
    if luck > 0.995:
        error = f"{question.id}.wav: no such file; check the path"
        return ResultRow(index, question.id, question, None, error, dict.fromkeys(Rule, Outcome.FAILED), groups)
    finish = Finish.ANSWER
    if luck > 0.98:
        text, finish = text.split("<answer>")[0], Finish.NO_ANSWER
    elif luck > right:
        wrong = [choice for choice in question.choices if choice != question.answer] or ["something else"]
        text = text.replace(f"<answer>{question.answer}", f"<answer>{wrong[int(rng.integers(len(wrong)))]}")
    if luck > 0.9:
        text = text.replace("</think>", ", then <seg>9, 1</seg> nothing.</think>")
    if config.format is Format.TEXT:
        text = "".join(part for part in split_at_listens(text, question.clip().duration) if isinstance(part, str))
        for mark in ("<seg>", "</seg>"):
            text = text.replace(mark, "")
    trace = make_trace(question, text, finish, rng, config)
    outcomes = grade(trace.answer, question.answer, question.choices)
    return ResultRow(index, question.id, question, trace, None, outcomes, groups)


def make_trace(
    question: Question,
    text: str,
    finish: Finish = Finish.ANSWER,
    rng: np.random.Generator | None = None,
    config: RunConfig = CONFIG,
) -> Trace:
    """What an engine would leave behind for this response."""
    clip = question.clip()
    rng = rng or np.random.default_rng(0)
    spans: list[Span] = [PromptSpan((1, 2, 3), 1)]
    for part in split_at_listens(text, clip.duration, format=config.format):
        if isinstance(part, Segment):
            tokens = int(part.duration * 25)
            spans.append(ListenSpan(part, (7, *[8] * tokens, 9), tokens))
        else:
            words = part.split(" ")
            spans.append(GeneratedSpan((5,) * len(words), (-0.1,) * len(words), part))
    events = Interleaver(clip.duration, format=config.format).feed(text)
    decode, listen = float(rng.gamma(6, 0.08)), 0.04 * len(spans)
    encode, prefill = float(rng.uniform(0.02, 0.06)), float(rng.uniform(0.03, 0.08))
    return Trace(
        question=question.text,
        choices=question.choices,
        spans=tuple(spans),
        finish=finish,
        format=config.format,
        id=question.id,
        audio=clip.name,
        audio_hash=clip.hash,
        duration=clip.duration,
        model=config.model,
        skipped=tuple(event for event in events if isinstance(event, Skip)),
        timings=Timings(encode, prefill, decode, listen, 1.15 * (encode + prefill + decode + listen)),
    )


def hostile_run() -> Run:
    """A run in which every text tries to be more than text."""
    events = [{"onset": 0.5, "offset": 1.0, "label": HOSTILE}]
    question = Question(
        HOSTILE,
        (HOSTILE, "b"),
        noise_questions(1)[0][0].audio,
        HOSTILE,
        HOSTILE,
        {"kind": HOSTILE, "events": events},
    )
    response = f"<think>{HOSTILE} <seg>0.5, 1.5</seg> <seg>{HOSTILE}</seg></think><answer>{HOSTILE}</answer>"
    config = replace(CONFIG, model=HOSTILE, benchmark=HOSTILE, prompt=HOSTILE, breakdowns=("kind",))
    run = make_run(
        HOSTILE.replace("/", "\\").replace("\ud800", ""), [(question, response)], right=1.0, config=config
    )
    failed = ResultRow(1, HOSTILE + "2", None, None, HOSTILE, dict.fromkeys(Rule, Outcome.FAILED))
    return replace(run, rows=(*run.rows, failed), workers=({"host": HOSTILE},), problems=(HOSTILE,))
