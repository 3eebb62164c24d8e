"""What `relisten ask` costs from a cold start: seconds to import, seconds to an answer, and peak memory.

    python benchmarks/cold_start.py [--repeats 3] [--json]

Each repeat is a fresh process that asks the shipped model about a 10 s clip; medians are printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from relisten.audio import SAMPLE_RATE, Clip, write_clip

_ASK = """
import contextlib, io, json, resource, sys, time
began = time.perf_counter()
from relisten.cli import main
import relisten.engines.native, relisten.models.qwen2_5_omni
imported = time.perf_counter()
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(["ask", sys.argv[1], "How many snare hits between 2 and 5 seconds?", "--choices", "2", "3", "4", "--json"])
answered = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps([imported - began, answered - imported, peak]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "clip.wav"
        samples = np.random.default_rng(0).normal(0, 0.1, 10 * SAMPLE_RATE).astype(np.float32)
        write_clip(sound, Clip.from_samples(samples))
        runs = [
            json.loads(
                subprocess.check_output([sys.executable, "-c", _ASK, str(sound)], text=True).splitlines()[-1]
            )
            for _ in range(options.repeats)
        ]
    imported, answered, peak = (statistics.median(values) for values in zip(*runs, strict=True))
    result = {"import_seconds": imported, "answer_seconds": answered, "peak_bytes": peak}
    if options.json:
        print(json.dumps(result))
    else:
        print(
            f"import {imported:.1f} s, then an answer on a 10 s clip in {answered:.2f} s; peak {peak / 1e9:.2f} GB"
        )


if __name__ == "__main__":
    main()
