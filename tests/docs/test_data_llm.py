"""Every command of the worked example in docs/data-llm.md runs, in order, as printed."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
_KILLED = (137, -9)  # as a shell tells it, or as the command in its place does


def commands() -> list[str]:
    text = (ROOT / "docs" / "data-llm.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [part.strip() for block in blocks for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 0.1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(f"nobody listens on {port}")


def test_the_worked_example_runs(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    port = free_port()
    paths = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": paths, "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"}
    servers: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands():
            shown = command
            command = command.replace("8900", str(port)).replace("--seconds 0.2", "--seconds 0.02")
            if command.endswith("&"):
                arguments = command.removesuffix("&").split()
                servers.append(
                    subprocess.Popen(arguments, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
                )
                wait_for(port)
                continue
            done = subprocess.run(
                ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900,
                check=False,
            )  # fmt: skip
            expected = (0, *_KILLED) if "-s KILL" in shown else (0,)
            assert done.returncode in expected, f"{shown}\n{done.stdout}\n{done.stderr}"
    finally:
        for server in servers:
            server.kill()
            server.wait()
    for name in ("eaqa/sft.jsonl", "eaqa/rl.jsonl", "export/sft/train.jsonl", "export/rl/train.parquet"):
        assert (tmp_path / name).stat().st_size > 0, name
