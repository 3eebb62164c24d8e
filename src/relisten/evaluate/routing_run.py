"""A trained router on questions that it has never seen: outcomes, decisions, scores, and time alone on the
machine."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from relisten.engines.base import Engine
from relisten.engines.native import NativeEngine
from relisten.errors import InputError
from relisten.evaluate.routing import RoutingScores, score_routing
from relisten.models import default_dtype, load, resolve_device
from relisten.question import Question
from relisten.router.answering import Router
from relisten.router.decision import Policy
from relisten.router.policy import find_policy, load_policy, read_about
from relisten.router.routes import DIRECT
from relisten.router.training.config import RouterConfig
from relisten.router.training.prepare import learn_about, sampling_of
from relisten.router.weights import count_weights, weights_hash
from relisten.train.settings import make_config, read_settings
from relisten.train.watch import Watch


@dataclass(frozen=True)
class Latency:
    """Median wall seconds of an answer that has the machine to itself, on the same questions; tools run anew."""

    questions: int
    direct: float
    router: float
    decision: float
    """Of the router's: from the question to its decision; reading the prompt is part of it where it looks."""
    tools: float
    """Of the router's, mean: its tools."""
    calls: float


@dataclass(frozen=True)
class RoutingReport:
    """All that is told of a router."""

    run: str
    model: str
    policy: str
    """Kind."""
    weights: int
    reasoner_weights: int
    temperature: float
    threshold: float
    scores: RoutingScores
    latency: Latency | None = None

    def to_json(self) -> dict[str, Any]:
        about = {name: getattr(self, name) for name in ("run", "model", "policy", "weights", "reasoner_weights")}
        about |= {"temperature": self.temperature, "threshold": self.threshold}
        return about | {
            "latency": None if self.latency is None else asdict(self.latency),
            "scores": self.scores.to_json(),
        }


def read_run_config(folder: Path) -> RouterConfig:
    """The settings of a training run.

    Raises:
        InputError: it is none.
    """
    path = folder / "config.toml"
    if not path.is_file():
        raise InputError(f"{folder}: is no run of relisten router train (it has no config.toml); give its --out")
    return make_config(RouterConfig, read_settings(path), str(path))


def judge_router(
    folder: Path,
    questions: Sequence[Question],
    *,
    known: Path | None = None,
    latency: int = 0,
    device: str = "auto",
    watch: Watch | None = None,
) -> RoutingReport:
    """Score the policy of a training run on questions, which should be ones that it was not trained on.

    Args:
        known: where outcomes are kept and looked for; None takes the run's folder.
        latency: measure time on so many of them.

    Raises:
        InputError: the run, its model or a question cannot be used.
        EngineError: the reasoner fails one answer after the other.
    """
    watch = watch or Watch()
    config = read_run_config(folder)
    device = resolve_device(device)
    family = load(config.model, default_dtype(device, config.model), device)
    policy = load_policy(folder, family, device=device)
    place = known or (Path(config.known) if config.known else folder)
    with NativeEngine(family, name=config.model) as engine:
        seen = learn_about(
            engine, questions, policy.routes, config, place, weights_hash(family), looks=policy.looks, watch=watch,
            what="questions",
        )  # fmt: skip
        looks = seen.looks or (None,) * len(questions)
        decisions = [
            policy.decide(question, question.clip(), look) for question, look in zip(questions, looks, strict=True)
        ]
        timed = None
        if latency:
            timed = asyncio.run(_latency(engine, policy, questions[:latency], config, watch))
    kinds = [str(question.metadata.get("kind", "")) for question in questions]
    about = read_about(find_policy(folder))
    return RoutingReport(
        run=str(folder),
        model=config.model,
        policy=config.policy,
        weights=int(about.get("weights", 0)),
        reasoner_weights=count_weights(family),
        temperature=float(about["temperature"]),
        threshold=float(about["threshold"]),
        scores=score_routing(seen.outcomes, decisions, kinds),
        latency=timed,
    )


async def _latency(
    engine: Engine, policy: Policy, questions: Sequence[Question], config: RouterConfig, watch: Watch
) -> Latency:
    """One question after the other, each way in turn, so that a busy machine is as unfair to one as to the
    other."""
    direct: list[float] = []
    routed: list[float] = []
    decided: list[float] = []
    tools: list[float] = []
    calls = 0
    ways = (Router(DIRECT), Router(policy))
    for number, question in enumerate(questions):
        asked = replace(question, audio=question.clip())
        for way, times in zip(ways, (direct, routed), strict=True):
            trace = await way.answer(engine, asked, format=config.format, sampling=sampling_of(config))
            times.append(trace.timings.total)
        assert trace.routing is not None
        decided.append(trace.routing.decision_seconds)
        tools.append(trace.routing.tool_seconds)
        calls += len(trace.routing.reports)
        watch.on_progress("time alone", number + 1, len(questions))
    return Latency(
        questions=len(questions),
        direct=statistics.median(direct),
        router=statistics.median(routed),
        decision=statistics.median(decided),
        tools=statistics.fmean(tools),
        calls=calls / len(questions),
    )
