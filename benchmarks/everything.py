"""Run the benchmarks one after the other, and write the tables of docs/benchmarks.md from what they found.

    python benchmarks/everything.py [--only NAME ...] [--results benchmarks/results]

On a machine that does nothing else; about half an hour on two cores, of which the soak takes ten minutes. One that
fails is told at the end and stops no other.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

BENCHMARKS = {
    "front_end": [],
    "listen": [],
    "phases": [],
    "steps": [],
    "dtypes": [],
    "evaluate": [],
    "rollouts": [],
    "memory": [],
    "growth": [],
    "chunks": [],
    "latency": [],
    "soak": ["--minutes", "10"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=tuple(BENCHMARKS), default=tuple(BENCHMARKS))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    here, failed = Path(__file__).parent, []
    for name in options.only:
        print(f"{name} ...", flush=True)
        out = ["--out", str(options.results / f"{name}.json")]
        if subprocess.run([sys.executable, str(here / f"{name}.py"), *BENCHMARKS[name], *out]).returncode:
            failed.append(name)
    subprocess.run([sys.executable, str(here / "table.py"), "--results", str(options.results)], check=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
