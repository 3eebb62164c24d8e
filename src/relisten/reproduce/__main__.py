"""One job in this process: `python -m relisten.reproduce OUT JOB PROCESSES`; `runner` starts these."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from relisten.errors import InputError
from relisten.processes import end_with_parent
from relisten.reproduce.jobs import list_jobs
from relisten.reproduce.plan import Plan


def main(arguments: list[str]) -> None:
    folder, name, processes = Path(arguments[0]), arguments[1], int(arguments[2])
    end_with_parent()
    plan = Plan.from_json(json.loads((folder / "plan.json").read_text(encoding="utf-8")))
    job = next((job for job in list_jobs(plan) if job.name == name), None)
    if job is None:
        raise InputError(f"{name}: {folder} has no such job")
    job.run(folder, processes)
    (folder / "done").mkdir(exist_ok=True)
    (folder / "done" / name).touch()


if __name__ == "__main__":
    main(sys.argv[1:])
