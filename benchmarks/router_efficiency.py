"""How many questions a router needs, and how many the same reasoner needs when it is trained itself.

    python benchmarks/router_efficiency.py --questions train.jsonl --test test.jsonl --out efficiency

Both sides see the same questions and the same thing of them: whether an answer is right. The router (a head, exact
or sampled gradient) leaves the reasoner alone; the other side is GRPO on the reasoner itself with the accuracy
reward, from the same sampled subsets (`relisten train grpo`), which is what the router's own objective is among.
Supervised fine-tuning would need responses, which these questions do not have, and on bare answers it unlearns to
listen.

The outcomes of all routes are measured once and shared; they, and GRPO's rollouts, are what takes the time.
A router has no question but those of its size: it learns from four fifths of them, and the last fifth chooses
layer, state, temperature and threshold. Test questions are only scored. Writes `efficiency.json` and
`efficiency.html` (one plot); goes on where it was ended.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _machine import machine

from relisten.engines.native import NativeEngine
from relisten.evaluate.scoring import wilson
from relisten.jsonl import write_rows
from relisten.models import load
from relisten.protocol import MAX_TOKENS
from relisten.question import Question
from relisten.report.charts import Axis, Line, line_chart, percent
from relisten.report.figures import table
from relisten.report.html import tag
from relisten.report.routing import write_page
from relisten.report.sections import section
from relisten.router.head import Reads
from relisten.router.outcomes import measure_routes
from relisten.router.policy import temper
from relisten.router.routes import DIRECT
from relisten.router.training.calibration import fit_temperature, fit_threshold
from relisten.router.training.config import RouterConfig
from relisten.router.training.learners import candidate_layers
from relisten.router.training.objective import never_malformed, relative_rewards
from relisten.router.training.prepare import Known, learn_about, routes_of, sampling_of
from relisten.router.training.trainer import features_of, fit_head, parts_of
from relisten.router.weights import weights_hash
from relisten.train.grpo.config import GrpoConfig
from relisten.train.grpo.trainer import train_grpo
from relisten.train.references import read_referenced
from relisten.train.watch import Watch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="echo-tiny")
    for name in ("questions", "test"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--known", type=Path, help="folder of outcomes and hidden states; default: --out")
    parser.add_argument("--tools", default="")
    parser.add_argument("--estimator", default="exact", choices=["exact", "sampled"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 32, 64, 128, 256, 512, 1024])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--grpo-sizes", type=int, nargs="*", default=[16, 64, 256, 1024])
    parser.add_argument("--grpo-seeds", type=int, default=3)
    parser.add_argument("--grpo-lr", type=float, default=1e-4)
    parser.add_argument("--grpo-steps", type=int, default=16, help="at least; and once through the questions")
    parser.add_argument("--grpo-batch", type=int, default=32, help="questions of a step")
    parser.add_argument(
        "--grpo-test", type=int, default=0, help="score trained reasoners on the first so many; 0: all"
    )
    parser.add_argument("--group-size", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=MAX_TOKENS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    sets = [read_referenced(getattr(options, name), say) for name in ("questions", "test")]
    config = RouterConfig(
        model=options.model, tools=options.tools, estimator=options.estimator, max_tokens=options.max_tokens
    )
    began = time.perf_counter()
    train, test = known_of(config, sets, options.known or options.out)
    measured = time.perf_counter() - began
    rows = router_rows(config, train, test, options)
    direct = test.outcomes.routes.index(DIRECT)
    found: dict[str, Any] = {
        "machine": machine(),
        "options": sys.argv[1:],
        "test_questions": len(test.questions),
        "direct": float(test.correct[:, direct].mean()),
        "best_single": float(np.delete(test.correct.mean(0), direct).max()),
        "oracle": float(test.correct.any(1).mean()),
        "seconds_outcomes": measured,
    }
    for row in chain([None], grpo_rows(options, sets)):
        rows += [] if row is None else [row]
        found |= {"rows": rows, "factors": factors(rows, found["direct"])}
        (options.out / "efficiency.json").write_text(json.dumps(found, indent=1) + "\n")
    show(found, options.out / "efficiency.html")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def known_of(config: RouterConfig, sets: Sequence[Sequence[Question]], out: Path) -> list[Known]:
    family = load(config.model, "float32")
    routes, reasoner = routes_of(config), weights_hash(family)
    told: dict[str, int] = {}

    def progress(what: str, done: int, total: int) -> None:
        if done == total or done - told.get(what, 0) >= max(1, total // 20):
            told[what] = done
            say(f"{what}: {done} of {total}")

    with NativeEngine(family, name=config.model) as engine:
        return [
            learn_about(
                engine,
                some,
                routes,
                config,
                out,
                reasoner,
                looks=True,
                watch=Watch(on_progress=progress),
                what=what,
            )
            for some, what in zip(sets, ("training", "test"), strict=True)
        ]


def subset(count: int, size: int, seed: int) -> list[int]:
    """The same questions for both sides; a smaller set is part of a larger one."""
    return [int(i) for i in np.random.default_rng([seed, count]).permutation(count)[:size]]


def router_rows(
    config: RouterConfig, train: Known, test: Known, options: argparse.Namespace
) -> list[dict[str, Any]]:
    routes = train.outcomes.routes
    direct = routes.index(DIRECT)
    rewards = relative_rewards(train.correct, routes, config.cost)
    correct = test.correct
    rows = []
    for size in (size for size in options.sizes if size <= len(train.questions)):
        count = size - max(1, size // 5)
        for seed in range(options.seeds):
            began = time.perf_counter()
            members = subset(len(train.questions), size, seed)
            earned, held = rewards[members], torch.from_numpy(rewards[members[count:]])
            fits = {}
            for layer in candidate_layers(len(train.looks[0].last)):
                reads = Reads((layer,), parts_of(config))
                features = features_of([train], reads)[members]
                fitted = fit_head(features, count, earned, routes, replace(config, seed=seed))
                fits[layer] = (reads, *fitted)
            reads, learner, _ = fits[max(fits, key=lambda layer: fits[layer][2])]
            chances = learner.logprobs(range(count, size)).detach()
            temperature = fit_temperature(chances, held)
            threshold = fit_threshold(temper(chances, temperature), held, direct)
            seen = learner.head(torch.from_numpy(features_of([test], reads))).detach().log_softmax(-1)
            most, best = temper(never_malformed(seen), temperature).max(1)
            chosen = torch.where(most < threshold, direct, best).numpy()
            right = int(correct[np.arange(len(correct)), chosen].sum())
            calls = float(np.mean([len(routes[i].tools) for i in chosen]))
            rows.append(
                {
                    "side": "router", "size": size, "seed": seed, "accuracy": right / len(correct),
                    "interval": wilson(right, len(correct)), "calls": calls, "layer": reads.layers[0],
                    "seconds": time.perf_counter() - began,
                }
            )  # fmt: skip
            say(f"router, {size} questions, seed {seed}: {100 * right / len(correct):.1f} %, {calls:.2f} tools")
    return rows


def grpo_rows(options: argparse.Namespace, sets: Sequence[Sequence[Question]]) -> Iterator[dict[str, Any]]:
    test = sets[1][: options.grpo_test or None]
    for size in (size for size in options.grpo_sizes if size <= len(sets[0])):
        for seed in range(options.grpo_seeds):
            folder = options.out / f"grpo-{size}-{seed}"
            done = folder / "accuracy.json"
            if not done.exists():
                began = time.perf_counter()
                members = [sets[0][i] for i in subset(len(sets[0]), size, seed)]
                train_reasoner(options, members, folder, seed)
                right = score_reasoner(options, test, folder)
                row = {
                    "side": "grpo", "size": size, "seed": seed, "accuracy": right / len(test),
                    "interval": wilson(right, len(test)), "seconds": time.perf_counter() - began,
                    "test_questions": len(test),
                }  # fmt: skip
                done.write_text(json.dumps(row))
            row = json.loads(done.read_text())
            told = f"{100 * row['accuracy']:.1f} %, {row['seconds']:.0f} s"
            say(f"grpo, {size} questions, seed {seed}: {told}")
            yield row


def train_reasoner(options: argparse.Namespace, members: Sequence[Question], folder: Path, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "questions.jsonl"
    write_rows(
        path,
        (
            {
                "id": one.id, "audio": str(Path(str(one.audio)).resolve()), "question": one.text,
                "choices": list(one.choices), "answer": one.answer,
            }
            for one in members
        ),
    )  # fmt: skip
    batch = min(options.grpo_batch, len(members))
    config = GrpoConfig(
        model=options.model,
        questions=str(path),
        reward="accuracy",
        batch_size=batch,
        update_size=batch,
        group_size=options.group_size,
        steps=max(options.grpo_steps, math.ceil(len(members) / batch)),
        max_tokens=options.max_tokens,
        lr=options.grpo_lr,
        kl=0.0,
        train_audio=False,
        seed=seed,
        tensorboard=False,
        save_every=1000,
    )
    train_grpo(config, folder / "run")


def score_reasoner(options: argparse.Namespace, test: Sequence[Question], folder: Path) -> int:
    family = load(folder / "run" / "checkpoint", "float32")
    sampling = sampling_of(RouterConfig(max_tokens=options.max_tokens))
    with NativeEngine(family) as engine:
        outcomes = measure_routes(
            engine, test, (DIRECT,), folder / "outcomes.jsonl", reasoner=weights_hash(family), sampling=sampling
        )
    return int(outcomes.as_arrays().correct.sum())


def curve(rows: Sequence[Mapping[str, Any]], side: str) -> dict[int, float]:
    """Mean accuracy over seeds, by size."""
    own = [row for row in rows if row["side"] == side]
    sizes = sorted({row["size"] for row in own})
    return {size: statistics.fmean(row["accuracy"] for row in own if row["size"] == size) for size in sizes}


def factors(rows: Sequence[Mapping[str, Any]], direct: float) -> list[dict[str, Any]]:
    """For each size at which the router is better than answering directly, which needs no question: the least size
    at which GRPO is as good, on a straight line in log size between measured ones, over it. None where it never is:
    then it is more than the largest size over this one."""
    router, grpo = curve(rows, "router"), curve(rows, "grpo")
    found = []
    for size, wanted in router.items():
        if wanted <= direct:
            continue
        needed = None
        points = sorted(grpo.items())
        for (a, low), (b, high) in pairwise(points):
            if low < wanted <= high:
                needed = 2 ** (math.log2(a) + (wanted - low) / (high - low) * math.log2(b / a))
                break
        if points and points[0][1] >= wanted:
            needed = float(points[0][0])
        found.append(
            {
                "router_questions": size,
                "accuracy": wanted,
                "grpo_questions": needed,
                "factor": needed / size if needed else None,
                "more_than": max(grpo) / size if grpo and not needed else None,
            }
        )
    return found


def show(found: Mapping[str, Any], page: Path) -> None:
    rows = found["rows"]
    print(f"test set: {found['test_questions']} questions; direct {100 * found['direct']:.1f} %, best single tool "
          f"{100 * found['best_single']:.1f} %, oracle {100 * found['oracle']:.1f} %")  # fmt: skip
    shown: list[list[str]] = []
    for side in ("router", "grpo"):
        for size, mean in curve(rows, side).items():
            each = [row["accuracy"] for row in rows if row["side"] == side and row["size"] == size]
            spread = f"{100 * min(each):.1f} to {100 * max(each):.1f}"
            print(f"{side:7} {size:5} questions: {100 * mean:5.1f} % (seeds: {spread}, {len(each)})")
            shown.append([f"{side}, {size}", f"{100 * mean:.1f} %", spread, str(len(each))])
    for one in found["factors"]:
        if one["factor"]:
            said = f"{one['factor']:.1f} times as many"
        elif one["more_than"]:
            said = f"more than {one['more_than']:.0f} times as many: not reached"
        else:
            continue
        print(f"router's {100 * one['accuracy']:.1f} % of {one['router_questions']} questions: GRPO needs {said}")
    if not found["factors"]:
        print("the router is at no size better than answering directly: there is no factor to tell")
    values = [row["accuracy"] for row in rows] + [found["direct"], found["oracle"]]
    sizes = [math.log2(row["size"]) for row in rows]
    y = Axis(max(0.0, min(values) - 0.03), min(1.0, max(values) + 0.03), "accuracy", lambda v: percent(round(v, 3)))
    x = Axis(min(sizes) - 0.2, max(sizes) + 0.2, "training questions", lambda v: f"{2**v:.0f}")
    lines = []
    for number, side in enumerate(("router", "grpo")):
        points = [(math.log2(size), mean) for size, mean in curve(rows, side).items()]
        lines.append(Line(number, points, title=side))
        for seed in sorted({row["seed"] for row in rows if row["side"] == side}):
            one = [(math.log2(r["size"]), r["accuracy"]) for r in rows if (r["side"], r["seed"]) == (side, seed)]
            lines.append(Line(number, one, dashed=True, title=f"{side}, seed {seed}"))
    for level, name in ((found["direct"], "direct"), (found["oracle"], "oracle")):
        lines.append(Line(4, [(x.low, level), (x.high, level)], dashed=True, title=name))
    chart = line_chart("accuracy against training questions", x, y, lines)
    part = section(
        "efficiency",
        "Accuracy against training questions",
        tag("figure", chart),
        table(["Side, questions", "Accuracy", "Seeds", "n"], shown, caption="Accuracy by number of questions"),
        lead="Blue: the router. Orange: GRPO on the reasoner itself. Thick: mean over seeds. Dotted: answering "
        "directly (below) and the oracle (above).",
    )
    write_page(page, "Data efficiency of routing", "Router against training the reasoner", [part])
    print(f"-> {page}")


if __name__ == "__main__":
    main()
