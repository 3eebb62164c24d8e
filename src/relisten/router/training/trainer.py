"""Training a routing policy; `relisten router train`.

The frozen reasoner answers every question on every route once; from there on only the policy is at work. A run
lives in one folder:

| in the folder | what it is |
|---|---|
| `config.toml` | the settings; `--config` takes it again |
| `outcomes.jsonl`, `findings.sqlite`, `looks.sqlite` | what is known of the questions; another run may share them |
| `chosen.json` | which layers a head reads, and how all that were tried did in validation |
| `metrics.jsonl`, `tensorboard/` | numbers of every step |
| `state.pt` | what the run goes on from |
| `policy/` | the policy of the best validation, calibrated |
| `training.json` | what came of it; hash of the reasoner before and after |

The same command goes on with a run that was ended, and gives the numbers that it would have given.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from relisten.engines.base import Engine
from relisten.engines.native import NativeEngine
from relisten.errors import DivergedError
from relisten.files import replacing, write_whole
from relisten.models import default_dtype, load, resolve_device
from relisten.models.base import Family
from relisten.router.head import HeadPolicy, Reads
from relisten.router.lm import LmPolicy
from relisten.router.policy import decide, temper
from relisten.router.routes import DIRECT, Route
from relisten.router.training.calibration import fit_temperature, fit_threshold
from relisten.router.training.config import MAY_CHANGE, RouterConfig
from relisten.router.training.learners import HeadLearner, LmLearner, candidate_layers, check_size
from relisten.router.training.learning import Learning, warnings
from relisten.router.training.objective import relative_rewards
from relisten.router.training.prepare import Known, learn_about, read_sets, routes_of
from relisten.router.weights import count_weights, weights_hash
from relisten.train.metrics import Metrics, has_metrics
from relisten.train.settings import begin_run
from relisten.train.shared_settings import LoraSettings
from relisten.train.trainable import add_adapters
from relisten.train.watch import Watch

_CHOSEN, _STATE, _TOLD = "chosen.json", "state.pt", "training.json"


@dataclass(frozen=True)
class TrainedRouter:
    """What came of a run."""

    policy: Path
    steps: int
    routes: tuple[str, ...]
    reads: str
    """What a head reads; "" for an lm."""
    weights: int
    """Parameters that were learned."""
    share: float
    """That over those of the reasoner."""
    temperature: float
    threshold: float
    validation: dict[str, float]
    """Of the state that was kept: accuracy `direct`, of the `router`, of the `oracle`; mean `calls` of tools."""
    reasoner: str
    """Exact hash of its weights, before and after."""
    seconds: dict[str, float]
    """Of this call: `prepare` (answers on all routes, hidden states) and `train`."""


def train_router(
    config: RouterConfig,
    out: Path,
    *,
    watch: Watch | None = None,
    engine: Callable[[Family], Engine] | None = None,
) -> TrainedRouter:
    """Run or go on with a run in `out`.

    Args:
        engine: makes what answers from the reasoner; None takes the native one.

    Raises:
        InputError: the model, the questions, the tools or the folder cannot be used.
        EngineError: the reasoner fails one answer after the other.
        DivergedError: the loss is no number; what was saved before stays.
    """
    watch = watch or Watch()
    begin_run(config, out, MAY_CHANGE, begun=has_metrics(out))
    if config.threads:
        torch.set_num_threads(config.threads)
    began = time.perf_counter()
    routes = routes_of(config)
    questions, validation = read_sets(config, watch.on_note)
    device = resolve_device(config.device)
    family = load(config.model, default_dtype(device, config.model), device)
    family.thinker.requires_grad_(False)
    before = weights_hash(family)
    folder = Path(config.known) if config.known else out
    made = NativeEngine(family, name=config.model) if engine is None else engine(family)
    with made:
        looks = config.policy == "head"
        train, held = (
            learn_about(made, some, routes, config, folder, before, looks=looks, watch=watch, what=what)
            for some, what in ((questions, "training"), (validation, "validation"))
        )
    prepared = time.perf_counter()
    run = _Run(config, out, routes, train, held, family, device, watch)
    trained = run.go()
    after = weights_hash(family)
    if after != before:
        raise RuntimeError(f"the reasoner's weights changed from {before} to {after}")
    seconds = {"prepare": prepared - began, "train": time.perf_counter() - prepared}
    trained = replace(trained, reasoner=after, seconds=seconds)
    told = {"command": "relisten router train", "versions": {n: version(n) for n in ("relisten", "torch")}}
    told |= {"result": asdict(trained) | {"policy": "policy"}, "reasoner_before": before, "reasoner_after": after}
    write_whole(out / _TOLD, json.dumps(told, indent=1) + "\n")
    return trained


def features_of(known: Sequence[Known], reads: Reads) -> NDArray[np.float32]:
    """(questions, features) of several sets, one behind the other."""
    return np.stack([reads.of(look) for one in known for look in one.looks])


def try_layers(
    known: Sequence[Known], rewards: NDArray[np.float32], routes: Sequence[Route], config: RouterConfig
) -> dict[int, float]:
    """The expected reward in validation of a head on each layer, after a whole training. `known` has training set
    and validation set."""
    parts = parts_of(config)
    return {
        layer: fit_head(
            features_of(known, Reads((layer,), parts)), len(known[0].questions), rewards, routes, config
        )[1]
        for layer in candidate_layers(len(known[0].looks[0].last))
    }


def fit_head(
    features: NDArray[np.float32],
    count: int,
    rewards: NDArray[np.float32],
    routes: Sequence[Route],
    config: RouterConfig,
) -> tuple[HeadLearner, float]:
    """A head after a whole training in memory, its best weights, and their expected reward in validation.

    Args:
        features, rewards: of the `count` questions of the training set, then of the validation set.
    """
    learner = HeadLearner(features, count, routes, config.hidden, config.seed)
    learning = Learning(learner, rewards, count, config)
    learning.validate()
    for step in range(learning.steps):
        learning.step(step)
        if (step + 1) % config.validate_every == 0 or step + 1 == learning.steps:
            learning.validate()
    learning.take_best()
    return learner, learning.best or 0.0


def parts_of(config: RouterConfig) -> tuple[str, ...]:
    return tuple(part.strip() for part in config.parts.split(","))


class _Run:
    def __init__(
        self,
        config: RouterConfig,
        out: Path,
        routes: tuple[Route, ...],
        train: Known,
        held: Known,
        family: Family,
        device: str,
        watch: Watch,
    ) -> None:
        self.config, self.out, self.routes, self.watch = config, out, routes, watch
        self.known = (train, held)
        self.count = len(train.questions)
        correct = np.concatenate([train.correct, held.correct])
        self.rewards = relative_rewards(correct, routes, config.cost)
        self.reasoner_size = count_weights(family)
        self.identity = weights_hash(family, exact=False)
        self.reads: Reads | None = None
        self.learner: HeadLearner | LmLearner
        if config.policy == "head":
            self.reads = Reads(self._layers(), parts_of(config))
            features = features_of(self.known, self.reads)
            self.learner = HeadLearner(features, self.count, routes, config.hidden, config.seed)
            check_size(self.learner.head.num_weights, self.reasoner_size, config.max_share)
        else:
            self.learner = LmLearner(self._lm(device), [*train.questions, *held.questions])
        self.learning = Learning(self.learner, self.rewards, self.count, config)
        self.done = self._restore()
        self.warned: set[str] = set()

    def go(self) -> TrainedRouter:
        config, learning = self.config, self.learning
        metrics = Metrics(self.out, self.done or -1, config.tensorboard, config.tracker, vars(config))
        try:
            if self.done == 0:
                metrics.log(0, learning.validate())
            while self.done < learning.steps:
                try:
                    values = learning.step(self.done)
                except DivergedError as error:
                    raise DivergedError(
                        f"{error}. What was saved is kept in {self.out}; give another --out"
                    ) from None
                self.done += 1
                last = self.done == learning.steps
                if last or self.done % config.validate_every == 0:
                    values |= learning.validate()
                metrics.log(self.done, values)
                if last or self.done % config.save_every == 0:
                    self._save()
                self._warn(values)
                self.watch.on_step(self.done, learning.steps, values)
        finally:
            metrics.close()
        learning.take_best()
        return self._finish()

    def _layers(self) -> tuple[int, ...]:
        """Those that the settings name, or the one that does best; that is chosen once."""
        if self.config.layers:
            return self.config.layers
        path = self.out / _CHOSEN
        if path.exists():
            return tuple(json.loads(path.read_text())["layers"])
        tried = try_layers(self.known, self.rewards, self.routes, self.config)
        best = max(tried, key=lambda layer: tried[layer])
        write_whole(path, json.dumps({"layers": [best], "validation_reward": tried}, indent=1) + "\n")
        told = ", ".join(f"{layer}: {reward:+.3f}" for layer, reward in tried.items())
        self.watch.on_note(f"reads layer {best}; reward in validation by layer: {told}")
        return (best,)

    def _lm(self, device: str) -> LmPolicy:
        config = self.config
        name = config.lm or config.model
        family = load(name, default_dtype(device, name), device)
        base = weights_hash(family, exact=False)
        lora = LoraSettings(config.lora_rank, config.lora_alpha)
        adapted = add_adapters(family.thinker, lora, config.seed)
        return LmPolicy(self.routes, family, adapted, model=name, about={"base": base})

    def _restore(self) -> int:
        path = self.out / _STATE
        if not path.exists():
            return 0
        state = torch.load(path, weights_only=True)
        self.learning.restore(state)
        return int(state["step"])

    def _save(self) -> None:
        with replacing(self.out / _STATE, binary=True) as file:
            torch.save({"step": self.done, **self.learning.state()}, file)

    def _warn(self, values: dict[str, float]) -> None:
        for warning in warnings(values):
            if warning not in self.warned:
                self.warned.add(warning)
                self.watch.on_note(f"step {self.done}: {warning}")

    def _finish(self) -> TrainedRouter:
        """Calibrate and save the policy of the best validation."""
        config = self.config
        rewards = torch.from_numpy(self.rewards[self.count :])
        logprobs = self.learning.logprobs(range(self.count, len(self.rewards)))
        temperature = fit_temperature(logprobs, rewards)
        chances = temper(logprobs, temperature)
        direct = self.routes.index(DIRECT)
        threshold = config.threshold if config.threshold >= 0 else fit_threshold(chances, rewards, direct)
        about: dict[str, Any] = {"model": config.model}
        policy: HeadPolicy | LmPolicy
        if isinstance(self.learner, HeadLearner):
            assert self.reads is not None
            policy = HeadPolicy(
                self.routes, self.learner.head, self.reads, reasoner=self.identity, temperature=temperature,
                threshold=threshold, about=about,
            )  # fmt: skip
        else:
            policy = self.learner.policy
            policy.temperature, policy.threshold = temperature, threshold
        policy.save(self.out / "policy")
        learned = sum(parameter.numel() for parameter in self.learner.trained.values())
        reads = self.reads
        return TrainedRouter(
            policy=self.out / "policy",
            steps=self.done,
            routes=tuple(route.name for route in self.routes),
            reads="" if reads is None else f"layer {', '.join(map(str, reads.layers))}: {', '.join(reads.parts)}",
            weights=learned,
            share=learned / self.reasoner_size,
            temperature=temperature,
            threshold=threshold,
            validation=self._validation(chances, threshold),
            reasoner="",
            seconds={},
        )

    def _validation(self, chances: torch.Tensor, threshold: float) -> dict[str, float]:
        direct = self.routes.index(DIRECT)
        best = [self.routes.index(decide(self.routes, row, threshold).route) for row in chances.numpy()]
        correct = torch.from_numpy(self.known[1].correct)
        calls = torch.tensor([float(len(route.tools)) for route in self.routes])
        return {
            "questions": float(len(correct)),
            "direct": float(correct[:, direct].double().mean()),
            "router": float(correct[torch.arange(len(correct)), best].double().mean()),
            "oracle": float(correct.any(1).double().mean()),
            "calls": float(calls[best].mean()),
        }
