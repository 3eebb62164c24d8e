"""Reinforcement learning on questions with reference answers (Echo, stage 2); `relisten train grpo`.

A step samples a group of answers to each of some questions, scores them, and raises the probability of what earned
more than its group's mean (`policy_loss` has the formula). It learns from traces: from the ids that were sampled,
the end of turn included, each in the context it was sampled in. Prompt and inserted sound have no loss. An answer
that was cut off is learned from as far as it goes, unless `unfinished` is "mask"; no end of turn is learned from
it, since none was sampled. An answer that failed, or whose reward did, is recorded and left out. A group whose
answers all earn the same reward is counted, but adds neither policy loss nor divergence.

A run lives in one folder:

| in the folder | what it is |
|---|---|
| `config.toml` | the settings; `--config` takes it again |
| `metrics.jsonl`, `tensorboard/` | numbers of every step (`step_stats` and below) |
| `rollouts/step-000001.jsonl` | every answer: what it earned, and why |
| `states/step-000020/` | what the run goes on from: trained weights, optimizer, step |
| `checkpoint/` | the trained model, as transformers loads it; `training.json` says how it was made |
| `checkpoints/step-000020/` | the same every `export_every` steps, and where the loss came to no number |

The same command goes on with a run that was ended, and gives the losses that it would have given: the order of
questions and every answer's seed follow from the configuration, and on CPUs answers of the native engine in
lockstep are the same to the bit. Nothing promises that of a GPU's kernels, nor of vLLM: such a run goes on from the
same weights and questions with answers like them.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import torch

from relisten.engines.base import NO_NUMBERS, Engine
from relisten.engines.native import NativeEngine
from relisten.errors import DivergedError, EngineError, InputError
from relisten.jsonl import write_rows
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.question import Question
from relisten.trace import Sampling
from relisten.train.divergence import stepped_back
from relisten.train.exporting import export_folder, step_name
from relisten.train.grpo.config import MAY_CHANGE, GrpoConfig
from relisten.train.grpo.policy import Policy
from relisten.train.grpo.rollouts import Rollout, TakesWeights, make_engine, roll_out
from relisten.train.grpo.step_stats import answers_stats, validation_stats, warnings
from relisten.train.grpo.team import Team
from relisten.train.grpo.updates import Gaps, NotFiniteError, Updates, with_advantages
from relisten.train.metrics import Metrics, gpu_memory, has_metrics, last_row
from relisten.train.parallel import Processes
from relisten.train.planning import even_parts, members_of_step, steps_of_epoch
from relisten.train.references import read_referenced
from relisten.train.rewards import Reward
from relisten.train.settings import begin_run
from relisten.train.states import States
from relisten.train.watch import Watch

_TRAINING: Final = 0
_VALIDATING: Final = 1
"""Kinds of rollouts; a part of their seeds, so that these differ."""


@dataclass(frozen=True)
class Trained:
    """What came of a run."""

    checkpoint: Path
    steps: int
    last: Mapping[str, float]
    """Numbers of the last step, with its validation."""


def train_grpo(
    config: GrpoConfig,
    out: Path,
    *,
    watch: Watch | None = None,
    processes: Processes | None = None,
    engine: Callable[[Qwen2_5Omni], Engine] | None = None,
) -> Trained:
    """Run or go on with a run in `out`.

    With several processes, each answers and learns from its share of a step's questions. Each holds the whole
    model, or with `GrpoConfig.divided` a part of what training needs. Together they do what one would do, up to
    rounding. Every process makes this call with the same arguments.

    Args:
        processes: those that were launched together; None is this process alone, which needs nothing installed.
        engine: makes the engine that answers from the model in training; None takes the one that `config` names. An
            engine with weights of its own (`TakesWeights`) is given the new ones after every step.

    Raises:
        InputError: the model, the questions, the reward or the folder cannot be used.
        EngineError: every answer of a step failed, or could not be scored.
        DivergedError: the loss or a gradient is no number; `checkpoints` has the weights from before it.
    """
    team = Team(processes)
    if config.engine == "vllm" and engine is None and team.count > 1:
        raise InputError(f"engine vllm with {team.count} processes: train in one process, or with engine native")
    if processes is not None:
        config = replace(config, device=str(processes.device))
    team.agree(partial(begin_run, config, out, MAY_CHANGE, begun=has_metrics(out)))
    run = _Run(config, out, engine, watch if watch is not None and team.first else Watch(), team)
    try:
        return run.go()
    finally:
        run.close()


class _Run:
    def __init__(
        self,
        config: GrpoConfig,
        out: Path,
        engine: Callable[[Qwen2_5Omni], Engine] | None,
        watch: Watch,
        team: Team,
    ) -> None:
        self.config, self.out, self.team = config, out, team
        self.watch = watch
        if config.threads:
            torch.set_num_threads(config.threads)
        self.reward = Reward.parse(config.reward)
        self.questions = read_referenced(config.questions, watch.on_note)
        self.validation = read_referenced(config.validation, watch.on_note) if config.validation else []
        self.validation = self.validation[: config.validation_size or None]
        self.steps = config.steps or config.epochs * steps_of_epoch(len(self.questions), config.batch_size)
        self.policy = Policy(config, team)
        # Two, since only the next step's answers tell whether the weights of a state are any good.
        self.states = States(out / "states", self.policy.family.thinker, self.policy.optimizer, team, keep=2)
        self.done = self.states.restore()
        self.exported = self.done if self._checkpoint().exists() else 0
        self.metrics: Metrics | None = None
        if team.first:
            self.metrics = Metrics(out, self.done or -1, config.tensorboard, config.tracker, vars(config))
        self.make_engine = partial(make_engine, config) if engine is None else engine
        self.finished = self.done == self.steps and (export_folder(out) / "training.json").exists()
        self.warned: set[str] = set()

    def go(self) -> Trained:
        if self.finished:
            return Trained(export_folder(self.out), self.done, last_row(self.out))
        with closing(self.make_engine(self.policy.answering)) as self.engine:
            return self._train()

    def _train(self) -> Trained:
        config = self.config
        if self.done:
            self._publish()
        same = isinstance(self.engine, NativeEngine) and config.precision == "fp32"
        self.exact = config.old == "rollout" or (config.old == "auto" and same)
        self.updates = Updates(self.policy, config, self.exact, self.team)
        values = last_row(self.out) if self.done else {}
        if self.done == 0 and self.validation:
            self._log(self._validate())
        while self.done < self.steps:
            values = self._step(self.done)
            self.done += 1
            last = self.done == self.steps
            if self.validation and (last or self.done % config.validate_every == 0):
                values |= self._validate()
            self._log(values)
            self._keep(last)
            self.watch.on_step(self.done, self.steps, values)
        self.policy.export(export_folder(self.out), self.done)
        return Trained(export_folder(self.out), self.done, values)

    def close(self) -> None:
        if self.metrics is not None:
            self.metrics.close()

    def _log(self, values: Mapping[str, float]) -> None:
        if self.metrics is not None:
            self.metrics.log(self.done, values)
        for warning in warnings(values, self.config, self.exact) if self.done else ():
            if warning not in self.warned:
                self.warned.add(warning)
                self.watch.on_note(f"step {self.done}: {warning}")

    def _keep(self, last: bool) -> None:
        # The checkpoint before the state: a run that is killed in between writes the checkpoint again.
        if self.config.export_every and self.done % self.config.export_every == 0:
            self._export_now()
        if last or self.done % self.config.save_every == 0:
            self.states.save(self.done)

    def _export_now(self) -> Path:
        """Write a checkpoint of the present weights, named after the steps done."""
        self.policy.export(self._checkpoint(), self.done)
        self.exported = self.done
        return self._checkpoint()

    def _checkpoint(self) -> Path:
        return export_folder(self.out, self.done)

    def _step(self, step: int) -> dict[str, float]:
        config, began = self.config, time.perf_counter()
        lr = config.lr_at(step, self.steps)
        for parameters in self.policy.optimizer.param_groups:
            parameters["lr"] = lr
        groups = self._roll_out(step)
        rolled = time.perf_counter()
        values = answers_stats([one for group in groups for one in group], config.max_listens)
        taught = [group for group in groups if any(one.advantage is not None for one in group)]
        values |= {"groups": len(groups), "groups_even": len(groups) - len(taught), "lr": lr}
        gaps = Gaps()
        # Evenly, since the loss is averaged over an update: a question left alone would weigh as much as many.
        parts = even_parts(taught, config.update_size)
        prepared = [update for part in parts if (update := self.updates.prepare(part, gaps)) is not None]
        ready = time.perf_counter()
        try:
            values |= self.updates.make(prepared, gaps)
        except NotFiniteError as error:
            if error.spoilt:
                raise self._stepped_back(step, f"{error}; an update before it spoilt the weights") from None
            # One that is there has those from before the step, which updates may have changed by now.
            kept = self._checkpoint() if self.exported == self.done else self._export_now()
            raise DivergedError(
                f"step {step + 1}: {error}. The weights from before it are in {kept}: go on from them with "
                "--model, a lower lr or a higher kl, and another --out"
            ) from None
        self._publish()
        return values | {
            **gaps.over(self.team),
            "seconds_rollout": rolled - began,
            "seconds_prepare": ready - rolled,
            "seconds_update": time.perf_counter() - ready,
            "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            **gpu_memory(self.policy.family.device),
        }

    def _stepped_back(self, step: int, why: str) -> DivergedError:
        def export(done: int) -> Path:
            self.done = done
            return self._export_now()

        return stepped_back(self.states, export, f"step {step + 1}: {why}", "a lower lr or a higher kl")

    def _publish(self) -> None:
        """Give the present weights to what answers."""
        self.policy.publish()
        if isinstance(self.engine, TakesWeights):
            self.engine.update_weights(self.policy.weights())

    def _roll_out(self, step: int) -> list[list[Rollout]]:
        """Sample, score and record the step's groups of answers; they come with their advantages."""
        config = self.config
        chosen = members_of_step(len(self.questions), config.batch_size, config.seed, step)
        asked = [self.questions[i] for i in chosen]
        groups = [
            with_advantages(group, config.normalise)
            for group in self._ask(asked, config.group_size, 1.0, (config.seed, _TRAINING, step))
        ]
        everyone = [one for group in groups for one in group]
        if self.team.first:
            rows = (one.to_json(config.record == "full") for one in everyone)
            write_rows(self.out / "rollouts" / f"{step_name(step + 1)}.jsonl", rows)
        if step > 0 and all(one.trace.error == NO_NUMBERS for one in everyone):
            self.states.drop(step)  # of the weights that answer nothing
            raise self._stepped_back(step, f"every answer came to no number, so step {step} spoilt the weights")
        if all(one.score is None for one in everyone):
            raise EngineError(
                f"step {step + 1}: every answer failed, the first with: {everyone[0].error}. Mend that and "
                "give the same command again"
            )
        return groups

    def _ask(
        self, questions: Sequence[Question], count: int, temperature: float, seed: Sequence[int]
    ) -> list[list[Rollout]]:
        """Groups of answers. Every process asks its share of the questions, and gets the others' without sound."""
        places = self.team.share(len(questions))
        own = roll_out(
            self.engine,
            [questions[place] for place in places],
            count,
            self.reward,
            format=self.config.format,
            sampling=Sampling(
                temperature,
                max_tokens=self.config.max_tokens,
                max_listens=self.config.max_listens,
                crop_speed=self.config.crop_speed,
            ),
            seed=seed,
            places=places,
            on_answer=self.watch.on_answer,
        )
        if self.team.count == 1:
            return own
        everyone = self.team.gather([[replace(one, clip=None) for one in group] for group in own])
        for place, group in zip(places, own, strict=True):
            everyone[place] = group
        return everyone

    def _validate(self) -> dict[str, float]:
        """Greedy answers to the validation questions, as many at a time as the engines decode side by side."""
        rollouts: list[Rollout] = []
        at_once = self.config.max_rows * self.team.count
        for first in range(0, len(self.validation), at_once):
            asked = self.validation[first : first + at_once]
            rollouts += [one for [one] in self._ask(asked, 1, 0.0, (self.config.seed, _VALIDATING, first))]
        return validation_stats(rollouts, self.config.max_listens)
