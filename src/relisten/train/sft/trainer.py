"""Supervised fine-tuning of a checkpoint on questions with responses (Echo, stage 1); `relisten train sft`.

A run lives in one folder:

| in the folder | what it is |
|---|---|
| `config.toml` | the settings |
| `data/` | the examples as they are trained on, prepared once; `train-left-out.txt` says which were not usable |
| `metrics.jsonl`, `tensorboard/` | numbers of every step |
| `states/step-000200/` | what the run goes on from: trained weights, optimizer, step |
| `checkpoint/` | the trained model, as transformers loads it; `training.json` says how it was made |
| `checkpoints/step-000200/` | the same every `export_every` steps, and where the loss came to no number |
| `adapter/`, `adapters/step-000200/` | with LoRA: the adapters alone |

The same command goes on with a run that was ended, and gives the losses that it would have given. Nothing but
weights, optimizer and step number has to be kept for that: the order of examples follows from the seed, and random
numbers (dropout) are drawn anew for every step.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import nn

from relisten.data.examples import Example
from relisten.errors import DivergedError, InputError
from relisten.files import write_whole
from relisten.models import load
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.train.divergence import stepped_back
from relisten.train.exporting import export_folder, replace_checkpoint
from relisten.train.metrics import Metrics, gpu_memory, has_metrics, last_row
from relisten.train.optimizer import adamw
from relisten.train.parallel import Processes, whole
from relisten.train.planning import divide, members_of_step, steps_of_epoch
from relisten.train.settings import begin_run
from relisten.train.sft.config import MAY_CHANGE, FinetuneConfig
from relisten.train.sft.reading import TRAIN, read_dataset
from relisten.train.sft.sequences import Counts, Layout, ReadySet, TrainingSequence, make_ready
from relisten.train.sft.trained_model import TrainedModel
from relisten.train.states import States
from relisten.train.trainable import half_precision
from relisten.train.watch import Watch

VALIDATION: Final = "validation"
_COUNTED: Final = ".counted"
"""A file in the run's folder that tells other processes: the data is ready, or cannot be made so."""


@dataclass(frozen=True)
class Finetuned:
    """What came of a run."""

    checkpoint: Path
    steps: int
    examples: int
    left_out: int
    loss: float
    validation_loss: float | None


def finetune(
    config: FinetuneConfig,
    out: Path,
    *,
    watch: Watch | None = None,
    processes: Processes | None = None,
) -> Finetuned:
    """Run or go on with a run in `out`. Every process of the run calls this with the same arguments.

    Args:
        processes: those that were launched together; None finds out, and is this process alone if nothing launched
            several.

    Raises:
        InputError: the model, the data or the folder cannot be used.
        DivergedError: the loss or a gradient is no number; the last good weights are in a checkpoint.
    """
    if processes is None:
        with closing(Processes(config.device)) as found:
            return finetune(config, out, watch=watch, processes=found)
    problem = None
    if processes.first:
        try:
            begin(config, out)
        except InputError as error:
            problem = error
    processes.agree(problem)
    run = _Run(config, out, processes, watch if watch is not None and processes.first else Watch())
    try:
        return run.go()
    finally:
        run.close()


def begin(config: FinetuneConfig, out: Path) -> None:
    """Make `out` the folder of a run of `config`, or check that it is.

    Raises:
        InputError: it holds a run of other settings, or other files, or cannot be written; or a run that begins has
            no data that can be read.
    """
    if not config.data:
        raise InputError("no data: give --data, a JSONL file or a folder that `relisten data export` wrote")
    begun = has_metrics(out) or any((out / "states").glob("step-*"))
    if not begun:  # before the folder is made, and long before the model is loaded
        for name in (TRAIN, VALIDATION):
            _examples(config, name, out / "sounds")
    begin_run(config, out, MAY_CHANGE, begun)
    if not begun:  # a failed attempt may have prepared other data
        for name in (TRAIN, VALIDATION):
            (out / "data" / f"{name}.json").unlink(missing_ok=True)
    (out / _COUNTED).unlink(missing_ok=True)


def load_family(config: FinetuneConfig, device: torch.device) -> Qwen2_5Omni:
    """The model in the precision it is stored in, or in float32 if that is what everything is computed in.

    Raises:
        InputError: it cannot be loaded, or has no room for tag tokens.
    """
    family = load(config.model, "auto" if half_precision(config.precision, device) else "float32")
    assert isinstance(family, Qwen2_5Omni)
    if config.tag_tokens:
        family.add_tag_tokens()
    return family


def ready_sets(config: FinetuneConfig, out: Path, family: Qwen2_5Omni) -> Iterator[tuple[str, Counts]]:
    """Prepare the training and the validation set in `out/data`, unless that is done: (name, counts)."""
    layout = Layout(family, config.format, config.answer_weight, config.heard_weight)
    folder = out / "data"
    folder.mkdir(exist_ok=True)
    for name in (TRAIN, VALIDATION):
        summary = folder / f"{name}.json"
        if summary.exists():
            yield name, Counts(**json.loads(summary.read_text()))
            continue
        with (folder / f"{name}-left-out.txt").open("w", encoding="utf-8") as left_out:
            counts = make_ready(
                _examples(config, name, out / "sounds"), folder / f"{name}.jsonl", layout, config.max_length,
                config.threads, lambda error: print(error, file=left_out),
            )  # fmt: skip
        write_whole(summary, json.dumps(asdict(counts)))
        yield name, counts


def _examples(config: FinetuneConfig, name: str, sounds: Path) -> Iterable[Example | InputError]:
    """Raises InputError at once where there is nothing to read."""
    if name == TRAIN:
        return read_dataset(config.data, TRAIN, sounds)
    if config.validation:
        return read_dataset(config.validation, VALIDATION, sounds)
    try:
        return read_dataset(config.data, VALIDATION, sounds) if Path(config.data).is_dir() else ()
    except InputError:  # a folder without such a split
        return ()


class _Run:
    """One process of a run."""

    def __init__(self, config: FinetuneConfig, out: Path, processes: Processes, watch: Watch) -> None:
        self.config = config
        self.out = out
        self.processes = processes
        self.watch = watch
        self.family = load_family(config, processes.device)
        self.whole = config.layout != "thinker" and self._is_whole()
        self.left_out = 0
        problem = None
        if processes.first:
            try:
                self._make_ready()
            except InputError as error:
                problem = error
            (out / _COUNTED).touch()
        processes.wait_for(out / _COUNTED)
        processes.agree(problem)
        self.train = ReadySet(out / "data" / f"{TRAIN}.jsonl")
        self.validation = ReadySet(out / "data" / f"{VALIDATION}.jsonl")
        if not len(self.train):
            raise InputError(
                f"{config.data}: no example can be trained on; see {out / 'data' / f'{TRAIN}-left-out.txt'}"
            )
        self.steps = config.steps or config.epochs * steps_of_epoch(len(self.train), config.batch_size)
        self.layout = Layout(self.family, config.format, config.answer_weight, config.heard_weight)
        torch.manual_seed(config.seed)
        self.model = TrainedModel(self.family, config)
        self.model.place(processes)
        trained = self.model.module.parameters()
        self.optimizer = adamw(trained, config.lr, config.weight_decay, config.betas)
        self.states = States(out / "states", self.model.module, self.optimizer, processes, config.keep_states)
        self.done = self.states.restore()
        self.metrics = None
        if processes.first:
            self.metrics = Metrics(out, self.done, config.tensorboard, config.tracker, asdict(config))

    def _make_ready(self) -> None:
        for name, counts in ready_sets(self.config, self.out, self.family):
            self.left_out += counts.bad + counts.too_long
            if counts.bad or counts.too_long:
                self.watch.on_note(
                    f"{name}: examples kept {counts.kept}; left out as bad {counts.bad}, as longer than max_length "
                    f"{counts.too_long}, see {self.out / 'data' / f'{name}-left-out.txt'}"
                )

    def _is_whole(self) -> bool:
        try:
            self.family.check_savable(whole=True)
        except InputError:
            if self.config.layout == "whole":
                raise
            return False
        return True

    def go(self) -> Finetuned:
        config = self.config
        made = export_folder(self.out) / "training.json"
        if self.done == self.steps and made.exists():
            return self._result(**json.loads(made.read_text())["result"])
        # For a run that was killed before its last export: it has no step left to make.
        row = last_row(self.out) if self.done else {}
        loss, validated = row.get("loss", math.nan), row.get("validation_loss")
        self.model.module.train()
        begun = time.perf_counter()
        for step, passes in self._passes(self.done):
            values = self._step(step, passes)
            loss = values["loss"]
            self.done = step + 1
            last = self.done == self.steps
            if len(self.validation) and (last or self.done % config.validate_every == 0):
                values["validation_loss"] = validated = self._validate()
            values["seconds"] = time.perf_counter() - begun
            begun = time.perf_counter()
            if self.metrics is not None and (
                last or "validation_loss" in values or self.done % config.log_every == 0
            ):
                self.metrics.log(self.done, values)
            self.watch.on_step(self.done, self.steps, values)
            # The checkpoint before the state: a run that is killed in between writes the checkpoint again.
            if not last and config.export_every and self.done % config.export_every == 0:
                self._export(self.done, {"loss": loss, "validation_loss": validated})
            if last or self.done % config.save_every == 0:
                self.states.save(self.done)
        self._export(None, {"loss": loss, "validation_loss": validated})
        return self._result(loss, validated)

    def _result(self, loss: float, validation_loss: float | None) -> Finetuned:
        checkpoint = export_folder(self.out)
        return Finetuned(checkpoint, self.steps, len(self.train), self.left_out, loss, validation_loss)

    def close(self) -> None:
        if self.metrics is not None:
            self.metrics.close()

    # Steps

    def _step(self, step: int, passes: list[list[TrainingSequence]]) -> dict[str, float]:
        """One update. The loss is the mean over all learned tokens of the step, whoever computes them."""
        config, count = self.config, self.processes.count
        members = members_of_step(len(self.train), config.batch_size, config.seed, step)
        weight = float(self.train.weights[members].sum())
        total = torch.zeros((), device=self.processes.device)
        for number, sequences in enumerate(passes):
            _seed(config.seed, step, number, self.processes.index)
            # Sharded gradients are averaged over the processes, but must be summed.
            loss = self.model.loss(sequences) * (count / weight)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        mean = float(self.processes.total(total)) / count
        trained = [p for p in self.model.module.parameters() if p.requires_grad]
        norm = nn.utils.clip_grad_norm_(trained, config.clip_norm or math.inf)
        length = float(whole(norm))
        told = f"step {step + 1}: loss {mean:g}, gradient {length:g}"
        if step and not math.isfinite(mean):
            raise self._stepped_back(step, f"{told}; an update before it spoilt the weights")
        if not math.isfinite(mean) or not math.isfinite(length):
            kept = self._export(step, {})
            raise DivergedError(
                f"{told}. The weights from before it are in {kept}: go on from them with --model, a lower lr and "
                "another --out, or look at the data"
            )
        lr = config.lr_at(step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad()
        tokens = int(self.train.lengths[members].sum())
        values = {"loss": mean, "lr": lr, "gradient": length, "tokens": tokens, "passes": len(passes)}
        return values | gpu_memory(self.processes.device)

    def _stepped_back(self, step: int, why: str) -> DivergedError:
        def export(done: int) -> Path:
            self.done = done
            return self._export(done, {})

        self.states.drop(step)  # of the very weights that give no loss
        return stepped_back(self.states, export, why, "a lower lr")

    @torch.no_grad()
    def _validate(self) -> float:
        self.model.module.eval()
        total = torch.zeros((), device=self.processes.device)
        size = self.config.batch_size
        for first in range(0, len(self.validation), size):
            members = list(range(first, min(first + size, len(self.validation))))
            for group in self._divide(members, self.validation):
                total += self.model.loss([_laid(self.layout, self.validation, *choice) for choice in group])
        self.model.module.train()
        return float(self.processes.total(total)) / float(self.validation.weights.sum())

    def _passes(self, first: int) -> Iterator[tuple[int, list[list[TrainingSequence]]]]:
        """This process's passes of every step to come; meanwhile sounds of the next step are read."""
        with ThreadPoolExecutor(self.config.threads) as pool:

            def begin(step: int) -> list[list[Future[TrainingSequence]]]:
                members = members_of_step(len(self.train), self.config.batch_size, self.config.seed, step)
                groups = self._divide(members.tolist(), self.train)
                return [
                    [pool.submit(_laid, self.layout, self.train, *choice) for choice in group] for group in groups
                ]

            ahead = begin(first) if first < self.steps else []
            for step in range(first, self.steps):
                current = ahead
                ahead = begin(step + 1) if step + 1 < self.steps else []
                yield step, [[future.result() for future in group] for group in current]

    def _divide(self, members: list[int], ready: ReadySet) -> list[list[tuple[int, bool]]]:
        """This process's passes, as (example, is it learned). A pass that has no example left computes the shortest
        one without loss, because all processes of a sharded model must take part."""
        config = self.config
        parts = divide(members, ready.lengths, self.processes.count, config.pass_tokens, config.packing)
        stand_in = [(min(members, key=lambda i: int(ready.lengths[i])), False)]
        return [[(i, True) for i in group] or stand_in for group in parts[self.processes.index]]

    def _export(self, step: int | None, result: Mapping[str, float | None]) -> Path:
        """Write the checkpoint of a step, or of the end, and with LoRA the adapter; returns the former."""
        folder = export_folder(self.out, step)
        weights = self.model.gather()
        if self.processes.first:
            if self.model.adapters is not None:
                self.model.save_adapters(weights, export_folder(self.out, step, "adapter"))
            made = {
                "trainer": "relisten train sft",
                "processes": self.processes.count,
                "steps": self.done,
                "examples": len(self.train),
                "result": result,
                "config": asdict(self.config),
            }
            replace_checkpoint(folder, lambda new: self.model.save(weights, new, self.whole), made)
        self.processes.wait()
        return folder


def _laid(layout: Layout, ready: ReadySet, index: int, learned: bool) -> TrainingSequence:
    example = ready.example(index)
    laid = layout.sequence(example, example.question.clip())
    return laid if learned else replace(laid, weights=(0.0,) * len(laid.weights))


def _seed(*numbers: int) -> None:
    """Seed dropout by where the run is, so that no random state has to be kept."""
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))
