"""What a run would take, printed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from relisten.errors import InputError

if TYPE_CHECKING:
    from relisten.train.sizes import DryRun


def positive(processes: int) -> int:
    """The number itself; raises InputError for one below 1."""
    if processes < 1:
        raise InputError(f"--processes {processes}: it must be 1 or more")
    return processes


def print_sizes(found: DryRun, as_json: bool) -> None:
    """Parameters, memory of each process, and the work; as JSON where that is wanted."""
    if as_json:
        print(json.dumps(found.to_json()))
        return
    about = "" if found.exact else " (not at hand: sizes of the published model, lengths from the size of texts)"
    print(f"{found.model}{about}")
    print("parameters")
    for name, number in found.parameters.items():
        print(f"  {name:<30}{number / 1e6:>12,.1f} M")
    print(f"memory of a process, of {found.processes}, estimated")
    for name, size in {**found.memory, "total": sum(found.memory.values())}.items():
        print(f"  {name:<30}{size / 2**30:>12,.2f} GiB")
    if found.data is None:
        print("no data: steps and tokens are not known")
        return
    print("data")
    for name, value in found.data.items():
        whole = value >= 100 or value == int(value)
        print(f"  {name:<30}{value:>12,.0f}" if whole else f"  {name:<30}{value:>12,.1f}")
