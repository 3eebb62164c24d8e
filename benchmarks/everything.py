"""Run the benchmarks one after the other, and write the tables of docs/benchmarks.md from what they found.

    python benchmarks/everything.py [--only NAME ...] [--gpu] [--results benchmarks/results]

On a machine that does nothing else; about 45 minutes on two cores, of which the soak takes ten. `--gpu` runs those
for a GPU with 20 GB to spare instead. One that fails is told at the end and stops no other.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

BENCHMARKS = {
    "front_end": ["front_end"],
    "listen": ["listen"],
    "phases": ["phases"],
    "steps": ["steps"],
    "dtypes": ["dtypes"],
    "evaluate": ["evaluate"],
    "rollouts": ["rollouts"],
    "memory": ["memory"],
    "growth": ["growth"],
    "chunks": ["chunks"],
    "latency": ["latency"],
    "cold_start": ["cold_start"],
    "soak": ["soak", "--minutes", "10"],
}
GPU = {
    "gpu-latency": ["latency", "--shape", "7b", "--device", "cuda"],
    "gpu-latency-no-graphs": ["latency", "--shape", "7b", "--device", "cuda", "--no-graphs"],
}
"""The file a result is written to, and the script that writes it with its options."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=(*BENCHMARKS, *GPU))
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    here, failed = Path(__file__).parent, []
    for name in options.only or (GPU if options.gpu else BENCHMARKS):
        print(f"{name} ...", flush=True)
        script, *given = (BENCHMARKS | GPU)[name]
        out = ["--out", str(options.results / f"{name}.json")]
        if subprocess.run([sys.executable, str(here / f"{script}.py"), *given, *out]).returncode:
            failed.append(name)
    subprocess.run([sys.executable, str(here / "table.py"), "--results", str(options.results)], check=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
