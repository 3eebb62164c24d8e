"""What a run was made with: model, versions, code, machine."""

from __future__ import annotations

import hashlib
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from relisten.errors import InputError

if TYPE_CHECKING:
    from relisten.tools.tool import Tool

_PACKAGES: Final = ("relisten", "torch", "transformers", "tokenizers", "safetensors", "numpy", "soxr", "vllm")
_FILES: Final = (
    "*.safetensors",
    "config.json",
    "preprocessor_config.json",
    "tokenizer*.json",
    "vocab.json",
    "merges.txt",
)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def model_hash(folder: Path) -> str:
    """SHA-256 (hex) over the names and contents of weights, configuration and tokenizer in a checkpoint folder.

    Raises:
        InputError: there are no weights, or a file cannot be read.
    """
    files = sorted({path for pattern in _FILES for path in folder.glob(pattern)})
    if not any(path.suffix == ".safetensors" for path in files):
        raise InputError(f"{folder}: holds no .safetensors weights; give a checkpoint folder")
    total = hashlib.sha256()
    for path in files:
        total.update(f"{path.name}\0{_content_hash(path)}\0".encode())
    return total.hexdigest()


def _content_hash(path: Path) -> str:
    # The hub's cache names large files by their SHA-256: no need to read 15 GB for it.
    target = path.resolve().name
    if path.is_symlink() and _SHA256.fullmatch(target):
        return target
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the checkpoint") from None


def router_name(policy: Path | None, route: str | None) -> str:
    """What a run's config says of its router: a policy by a hash over its files, or a route; and of each tool the
    version, and what the environment makes it use. "" for neither.

    Raises:
        InputError: the folder holds no policy, the name is no route's, or a tool cannot use its environment.
    """
    from relisten.router.policy import find_policy, read_about
    from relisten.router.routes import Route
    from relisten.tools.tool import all_tools

    if policy is not None:
        folder = find_policy(policy)
        routes = read_about(folder)["routes"]
        total = hashlib.sha256()
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            total.update(f"{path.relative_to(folder).as_posix()}\0{_content_hash(path)}\0".encode())
        name = f"policy {total.hexdigest()}"
    elif route is not None:
        routes = (Route.parse(route),)
        name = f"route {routes[0].name}"
    else:
        return ""
    tools = all_tools()
    used = sorted({tool for one in routes for tool in one.tools})
    known = [_tool_name(tools[tool]) if tool in tools else f"no {tool}" for tool in used]
    return ", ".join([name, *known])


def _tool_name(tool: Tool[..., Any]) -> str:
    surroundings = (f"{name} {value}" for name, value in tool.surroundings.items())
    return " ".join([tool.name, str(tool.version), *surroundings])


def versions() -> dict[str, str]:
    """Versions of everything that may change an answer, as far as it is installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any] | None:
    """Commit of this package's source and whether it was changed since; None where it is no git checkout."""
    folder = Path(__file__).parents[1]
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain", "--", "."))}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
