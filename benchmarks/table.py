"""The tables of docs/benchmarks.md, from the files that benchmarks wrote with `--out`.

    python benchmarks/table.py [--results benchmarks/results] [--page docs/benchmarks.md]

Everything between the page's two marks is replaced; what stands around them is kept. Nothing is measured here.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from _measuring import Figure

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def table(result: dict[str, Any]) -> list[str]:
    machine = result["machine"]
    lines = [f"### {result['benchmark']}", "", f"`{result['command']}`", ""]
    processors = f"{machine['processors']} x {machine['processor']}"
    where = [processors, f"{machine['threads']} PyTorch threads", f"load {machine['load']} at the start"]
    where += [machine["gpu"]] if "gpu" in machine else []
    where += [f"torch {machine['versions'].get('torch', '?')}"]
    where += [f"commit {machine['git']['commit'][:7]}"] if machine.get("git") else []
    lines += [", ".join(where) + ".", ""]
    lines += ["| what | measured | goal |", "|---|---|---|"]
    for row in result["figures"]:
        figure = Figure(**row)
        lines.append(f"| {figure.what.strip()} | {figure.told()} | {figure.goal} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks.md"))
    options = parser.parse_args()
    results = [json.loads(path.read_text()) for path in sorted(options.results.glob("*.json"))]
    before, rest = options.page.read_text().split(BEGIN)
    _, after = rest.split(END)
    lines = [line for result in results if "figures" in result for line in table(result)]
    options.page.write_text(before + "\n".join([BEGIN, "", *lines, END]) + after)
    print(f"{options.page}: {len(results)} benchmarks")


if __name__ == "__main__":
    main()
