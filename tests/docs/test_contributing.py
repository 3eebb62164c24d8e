"""The house is as CONTRIBUTING.md draws it: every room is on the plan, and imports run downward."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "relisten"
FACE = "listener"
"""Stands outside the order: loads what it is asked for."""


def plan() -> list[str]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawn = text.partition("    src/relisten/\n")[2].partition("    tests/")[0]
    return re.findall(r"^ {6}(\w+)(?:\.py|/)", drawn, re.MULTILINE)


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def test_every_room_is_on_the_plan() -> None:
    rooms = {room(path) for path in SOURCE.rglob("*.py")} - {"__init__", "__main__"}
    assert set(plan()) == rooms


def test_imports_run_downward() -> None:
    order = {name: number for number, name in enumerate(plan())}
    upward = []
    for path in sorted(SOURCE.rglob("*.py")):
        own = room(path)
        if own in ("__init__", "__main__", FACE):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "relisten":
                names = [node.module.split(".")[1]] if "." in node.module else [each.name for each in node.names]
                upward += [f"{path.relative_to(ROOT)}: {name}" for name in names if order.get(name, 0) > order[own]]
    assert upward == []


def test_no_two_test_files_have_one_name() -> None:
    """pytest would collect one of them alone."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
