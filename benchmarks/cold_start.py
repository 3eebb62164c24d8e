"""What `relisten ask` costs from a cold start: seconds to import, seconds to an answer, and peak memory.

    python benchmarks/cold_start.py [--repeats 3] [--json] [--out FILE]

Each repeat is a fresh process that asks the shipped model about a 10 s clip; medians are told. The first does not
count: it reads from the disk what the others find in memory.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from _measuring import Figure, Run, arguments, noise

from relisten.audio import write_clip

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
    options = arguments(__doc__, model=None, repeats=3, threads=None).parse_args()
    run = Run(options)
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "clip.wav"
        write_clip(sound, noise(10.0))
        command = [sys.executable, "-c", _ASK, str(sound)]
        told = [subprocess.check_output(command, text=True) for _ in range(options.repeats + 1)]
    runs = [json.loads(output.splitlines()[-1]) for output in told[1:]]
    imported, answered, peak = (statistics.median(values) for values in zip(*runs, strict=True))
    run.finish(
        [
            Figure("to import", imported, "s"),
            Figure("an answer about a 10 s clip, model loaded for it", answered, "s"),
            Figure("memory at its peak", peak / 1e9, "GB"),
        ],
        runs=runs,
    )


if __name__ == "__main__":
    main()
