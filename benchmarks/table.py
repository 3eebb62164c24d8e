"""The tables of docs/benchmarks.md, from the files that benchmarks wrote with `--out`.

    python benchmarks/table.py [--results benchmarks/results] [--page docs/benchmarks.md]

Everything between the page's two marks is replaced; what stands around them is kept. Nothing is measured here.
"""

from __future__ import annotations

import argparse
import json
from itertools import chain
from pathlib import Path
from typing import Any

from _measuring import Figure

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def table(name: str, result: dict[str, Any]) -> list[str]:
    machine, git = result["machine"], result["machine"].get("git")
    lines = [f"### {name}", "", f"`{result['command']}`", ""]
    instructions = f" ({' '.join(machine['instructions'])})" if machine.get("instructions") else ""
    where = [f"{machine['processors']} x {machine['processor']}{instructions}"]
    where += [*_threads(machine["threads"]), f"load {machine['load']} at the start"]
    where += [machine["gpu"]] if "gpu" in machine else []
    where += [f"torch {machine['versions'].get('torch', '?')}"]
    where += [f"commit {git['commit'][:7]}" + (" with changes" if git["changed"] else "")] if git else []
    lines += [", ".join(where) + ".", ""]
    lines += ["| what | measured | goal |", "|---|---|---|"]
    for row in result["figures"]:
        figure = Figure(**row)
        lines.append(f"| {figure.what.strip()} | {figure.told()} | {figure.goal} |")
    return [*lines, ""]


def _threads(number: int | list[int] | None) -> list[str]:
    if isinstance(number, list):
        return [f"{' or '.join(map(str, number))} PyTorch threads, whichever is faster"]
    return [] if number is None else [f"{number} PyTorch threads"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks.md"))
    options = parser.parse_args()
    results = {path.stem: json.loads(path.read_text()) for path in sorted(options.results.glob("*.json"))}
    tables = [table(name, result) for name, result in results.items() if "figures" in result]
    before, rest = options.page.read_text().split(BEGIN)
    _, after = rest.split(END)
    options.page.write_text(before + "\n".join([BEGIN, "", *chain.from_iterable(tables), END]) + after)
    print(f"{options.page}: {len(tables)} benchmarks")


if __name__ == "__main__":
    main()
