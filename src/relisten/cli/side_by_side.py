"""Further processes that run the same command, for work that any number of processes may share."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import typer

from relisten.errors import RelistenError
from relisten.processes import end_with_parent, usable_processors

_GRACE: Final = 5.0


@contextmanager
def side_by_side(
    command: Callable[..., None], parameters: Sequence[Mapping[str, Any]], logs: Path
) -> Iterator[None]:
    """Run `command` in a new process for each of `parameters` while the body goes on, and wait for them.

    All of them and this process divide the processors; GPUs are the caller's to divide. What they print is in
    `logs/process-2.log` and on. One that fails is told on standard error and stops nobody. All end when the body
    raises, and when this process ends; those that go on for seconds after the body, perhaps still loading a model
    that is not needed any more, are ended.
    """
    if not parameters:
        yield
        return
    import torch

    threads = torch.get_num_threads()
    share = max(1, usable_processors() // (len(parameters) + 1))
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit the locks of torch's threads
    processes = []
    try:
        for number, given in enumerate(parameters, 2):
            log = logs / f"process-{number}.log"
            process = spawn.Process(target=_run, args=(command, given, log, share))
            process.start()
            processes.append((process, log))
        torch.set_num_threads(share)
        yield
        for process, log in processes:
            process.join(_GRACE)
            if process.exitcode:
                print(f"{log.stem} failed, others did its work; what it printed: {log}", file=sys.stderr)
    finally:
        for process, _ in processes:
            process.terminate()
        torch.set_num_threads(threads)


def _run(command: Callable[..., None], parameters: Mapping[str, Any], log: Path, threads: int) -> None:
    end_with_parent()
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(written, stream.fileno())
    import torch

    torch.set_num_threads(threads)
    try:
        command(**parameters)
    except RelistenError as error:
        print(f"relisten: {error}", file=sys.stderr)
        sys.exit(1)
    except typer.Exit:  # as the first process will say
        pass
    except KeyboardInterrupt:
        sys.exit(1)
