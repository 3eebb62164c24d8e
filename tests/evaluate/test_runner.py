"""Runs: what they keep, what they refuse, what they survive."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.questions import write_questions, write_rows
from support.scripted_run import respond

from relisten import files
from relisten.engines.drive import question_seed
from relisten.engines.scripted import ScriptedEngine, ScriptedStream
from relisten.errors import EngineError, InputError
from relisten.evaluate import claims, runner
from relisten.evaluate.benchmarks.questions import Questions
from relisten.evaluate.claims import Claims, Liveness, Worker
from relisten.evaluate.results import read_run
from relisten.evaluate.run_folder import Evaluated, Progress, RunFolder, Settings, prepare
from relisten.evaluate.runner import work
from relisten.evaluate.scoring import Outcome
from relisten.evaluate.summary import summarize_run, write_summary
from relisten.question import Question
from relisten.trace import Sampling

SUBJECT = Evaluated("scripted", "0" * 64)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_questions(tmp_path / "data", 30)


def make(data: Path, out: Path, settings: Settings | None = None, **changes: str) -> RunFolder:
    return prepare(Questions(), out, replace(SUBJECT, **changes), settings, data=data)


def right(question: Question) -> str:
    return f"<think>so</think><answer>{question.answer}</answer>"


def test_a_run_from_end_to_end(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "a"
    seen: list[Progress] = []
    work(make(data, out), ScriptedEngine(right), on_progress=seen.append, about={"device": "none"})
    assert (seen[0].finished, seen[-1].finished, seen[-1].total) == (0, 30, 30)
    run = read_run(out)
    assert [row.id for row in run.rows] == [f"q{number}" for number in range(30)]
    assert all(row.outcome() is Outcome.RIGHT for row in run.rows)
    assert run.config.breakdowns == ("group",)
    assert run.workers[0]["versions"]["relisten"]
    assert run.workers[0]["device"] == "none"
    assert not (out / "claims").exists()
    summary = summarize_run(run)
    assert summary.main.overall.accuracy == 1
    assert json.loads(json.dumps(summary.to_json()))["scores"]["strict"]["total"] == 30


def test_the_engine_says_how_many_are_open(tmp_path: Path) -> None:
    class Small(ScriptedEngine):
        max_rows = 5
        most = 0

        def open(self, *given: Any) -> ScriptedStream:
            stream = super().open(*given)
            self.most = max(self.most, len(self._streams))
            return stream

    engine = Small(lambda question: "." * 800 + right(question))
    data = write_questions(tmp_path / "data", 60)
    work(make(data, tmp_path / "a"), engine)
    assert engine.most == 37
    work(make(data, tmp_path / "b"), engine := Small(right), at_once=3)
    assert engine.most == 3


def test_a_finished_run_asks_nothing(data: Path, tmp_path: Path) -> None:
    work(make(data, tmp_path / "a"), ScriptedEngine(right))
    again = make(data, tmp_path / "a")
    assert again.unfinished == []
    before = sorted(path.name for path in (tmp_path / "a").rglob("*"))
    work(again, ScriptedEngine(lambda question: pytest.fail("asked again")))
    assert sorted(path.name for path in (tmp_path / "a").rglob("*")) == before


def test_seeds_depend_on_the_question_alone(data: Path, tmp_path: Path) -> None:
    settings = Settings(sampling=Sampling(temperature=0.7, seed=9))
    work(make(data, tmp_path / "a", settings), ScriptedEngine(right), at_once=1)
    work(make(data, tmp_path / "b", settings), ScriptedEngine(right), at_once=30)
    for one, other in zip(read_run(tmp_path / "a").rows, read_run(tmp_path / "b").rows, strict=True):
        assert one.trace is not None
        assert other.trace is not None
        assert one.question is not None
        assert one.trace.sampling == other.trace.sampling
        assert one.trace.sampling.seed == question_seed(9, one.question)


def test_a_run_has_a_seed(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="seed None"):
        Settings(sampling=Sampling(temperature=0.7))
    sampling = Sampling(0.5, 0.9, 3, 100, 2, 0.5)
    assert make(data, tmp_path / "a", Settings(sampling=sampling)).config.sampling == sampling


@pytest.mark.parametrize(
    ("settings", "changes", "told"),
    [
        (Settings(sampling=Sampling(temperature=0.5, seed=0)), {}, r"temperature 0\.0 instead of 0\.5"),
        (Settings(silent=True), {}, "silent False instead of True"),
        (Settings(), {"model_hash": "1" * 64}, "another model"),
        (Settings(), {"dtype": "bfloat16"}, "dtype float32 instead of bfloat16"),
    ],
)
def test_another_config_is_refused(
    data: Path, tmp_path: Path, settings: Settings, changes: dict[str, str], told: str
) -> None:
    work(make(data, tmp_path / "a"), ScriptedEngine(right))
    with pytest.raises(InputError, match=told):
        make(data, tmp_path / "a", settings, **changes)


def test_a_start_that_answered_nothing_binds_nobody(data: Path, tmp_path: Path) -> None:
    first = make(data, tmp_path / "a", dtype="bfloat16")
    (tmp_path / "a" / "process-2.log").touch()
    again = prepare(Questions(), tmp_path / "a", SUBJECT, data=data, limit=4)
    with pytest.raises(InputError, match="was begun with 4 questions instead of 30, dtype float32 instead"):
        work(first, ScriptedEngine(right))
    work(again, ScriptedEngine(right))
    run = read_run(tmp_path / "a")
    assert (run.config.dtype, len(run.rows), run.finished) == ("float32", 4, 4)


def test_a_worker_without_an_answer_yet_keeps_its_folder(data: Path, tmp_path: Path) -> None:
    make(data, tmp_path / "a")
    with Worker(tmp_path / "a"), pytest.raises(InputError, match="float32 instead of bfloat16"):
        make(data, tmp_path / "a", dtype="bfloat16")


def test_a_file_is_no_run_folder(data: Path, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(InputError, match="is a file; give a folder"):
        make(data, tmp_path / "a")


def test_other_questions_are_refused_but_not_another_place(data: Path, tmp_path: Path) -> None:
    work(make(data, tmp_path / "a"), ScriptedEngine(right))
    moved = data.rename(tmp_path / "moved")
    make(moved, tmp_path / "a", model="the same by another name")
    text = (moved / "questions.jsonl").read_text().replace("number 3?", "number three?")
    (moved / "questions.jsonl").write_text(text)
    with pytest.raises(InputError, match="other questions"):
        make(moved, tmp_path / "a")


def test_a_folder_that_is_something_else_is_left_alone(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "precious"
    out.mkdir()
    (out / "thesis.tex").write_text("...")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        make(data, out)
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]
    with pytest.raises(InputError, match="no run folder"):
        read_run(out)


def test_missing_and_broken_sounds_are_failed_rows(data: Path, tmp_path: Path) -> None:
    (data / "broken.wav").write_bytes(b"RIFF nonsense")
    rows = [json.loads(line) for line in (data / "questions.jsonl").read_text().splitlines()]
    rows[3]["audio"], rows[4]["audio"], rows[5] = "missing.wav", "broken.wav", {"id": "q5"}
    write_rows(data / "questions.jsonl", rows)
    out = tmp_path / "a"
    work(make(data, out), ScriptedEngine(right))
    run = read_run(out)
    assert [row.id for row in run.failed] == ["q3", "q4", "(row 6)"]
    assert all(row.prediction is None and row.error for row in run.failed)
    summary = summarize_run(run)
    assert (summary.main.overall.accuracy, summary.main.overall.total, summary.main.overall.failed) == (1, 27, 3)
    assert "missing.wav" in summary.failures[0].error
    # Once the sound is there, the same command mends the row, and only that one.
    (data / "noise.wav").rename(data / "missing.wav")
    (data / "noise.wav").symlink_to(data / "missing.wav")
    again = make(data, out)
    assert [question.id for _, question in again.unfinished] == ["q3", "q4"]
    work(again, ScriptedEngine(right))
    assert [row.id for row in read_run(out).failed] == ["q4", "(row 6)"]


def test_no_sound_at_all_is_the_wrong_folder(data: Path, tmp_path: Path) -> None:
    (data / "noise.wav").unlink()
    with pytest.raises(InputError, match="none of the 30 sounds is there"):
        make(data, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_no_answer_is_not_wrong_and_not_the_first_choice(data: Path, tmp_path: Path) -> None:
    work(make(data, tmp_path / "a"), ScriptedEngine(lambda question: "<think>well"))
    run = read_run(tmp_path / "a")
    assert {row.outcome(rule) for row in run.rows for rule in row.outcomes} == {Outcome.NO_ANSWER}
    assert summarize_run(run).main.overall.no_answer_rate == 1


def test_silence_is_what_a_silent_run_hears(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "silent"
    work(make(data, out, Settings(silent=True)), ScriptedEngine(right))
    row = read_run(out).rows[0]
    assert row.trace is not None
    assert row.question is not None
    assert row.trace.duration == row.question.clip().duration
    assert row.trace.audio_hash != row.question.clip().hash
    assert "silence" in row.trace.audio


def test_one_bug_is_a_failed_row_and_many_stop_the_run(data: Path, tmp_path: Path) -> None:
    class Buggy(ScriptedEngine):
        def open(self, question: Question, *rest: object) -> object:  # type: ignore[override]
            if question.id == "q7" or self.all:
                raise ZeroDivisionError("a bug")
            return super().open(question, *rest)  # type: ignore[arg-type]

        all = False

    work(make(data, tmp_path / "one"), Buggy(right))
    (failed,) = read_run(tmp_path / "one").failed
    assert (failed.id, failed.error) == ("q7", "ZeroDivisionError: a bug")
    engine = Buggy(right)
    engine.all = True
    with pytest.raises(EngineError, match="24 answers in a row"):
        work(make(data, tmp_path / "all"), engine)
    work(make(data, tmp_path / "all"), ScriptedEngine(right))
    assert read_run(tmp_path / "all").failed == ()


def test_a_full_disk_keeps_what_is_there(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, room, write = tmp_path / "a", 40_000, os.write

    def limited(file: int, content: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(28, "No space left on device")
        taken = min(room, len(content))
        room -= taken
        return write(file, content[:taken])

    monkeypatch.setattr(files.os, "write", limited)
    with pytest.raises(InputError, match=r"No space left on device.*Free some space"):
        work(make(data, out), ScriptedEngine(right))
    monkeypatch.undo()
    kept = read_run(out)
    assert 0 < kept.finished < 30
    assert kept.problems == ()
    assert all(path.read_bytes().endswith(b"\n") for path in out.glob("traces-*"))
    work(make(data, out), ScriptedEngine(right))
    assert read_run(out).finished == 30


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(InputError, match="Make it writable"):
        make(data, folder / "a")


def test_a_read_only_file_system_is_told(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    work(make(data, tmp_path / "done"), ScriptedEngine(right))
    write_summary(tmp_path / "done", summarize_run(read_run(tmp_path / "done")))
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match=r"Read-only file system.*Make it writable"):
        make(data, tmp_path / "a")
    # What is finished is only read.
    monkeypatch.setattr(Path, "replace", refuse)
    for name in ("open", "link", "ftruncate", "truncate"):
        monkeypatch.setattr(files.os, name, refuse)
    assert make(data, tmp_path / "done").unfinished == []
    write_summary(tmp_path / "done", summarize_run(read_run(tmp_path / "done")))


def test_stopping_by_keyboard_keeps_what_is_finished(data: Path, tmp_path: Path) -> None:
    out, count = tmp_path / "a", 0

    def script(question: Question) -> str:
        nonlocal count
        count += 1
        if count == 20:
            raise KeyboardInterrupt
        return right(question)

    with pytest.raises(KeyboardInterrupt):
        work(make(data, out), ScriptedEngine(script), at_once=4)
    assert 0 < read_run(out).finished < 20
    work(make(data, out), ScriptedEngine(right))
    assert read_run(out).finished == 30


def test_hostile_texts_come_through(tmp_path: Path) -> None:
    data = write_questions(tmp_path / "data", 2)
    rows = [json.loads(line) for line in (data / "questions.jsonl").read_text().splitlines()]
    rows[0]["choices"] = ["\ud800", "</answer>\u2028"]
    rows[1]["question"] = "line\nbreak \u0000 <|im_end|>"
    write_rows(data / "questions.jsonl", rows)
    work(make(data, tmp_path / "a"), ScriptedEngine(right))
    run = read_run(tmp_path / "a")
    assert run.problems == ()
    assert [row.question for row in run.rows] == list(Questions().rows(data))


def test_lines_that_are_damaged_are_told_and_asked_again(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "a"
    work(make(data, out), ScriptedEngine(right))
    (path,) = out.glob("traces-*")
    lines = path.read_text().splitlines()
    lines[4] = lines[4][:50]
    lines[5] = "[]"
    lines[6] = '{"id": "foreign", "trace": {}}'
    path.write_text("\n".join([*lines, lines[0], ""]))
    run = read_run(out)
    assert run.finished == 27
    assert len(run.problems) == 3
    again = make(data, out)
    assert len(again.unfinished) == 3
    work(again, ScriptedEngine(right))
    assert read_run(out).finished == 30


def test_a_worker_waits_for_another_and_takes_over_when_it_is_gone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_POLL", 0.01)
    out = tmp_path / "a"
    run = make(data, out)
    waiting = threading.Event()
    other = Worker(out).__enter__()
    taken = Claims(out, other.name, Liveness(out))
    assert all(taken.take(number) for number in range(5))

    def told(progress: Progress) -> None:
        if progress.waiting == 5:
            waiting.set()

    thread = threading.Thread(target=work, args=(run, ScriptedEngine(right)), kwargs={"on_progress": told})
    thread.start()
    assert waiting.wait(10)
    assert run.progress().finished == 25
    other.__exit__()
    thread.join(10)
    assert read_run(out).finished == 30


def test_a_worker_that_begins_is_not_taken_for_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock = fcntl.flock

    def watched(file: int, how: int) -> None:
        if how == fcntl.LOCK_EX:
            Liveness(tmp_path).sweep()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", watched)
    with Worker(tmp_path) as worker:
        assert Liveness(tmp_path).alive(worker.name)


def test_a_claim_is_given_once_and_passes_on_from_the_dead(tmp_path: Path) -> None:
    with Worker(tmp_path) as first, Worker(tmp_path) as second:
        one, two = (
            Claims(tmp_path, first.name, Liveness(tmp_path)),
            Claims(tmp_path, second.name, Liveness(tmp_path)),
        )
        assert (one.take(3), two.take(3), two.take(4), one.take(4)) == (True, False, True, False)
        assert not one.inherited(3)
    with Worker(tmp_path) as third:
        heir = Claims(tmp_path, third.name, Liveness(tmp_path))
        assert heir.take(3)
        assert heir.inherited(3)
        # Whoever looked before has the same answer as whoever looks now.
        assert not two.take(3)


def test_a_worker_elsewhere_is_dead_when_its_heartbeat_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(claims.time, "monotonic", lambda: now)
    monkeypatch.setattr(claims, "machine", lambda: "elsewhere")
    with Worker(tmp_path) as worker:
        monkeypatch.setattr(claims, "machine", lambda: "here")
        watch = Liveness(tmp_path, lease=100)
        lock = tmp_path / "workers" / f"{worker.name}.lock"
        assert watch.alive(worker.name)
        now += 90
        assert watch.alive(worker.name)
        os.utime(lock, (5, 5))  # whatever its clock says: it changed
        assert watch.alive(worker.name)
        now += 101
        assert not watch.alive(worker.name)


def test_heartbeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT", 0.01)
    beats = 0

    def beat() -> None:
        nonlocal beats
        beats += 1

    with Worker(tmp_path) as worker:
        worker.on_beat = beat
        lock = tmp_path / "workers" / f"{worker.name}.lock"
        before = lock.stat().st_mtime_ns
        deadline = time.monotonic() + 10
        while (beats < 3 or lock.stat().st_mtime_ns == before) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert beats >= 3
    assert not lock.exists()


def test_the_scripted_answers_cover_every_outcome(data: Path, tmp_path: Path) -> None:
    work(make(data, tmp_path / "a"), ScriptedEngine(respond))
    found = {row.outcome() for row in read_run(tmp_path / "a").rows}
    assert found == {Outcome.RIGHT, Outcome.WRONG, Outcome.NO_ANSWER}
