"""A worker process for fault tests: a run with a scripted engine, as slow as it is told.

    python scripted_run.py QUESTIONS OUT SECONDS [TORN]

Each answer takes SECONDS. With TORN the process kills itself in the middle of writing its TORN-th line.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from relisten.engines.scripted import ScriptedEngine
from relisten.evaluate.benchmarks.questions import Questions
from relisten.evaluate.run_folder import Evaluated, Settings, prepare
from relisten.evaluate.runner import work
from relisten.files import LineFile
from relisten.question import Question
from relisten.trace import Sampling


def respond(question: Question) -> str:
    """What a model might say, decided by the question alone; some answers are missing, some listen."""
    random_ = random.Random(question.id)
    tags = "".join(f"<seg>0.{random_.randint(0, 3)}, 0.{random_.randint(6, 9)}</seg> and " for _ in range(3))
    answer = random_.choice([*question.choices, ""])
    return f"<think>{tags if random_.random() < 0.5 else ''}so</think><answer>{answer}</answer>"


def main(questions: str, out: str, seconds: str, torn: str = "0") -> None:
    def slowly(question: Question) -> str:
        time.sleep(float(seconds))
        return respond(question)

    if int(torn):
        _die_in_line(int(torn))
    settings = Settings(sampling=Sampling(temperature=0.7, seed=0))
    run = prepare(Questions(), Path(out), Evaluated("scripted", "0" * 64), settings, data=Path(questions))
    work(run, ScriptedEngine(slowly), at_once=8)


def _die_in_line(number: int) -> None:
    count = 0
    append = LineFile.append

    def dying(self: LineFile, line: str) -> None:
        nonlocal count
        count += 1
        if count == number:
            append(self, line[: len(line) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, line)

    LineFile.append = dying  # type: ignore[method-assign]


if __name__ == "__main__":
    main(*sys.argv[1:])
