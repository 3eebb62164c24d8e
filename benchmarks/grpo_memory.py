"""Peak memory of one step of reinforcement learning, over the tokens it computes.

    python benchmarks/grpo_memory.py [--model MODEL] [--batch 16] [--json]

Every row is a process of its own that makes one step and tells the highest resident memory it ever had
(`ru_maxrss`). Rows differ in the length of clips at 8 answers a question, then in the number of answers at clips of
one length. Tokens are those of a step: a question's prompt with its sound once, and what each answer wrote and
heard. "features" is what mel features of every clip and crop take at true length, a question's once; "padded" is
what they take for every answer at 300 s a sound, as the stock processor gives them to Echo's released loop.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

GROUP = 8
SECONDS = 8.0
CLIPS = (2.0, 4.0, 8.0, 16.0, 29.0)
GROUPS = (2, 4, 16)
PADDED_SECONDS = 300
BYTES = 4


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One step in this process."""
    import torch

    from relisten.audio import SAMPLE_RATE, write_clip
    from relisten.data.questions import make_examples
    from relisten.data.scenes import SceneSpec, make_scene
    from relisten.models import load
    from relisten.trace import ListenSpan, PromptSpan, Trace
    from relisten.train.grpo.config import GrpoConfig
    from relisten.train.grpo.trainer import train_grpo

    torch.set_num_threads(1)
    spec = replace(SceneSpec(), duration=(options.seconds, options.seconds), long_share=0.0)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        rows: list[dict[str, Any]] = []
        for index in range(20 * options.batch):
            scene = make_scene("validation", 0, index, spec)
            if len(rows) < options.batch and (found := make_examples(scene, rng, per_scene=1)):
                write_clip(Path(folder) / f"{index}.flac", scene.clip)
                asked = found[0].question
                rows.append({"id": str(index), "audio": f"{index}.flac", "question": asked.text,
                             "choices": list(asked.choices), "answer": asked.answer})  # fmt: skip
        (Path(folder) / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = GrpoConfig(
            options.model, f"{folder}/questions.jsonl", batch_size=options.batch, group_size=options.group,
            update_size=options.batch, steps=1, max_tokens=256, train_audio=options.train_audio, record="full",
            tensorboard=False, device="cpu", threads=1, max_rows=options.batch * options.group,
            pass_tokens=options.pass_tokens,
        )  # fmt: skip
        train_grpo(config, Path(folder) / "run")
        told = (Path(folder) / "run" / "rollouts" / "step-000001.jsonl").read_text().splitlines()
        traces = [Trace.from_json(json.loads(line)) for line in told]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    mel = load(options.model).mel  # behind the figure, which it must not change
    prompts = {trace.id: sum(len(s.ids) for s in trace.spans if isinstance(s, PromptSpan)) for trace in traces}
    written = sum(len(s.ids) for trace in traces for s in trace.spans if not isinstance(s, PromptSpan))
    crops = [s.segment.duration for trace in traces for s in trace.spans if isinstance(s, ListenSpan)]
    frames = sum(mel.num_frames(int(SAMPLE_RATE * seconds)) for seconds in (*crops, *[options.seconds] * len(rows)))
    padded = mel.num_frames(PADDED_SECONDS * SAMPLE_RATE) * (len(traces) + len(crops))
    return {
        "seconds": options.seconds,
        "group": options.group,
        "answers": len(traces),
        "listens": len(crops),
        "tokens": sum(prompts.values()) + written,
        "features_megabytes": round(frames * mel.n_mels * BYTES / 2**20, 1),
        "padded_megabytes": round(padded * mel.n_mels * BYTES / 2**20),
        "peak_megabytes": round(peak),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="echo-tiny")
    parser.add_argument("--batch", type=int, default=16, help="questions of a step")
    parser.add_argument("--train-audio", action="store_true", help="train the audio tower, too")
    parser.add_argument(
        "--pass-tokens", type=int, default=16384, help="positions that the trainer computes at once"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)  # one row, in this process
    parser.add_argument("--group", type=int, default=GROUP, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.seconds is not None:
        print(json.dumps(measure(options)))
        return
    found = []
    head = (
        "seconds",
        "group",
        "answers",
        "listens",
        "tokens",
        "features_megabytes",
        "padded_megabytes",
        "peak_megabytes",
    )
    if not options.json:
        print("".join(f"{name.removesuffix('_megabytes'):>10}" for name in head), "  (the last three in MB)")
    for seconds, group in [*((s, GROUP) for s in CLIPS), *((SECONDS, g) for g in GROUPS)]:
        command = [sys.executable, __file__, "--seconds", str(seconds), "--group", str(group), *sys.argv[1:]]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        if not options.json:
            print("".join(f"{found[-1][name]:>10,}" for name in head), flush=True)
    tokens = np.array([row["tokens"] for row in found], dtype=float)
    peaks = np.array([row["peak_megabytes"] for row in found], dtype=float)
    slope, floor = np.polyfit(tokens, peaks, 1)
    fit = {
        "megabytes_per_1000_tokens": round(1000 * slope, 1),
        "megabytes_without_tokens": round(floor),
        "correlation": round(float(np.corrcoef(tokens, peaks)[0, 1]), 3),
    }
    if options.json:
        print(json.dumps({"command": " ".join(sys.argv), "rows": found, "fit": fit}, indent=1))
    else:
        print(f"peak = {fit['megabytes_without_tokens']:,} MB + {fit['megabytes_per_1000_tokens']:,} MB for every "
              f"1,000 tokens; correlation {fit['correlation']}")  # fmt: skip


if __name__ == "__main__":
    main()
