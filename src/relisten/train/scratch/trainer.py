"""Supervised training from scratch: `python -m relisten.train.scratch --out DIR --preset echo-tiny --seed 0`.

One command renders the scenes, trains the tokenizer and runs every stage of a preset. A run that was killed goes
on from its last saved state when the same command is given again. In DIR afterwards: `checkpoint/` (the trained
model, and `training.json`, which says how it was made), `metrics.jsonl` (one row for every few steps), `state.pt`
(to go on from) and `config.json`.

Every step draws its scenes and questions from (seed, stage, step, process) alone, so that nothing but weights,
optimizer and step number has to be kept.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from rich.progress import Progress
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes

from relisten.data.scenes import Scene
from relisten.data.wording import NAMES, NUMBERS
from relisten.errors import DivergedError, InputError
from relisten.files import replacing, write_whole
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.models.tiny import build
from relisten.models.tower import encode_frames
from relisten.processes import end_with_parent
from relisten.protocol import user_text
from relisten.tools.tool import require_tools
from relisten.train import forward
from relisten.train.batches import Batcher, Target
from relisten.train.exporting import export_folder, replace_checkpoint
from relisten.train.metrics import keep_rows
from relisten.train.optimizer import adamw
from relisten.train.scratch import encoder
from relisten.train.scratch.config import PRESETS, ScratchConfig, Stage
from relisten.train.scratch.listening import answer
from relisten.train.scratch.pool import ScenePool
from relisten.train.scratch.tasks import TASKS

COMPUTE = torch.bfloat16
"""Of matrix products; weights, norms and losses are float32."""


def train(config: ScratchConfig, out: Path) -> Path:
    """Run or go on with a training run in `out`; returns the folder of the trained checkpoint.

    Raises:
        InputError: `out` holds a run of another configuration.
        DivergedError: a gradient is no number; `out` keeps what was saved before it.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = out / "config.json"
    content = json.dumps({"digest": config.digest, **asdict(config)}, indent=2) + "\n"
    if written.exists() and json.loads(written.read_text())["digest"] != config.digest:
        raise InputError(f"{out}: holds a run of another configuration; give another --out or delete it")
    write_whole(written, content)
    pools = out / "pool"
    with Progress() as bar:
        total = sum(count for part in (config.pool, config.validation) for _, count in part.counts)
        task = bar.add_task("scenes", total=total)
        pool = ScenePool.open(pools, config.pool, config.processes, lambda n: bar.advance(task, n))
        ScenePool.open(pools, config.validation, config.processes, lambda n: bar.advance(task, n))
        bar.update(task, completed=total)
    start = out / "start"
    if not (start / "model.safetensors").exists():
        build(start, config.seed, _corpus(pool, config), config.shape)
    meeting = out / "meeting"
    meeting.unlink(missing_ok=True)
    if config.processes == 1:
        _work(0, config, out)
    else:
        start_processes(_work, (config, out), nprocs=config.processes, start_method="spawn")  # type: ignore[no-untyped-call]
    return out / "checkpoint"


def _corpus(pool: ScenePool, config: ScratchConfig) -> Iterator[str]:
    """Questions and responses from which the tokenizer learns its words, and rarer forms of what choices say."""
    named = [name for pairs in NAMES.values() for pair in pairs for name in pair]
    for word in (*named, *NUMBERS):
        yield from (word, f" {word}", word.capitalize(), f" {word.capitalize()}") * (config.tokenizer_scenes // 10)
    rng = np.random.default_rng([config.seed, 1])
    for _ in range(config.tokenizer_scenes):
        group = int(rng.integers(len(pool.durations)))
        for target in answer(pool.scene(group, int(rng.integers(pool.count(group)))), rng, 8):
            yield user_text(target.question)
            yield target.response


def _work(rank: int, config: ScratchConfig, out: Path) -> None:
    torch.set_num_threads(1 if config.processes > 1 else max(1, os.cpu_count() or 1))
    if config.processes > 1:
        end_with_parent()
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        dist.init_process_group(
            "gloo", init_method=f"file://{out.absolute() / 'meeting'}", rank=rank, world_size=config.processes
        )
    try:
        _Run(rank, config, out).go()
    finally:
        if config.processes > 1:
            dist.destroy_process_group()


class _Run:
    """One process of a run."""

    def __init__(self, rank: int, config: ScratchConfig, out: Path) -> None:
        self.rank = rank
        self.config = config
        self.out = out
        self.pool = ScenePool.open(out / "pool", config.pool)
        self.validation = ScenePool.open(out / "pool", config.validation)
        self.family = Qwen2_5Omni.load(out / "start", dtype="float32")
        self.batcher = Batcher(self.family, config.answer_weight)
        torch.manual_seed(config.seed)
        self.head = encoder.OnsetHead(self.family.thinker.config.audio_config.d_model)
        self.rate = encoder.frame_rate(self.family.mel.hop_length)
        self.modules = nn.ModuleDict({"thinker": self.family.thinker, "head": self.head}).train()
        self.parameters = [p for p in self.modules.parameters() if p.requires_grad]
        self.sizes = [p.numel() for p in self.parameters]
        self.optimizers = self._optimizers()
        self.average = [p.detach().clone() for p in self.parameters]
        self.stage = self.step = 0
        self._restore()
        self.metrics = out / "metrics.jsonl"
        if rank == 0:  # what an ended run logged behind its last state will be logged again
            stages = [stage.name for stage in config.stages]
            keep_rows(
                self.metrics, lambda row: (stages.index(row["stage"]), row["step"]) <= (self.stage, self.step)
            )

    def go(self) -> None:
        stages = self.config.stages
        with Progress(disable=self.rank != 0) as bar:
            for number in range(self.stage, len(stages)):
                stage = stages[number]
                task = bar.add_task(stage.name, total=stage.steps, completed=self.step)
                begun, since = time.perf_counter(), self.step
                sums = np.zeros(2)
                for step in range(self.step, stage.steps):
                    sums += self._train_step(number, stage, step)
                    self.step = step + 1
                    bar.advance(task)
                    if self.step % self.config.log_every == 0 or self.step == stage.steps:
                        seconds = (time.perf_counter() - begun) / (self.step - since)
                        self._log(stage, loss=sums[0] / sums[1], seconds=seconds, lr=stage.lr_at(step))
                        sums = np.zeros(2)
                    if self.step % self.config.check_every == 0 or self.step == stage.steps:
                        self._check(number, stage)
                    if self.step % self.config.save_every == 0:
                        self._save()
                self.stage, self.step = number + 1, 0
                self._save()
        if self.rank == 0:
            self._export()

    # Steps

    def _train_step(self, number: int, stage: Stage, step: int) -> np.ndarray[Any, Any]:
        """One update; returns (weighted loss, weight) summed over the processes.

        Raises:
            DivergedError: the gradient is no number; it was not applied.
        """
        total, weight = self._loss(number, stage, step, self.pool)
        torch.autograd.backward(total)
        flat = torch.cat([_gradient(p).flatten() for p in self.parameters])
        flat = torch.cat([flat, torch.stack([total.detach(), weight])])
        if self.config.processes > 1:
            dist.all_reduce(flat)
        sums = flat[-2:].double().numpy().copy()
        flat = flat[:-2] / float(sums[1])
        norm = float(flat.norm())
        if not math.isfinite(norm):
            raise DivergedError(
                f"stage {stage.name}, step {step + 1}: loss {sums[0] / sums[1]:g}, gradient {norm:g}. {self.out} "
                "keeps what was saved before it; try a lower lr in another --out"
            )
        flat *= min(1.0, self.config.clip_norm / (norm + 1e-6))
        for p, gradient in zip(self.parameters, torch.split(flat, self.sizes), strict=True):
            p.grad = gradient.view_as(p)
        for optimizer, scale in zip(self.optimizers, (1.0, self.config.muon), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = scale * stage.lr_at(step)
            optimizer.step()
            optimizer.zero_grad()
        # A stage's first steps would otherwise weigh on the mean for long.
        decay = min(self.config.average, (step + 1) / (step + 10)) if stage.mix else 0.0
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)
        return sums

    def _loss(self, number: int, stage: Stage, step: int, pool: ScenePool) -> tuple[Tensor, Tensor]:
        """Summed loss and weight of this process's share of a step."""
        shared = np.random.default_rng([self.config.seed, 2, number, step])
        own = np.random.default_rng([self.config.seed, 3, number, step, self.rank])
        if not stage.mix:
            group = self._group(stage, pool, pool.count, shared)
            drawn = own.integers(pool.count(group), size=stage.rows)
            return self._encoder_loss(stage, [pool.scene(group, int(index)) for index in drawn], shared, own)
        names = [name for name, _ in stage.mix]
        shares = np.array([share for _, share in stage.mix])
        task = TASKS[names[shared.choice(len(names), p=shares / shares.sum())]]
        count = pool.count_told if task.reads else pool.count
        group = self._group(stage, pool, count, shared)
        chosen: list[Scene] = []
        targets = []
        # Some scenes allow no question, most allow none of the rarer kinds.
        for index in own.integers(count(group), size=8 * stage.rows):
            scene = pool.scene(group, int(index))
            asked: list[Target] = task.make(scene, own, stage.asked)
            if asked:
                chosen.append(scene)
                targets.append(asked)
            if len(chosen) == stage.rows:
                break
        clips = [scene.clip for scene in chosen]
        if task.seconds is not None:
            clips = [clip.crop(0.0, task.seconds) for clip in clips]
        self.batcher.heard_weight = stage.heard
        batch = self.batcher.batch(clips, targets, task.format)
        frames = forward.encode_batch(self.family.audio_tower, batch, COMPUTE)
        total, weight = forward.loss(self.family.thinker, batch, COMPUTE, frames)
        if stage.onsets and task.seconds is None:
            parts = [chosen, *([_part(chosen[row], *cut) for row, *cut in crops.cuts] for crops in batch.crops)]
            losses = [self._onset_loss(stage, scenes, *heard) for scenes, heard in zip(parts, frames, strict=True)]
            total = total + stage.onsets * weight * torch.stack(losses).mean()
        return total, weight

    def _group(self, stage: Stage, pool: ScenePool, count: Callable[[int], int], rng: np.random.Generator) -> int:
        """Draws a clip length; each as often as there are scenes of it."""
        allowed = [i for i, d in enumerate(pool.durations) if stage.shortest <= d <= stage.longest]
        sizes = np.array([count(i) for i in allowed], dtype=float)
        return allowed[int(rng.choice(len(allowed), p=sizes / sizes.sum()))]

    def _encoder_loss(
        self, stage: Stage, scenes: Sequence[Scene], shared: np.random.Generator, own: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Onset loss of whole clips, or half of the time of crops."""
        if shared.random() < 0.5:
            length = float(shared.uniform(0.8, 4.0))
            scenes = [_cropped(scene, length, own) for scene in scenes]
        sounds = self.batcher.sounds([scene.clip for scene in scenes])
        frames = encode_frames(self.family.audio_tower, sounds, COMPUTE)
        weight = frames[1].sum().float()
        return self._onset_loss(stage, scenes, *frames) * weight, weight

    def _onset_loss(self, stage: Stage, scenes: Sequence[Scene], states: Tensor, lengths: Tensor) -> Tensor:
        logits = self.head(self.family.audio_tower, states)
        wanted = encoder.targets(scenes, logits.shape[1], self.rate)
        return encoder.loss(logits, lengths, wanted, stage.traits)

    # Keeping track

    @torch.no_grad()
    def _check(self, number: int, stage: Stage) -> None:
        """Log the loss on validation scenes, or for the encoder how well onsets and traits are found."""
        if not stage.mix:
            scenes = [self.validation.scene(0, i) for i in range(min(32, self.validation.count(0)))]
            sounds = self.batcher.sounds([scene.clip for scene in scenes])
            states, lengths = encode_frames(self.family.audio_tower, sounds, COMPUTE)
            logits = self.head(self.family.audio_tower, states)
            wanted = encoder.targets(scenes, logits.shape[1], self.rate)
            self._log(
                stage,
                onset_f1=encoder.f1(logits, lengths, wanted),
                label_accuracy=encoder.label_accuracy(logits, wanted),
                **encoder.trait_errors(logits, wanted),
            )
            return
        longest = replace(stage, shortest=0.0, longest=max(self.validation.durations))
        sums = sum(torch.stack(self._loss(1000 + number, longest, step, self.validation)) for step in range(4))
        assert isinstance(sums, Tensor)
        if self.config.processes > 1:
            dist.all_reduce(sums)
        self._log(stage, validation_loss=float(sums[0] / sums[1]))

    def _log(self, stage: Stage, **values: float) -> None:
        if self.rank == 0:
            row = {"stage": stage.name, "step": self.step, **{key: round(v, 6) for key, v in values.items()}}
            with self.metrics.open("a") as file:
                file.write(json.dumps(row) + "\n")

    def _optimizers(self) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        """AdamW, and Muon for the matrices inside the towers' layers."""
        inner: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, p in self.modules.named_parameters():
            if p.requires_grad:
                (inner if ".layers." in name and p.ndim == 2 else others).append(p)
        decay = self.config.weight_decay  # both learning rates are set anew in every step
        adam = adamw(others, lr=1e-3, weight_decay=decay, betas=self.config.betas)
        return adam, torch.optim.Muon(inner, lr=1e-3, weight_decay=decay, adjust_lr_fn="match_rms_adamw")

    def _save(self) -> None:
        if self.rank == 0:
            state = {
                "modules": self.modules.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "average": self.average,
                "stage": self.stage,
                "step": self.step,
            }
            with replacing(self.out / "state.pt", binary=True) as file:
                torch.save(state, file)

    def _restore(self) -> None:
        path = self.out / "state.pt"
        if path.exists():
            state = torch.load(path, weights_only=True)
            self.modules.load_state_dict(state["modules"])
            for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(kept)
            self.average = state["average"]
            self.stage, self.step = state["stage"], state["step"]

    def _export(self) -> None:
        """Write the running mean of the weights as the checkpoint, rounded to bfloat16."""
        presets = (n for n, c in PRESETS.items() if replace(c, seed=self.config.seed) == self.config)
        preset = next(presets, None)
        made = {
            "trainer": "python -m relisten.train.scratch",
            "command": f"python -m relisten.train.scratch --preset {preset} --seed {self.config.seed} --out DIR"
            if preset
            else None,
            "config": asdict(self.config),
        }
        with torch.no_grad():
            for parameter, value in zip(self.parameters, self.average, strict=True):
                parameter.copy_(value)
        self.family.thinker.to(torch.bfloat16)
        replace_checkpoint(export_folder(self.out), partial(self.family.save, whole=True), made)


def _gradient(parameter: nn.Parameter) -> Tensor:
    return parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)


def _cropped(scene: Scene, length: float, rng: np.random.Generator) -> Scene:
    """A random part of a scene as a scene of its own."""
    start = round(float(rng.uniform(0.0, max(0.0, scene.clip.duration - length))), 2)
    return _part(scene, start, start + length)


def _part(scene: Scene, start: float, end: float, speed: float = 1.0) -> Scene:
    clip = scene.clip.crop(start, end, speed)
    events = tuple(
        replace(event, onset=(event.onset - start) / speed, offset=(event.offset - start) / speed)
        for event in scene.between(start, start + clip.duration * speed)
    )
    return Scene(clip, events, scene.split, scene.index)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m relisten.train.scratch", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="echo-tiny")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    config = replace(PRESETS[options.preset], seed=options.seed)
    try:
        require_tools({*config.pool.tools, *config.validation.tools})
        checkpoint = train(config, options.out)
    except InputError as error:
        parser.error(str(error))
    print(f"trained: {checkpoint}")


if __name__ == "__main__":
    main()
