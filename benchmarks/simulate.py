"""How fast scenes are simulated and questions are made.

python benchmarks/simulate.py --processes 2 --clips 600 [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import time

import numpy as np

# One thread a process: the processes are what runs side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from relisten.data.questions import make_examples
from relisten.data.scenes import SceneSpec, make_scene, simulate_many


def main() -> None:
    parser = argparse.ArgumentParser(description="Clips a minute and questions a second.")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--clips", type=int, default=600)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each clip")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    spec = SceneSpec(duration=(options.seconds, options.seconds), long_share=0.0)

    stream = simulate_many("train", 0, 0, options.clips + 1, spec, processes=options.processes)
    kept = [next(stream)]  # the first one waits for the processes to start
    begun = time.perf_counter()
    for scene in stream:
        kept = [*kept[-199:], scene]
    clips = options.clips / (time.perf_counter() - begun)

    alone = min(100, options.clips)
    begun = time.perf_counter()
    for index in range(alone):
        make_scene("train", 0, index, spec)
    single = alone / (time.perf_counter() - begun)

    rng = np.random.default_rng(0)
    begun = time.perf_counter()
    made = sum(len(make_examples(scene, rng)) for scene in kept)
    questions = made / (time.perf_counter() - begun)

    result = {
        "processes": options.processes,
        "clip_seconds": options.seconds,
        "clips_per_minute": round(60 * clips),
        "clips_per_second_one_process": round(single, 1),
        "questions_per_second_one_process": round(questions),
    }
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name.replace('_', ' '):34} {value}")


if __name__ == "__main__":
    main()
