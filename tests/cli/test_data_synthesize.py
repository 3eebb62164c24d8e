"""`relisten data synthesize` and `judge` as a user runs them, killed and resumed, against a real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.cli import data
from support.labelled_set import make_set
from support.llm_server import LlmServer, status

SECRET = "sk-not-to-be-seen-42424242"
FILES = ("sft.jsonl", "rl.jsonl", "discarded.jsonl", "failed.jsonl", "captions.jsonl")


def command(*arguments: object, key: str = SECRET) -> tuple[list[str], dict[str, str]]:
    run = [sys.executable, "-c", "from relisten.cli import main; main()", "data", *map(str, arguments)]
    return run, {**os.environ, "LLM_KEY": key, "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"}


def relisten(*arguments: object, key: str = SECRET) -> subprocess.CompletedProcess[str]:
    run, environment = command(*arguments, key=key)
    return subprocess.run(run, env=environment, capture_output=True, text=True, timeout=900, check=False)


def models(server: LlmServer) -> list[object]:
    return [
        *("--captioner", server.url, "ears", "--captioner-key-env", "LLM_KEY", "--captioner-price", 1, 2),
        *("--writer", server.url, "pen", "--writer-key-env", "LLM_KEY", "--writer-price", 1, 2),
    ]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return make_set(tmp_path, 24)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_killed_again_and_again_nothing_is_lost_or_paid_twice(manifest: Path, tmp_path: Path) -> None:
    with LlmServer(careless=0.4) as server:
        whole = relisten("synthesize", manifest, "--out", tmp_path / "whole", *models(server), "--json")
    assert whole.returncode == 0, whole.stderr
    expected = json.loads(whole.stdout)
    concurrency = 3

    with LlmServer(careless=0.4, seconds=0.05, idempotent=True) as server:
        out = tmp_path / "killed"
        arguments = ["synthesize", manifest, "--out", out, *models(server), "--concurrency", concurrency, "--json"]
        kills = 0
        for goal in (5, 31, 80):
            run, environment = command(*arguments)
            process = subprocess.Popen(run, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            deadline = time.monotonic() + 600
            while len(server.seen) < goal and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += process.returncode == -signal.SIGKILL
        assert kills == 3
        last = relisten(*arguments)
        assert last.returncode == 0, last.stderr
        asked = Counter(seen.idempotency_key for seen in server.seen)
        before = len(server.seen)
        repeat = relisten(*arguments)
        assert len(server.seen) == before

    assert max(server.billed.values()) == 1
    # Only what was on its way at a kill is asked for again: for each of two models, as many as run at once.
    assert sum(asked.values()) - len(asked) <= kills * 2 * concurrency
    assert len(asked) == expected["replies_paid"]
    for name in FILES:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    summary = json.loads(repeat.stdout)
    assert summary["replies_paid"] == summary["spent"] == 0
    assert summary["spent_in_all"] == pytest.approx(expected["spent_in_all"])
    assert {name: summary[name] for name in ("sft", "rl", "discarded", "failed")} == {
        name: expected[name] for name in ("sft", "rl", "discarded", "failed")
    }
    assert expected["sft"] > expected["rl"] > 0
    assert expected["discarded_by_reason"]["structure"] > 0


def test_an_interrupt_takes_what_is_under_way_and_ends(manifest: Path, tmp_path: Path) -> None:
    with LlmServer(seconds=0.2) as server:
        run, environment = command("synthesize", manifest, "--out", tmp_path / "out", *models(server), "--json")
        process = subprocess.Popen(run, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while len(server.seen) < 20 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=600)
        paid = sum(server.billed.values())
    assert process.returncode == 1, errors
    assert json.loads(output)["stopped"] == "stopped by hand"
    assert json.loads(output)["replies_paid"] == paid
    assert "go on" in errors


def test_keys_are_sent_and_left_nowhere(manifest: Path, tmp_path: Path) -> None:
    with LlmServer(lambda number, body: status(500, f"leaks {SECRET}") if number % 5 == 1 else None) as server:
        done = relisten("synthesize", manifest, "--out", tmp_path / "out", *models(server), "--limit", 4)
        assert {seen.authorization for seen in server.seen} == {f"Bearer {SECRET}"}
    assert done.returncode == 0, done.stderr
    with LlmServer(lambda number, body: status(401, f"bad key {SECRET}")) as server:
        refused = relisten("synthesize", manifest, "--out", tmp_path / "out2", *models(server), "--debug")
    assert refused.returncode == 1
    assert "access denied" in refused.stderr
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for text in (done.stdout, done.stderr, refused.stdout, refused.stderr):
        assert SECRET not in text
    assert all(SECRET.encode() not in content for content in written)


def test_a_dry_run_sends_nothing_and_learns_from_what_was_paid(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with LlmServer() as server:
        before = relisten("synthesize", manifest, "--out", out, *models(server), "--dry-run", "--json")
        assert not server.seen
        assert not out.exists()
        relisten("synthesize", manifest, "--out", out, *models(server), "--limit", 12)
        after = relisten("synthesize", manifest, "--out", out, *models(server), "--dry-run", "--json")
        left = relisten("synthesize", manifest, "--out", out, *models(server), "--json")
    first, second, paid = (json.loads(done.stdout) for done in (before, after, left))
    assert first["steps"]["caption"]["requests"] == 24
    assert first["steps"]["judge"]["requests"] == 72
    assert second["steps"]["caption"]["requests"] == 12
    assert first["cost"] > second["cost"] > 0
    assert second["cost"] == pytest.approx(paid["spent"], rel=0.25)


def test_a_budget_that_is_too_small(manifest: Path, tmp_path: Path) -> None:
    with LlmServer() as server:
        arguments = ["synthesize", manifest, "--out", tmp_path / "out", *models(server), "--concurrency", 1]
        done = relisten(*arguments, "--budget", 0.05)
    assert done.returncode == 1
    assert "budget of $0.05 reached" in done.stderr


def test_endpoints_from_a_file(manifest: Path, tmp_path: Path) -> None:
    with LlmServer() as server:
        file = tmp_path / "endpoints.toml"
        table = f'url = "{server.url}"\nmodel = "m"\nkey_env = "LLM_KEY"\noutput = "text"\nconcurrency = 2\n'
        file.write_text(f"[captioner]\n{table}[writer]\n{table}temperature = 0.6\nextra = {{ top_p = 0.9 }}\n")
        done = relisten("synthesize", manifest, "--out", tmp_path / "out", "--endpoints", file, "--limit", 2)
        assert done.returncode == 0, done.stderr
        assert server.seen[-1].body["temperature"] == 0.6
        assert server.seen[-1].body["top_p"] == 0.9
        assert "response_format" not in server.seen[-1].body
        other = relisten("synthesize", manifest, "--out", tmp_path / "o", "--endpoints", file, "--limit", 1,
                         "--writer", server.url, "elsewhere")  # fmt: skip
        assert other.returncode == 0, other.stderr
        assert {seen.authorization for seen in server.seen if seen.body["model"] == "elsewhere"} == {""}


def test_judging_a_file_again(manifest: Path, tmp_path: Path) -> None:
    with LlmServer(careless=0.4) as server:
        relisten("synthesize", manifest, "--out", tmp_path / "out", *models(server))
        made = rows(tmp_path / "out" / "sft.jsonl")
        made[0]["answer"] = next(choice for choice in made[0]["choices"] if choice != made[0]["answer"])
        made[1]["metadata"] = {"clip": "nobody"}
        made[2]["response"] = ""
        file = tmp_path / "out" / "examples.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in [*made[:6], "broken"]))
        done = relisten("judge", file, "--manifest", manifest, "--captions", tmp_path / "out" / "captions.jsonl",
                        "--judge", server.url, "pen", "--out", tmp_path / "again", "--json")  # fmt: skip
    summary = json.loads(done.stdout)
    assert done.returncode == 1
    assert (summary["sft"], summary["rl"], summary["discarded"], summary["failed"]) == (3, 1, 1, 2)
    errors = " ".join(row["error"] for row in rows(tmp_path / "again" / "failed.jsonl"))
    assert "nobody" in errors
    assert "examples.jsonl:7" in errors


def test_a_run_does_not_write_over_what_it_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, folder, model = tmp_path / "sft.jsonl", tmp_path, ("http://h/v1", "m")
    rows.write_text("kept\n")
    for arguments in (
        ("synthesize", rows, "--captioner", *model, "--writer", *model),
        ("judge", rows, "--manifest", tmp_path / "m.jsonl", "--judge", *model),
    ):
        code, _, told = data(capsys, *arguments, "--out", folder)
        assert (code, told) == (2, f"relisten: {rows}: is the input; give another file\n")
    assert rows.read_text() == "kept\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no captioner: name it with --captioner URL MODEL"),
        (["--captioner", "localhost:8000", "m"], "give a URL such as http://"),
        (["--captioner", "http://u:pw@host/v1", "m"], "leave user, password and query out"),
        (["--captioner", "http://host/v1?key=abc", "m"], "leave user, password and query out"),
        (["--per-clip", "0"], "at least 1 question"),
        (["--limit", "-1"], "limit -1: it must be at least 1"),
        (["--budget", "0"], "dollars above 0"),
        (["--endpoints", "missing.toml"], "cannot be read"),
        (["--captioner", "http://h/v1", "m", "--writer", "http://h/v1", "m", "--budget", "1"], "needs prices"),
        (["--captioner", "http://h/v1", "m", "--writer", "http://h/v1", "m", "--captioner-key-env", "NO_SUCH"],
         "NO_SUCH is not set"),
        (["--captioner", "http://h/v1", "m", "--writer", "http://h/v1", "m", "--rpm", "0"], "must be above 0"),
    ],
)  # fmt: skip
def test_bad_options(
    manifest: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from relisten.cli import main

    with pytest.raises(SystemExit) as status:
        main(["data", "synthesize", str(manifest), "--out", str(tmp_path / "out"), *arguments])
    error = capsys.readouterr().err
    assert status.value.code == 2
    assert message in error
    assert "pw" not in error
    assert "abc" not in error
