"""What `write_report` writes needs nothing else, holds what it should, and runs nothing it was given."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from support.simulated_runs import CONFIG, HOSTILE, hostile_run, make_run, noise_questions

from relisten.audio import Clip, write_clip
from relisten.errors import InputError
from relisten.evaluate.results import ResultRow, Run
from relisten.evaluate.scoring import Outcome, Rule
from relisten.protocol import Format
from relisten.question import Question
from relisten.report.build import Written, write_report
from relisten.report.sound import AudioMode

ASKED = noise_questions(12)


class Page(HTMLParser):
    """What a browser would make of the file."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._script = tag == "script"
        if self._script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._script = False

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[-1] += data
        else:
            self.text += data

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0])

    def count(self, tag: str, **attributes: str) -> int:
        return sum(t == tag and attributes.items() <= a.items() for t, a in self.elements)


def write(runs: list[Run], folder: Path, **options: Any) -> tuple[Written, Page]:
    done = write_report(runs, folder / "report.html", **options)
    return done, Page(done.path.read_text(encoding="utf-8"))


def test_the_page_asks_for_nothing_from_outside(tmp_path: Path) -> None:
    done, page = write([make_run("a", ASKED), make_run("b", ASKED, seed=1)], tmp_path)
    assert done.entries == 12
    assert (done.sounds, done.playable) == (8, 8)
    assert done.bytes == done.path.stat().st_size
    for _, attributes in page.elements:
        assert not {"src", "srcset", "action"} & attributes.keys()
        assert attributes.get("href", "#") == "#" + attributes.get("href", "#")[1:]
    style = done.path.read_text(encoding="utf-8").split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_only_the_script_of_the_report_may_run(tmp_path: Path) -> None:
    _, page = write([make_run("a", ASKED)], tmp_path)
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    running = [
        s
        for s, (_, a) in zip(page.scripts, (e for e in page.elements if e[0] == "script"), strict=True)
        if "type" not in a
    ]
    assert len(running) == 1
    assert policy is not None
    assert base64.b64encode(hashlib.sha256(running[0].encode()).digest()).decode() in policy
    assert "default-src 'none'" in policy
    assert "Redistributions of source code" in running[0]


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    _, page = write([hostile_run(), hostile_run()], tmp_path)
    assert page.count("img") == 0
    assert page.count("script") == 3  # data, program, one sound
    assert page.data["entries"][0]["text"] == HOSTILE
    assert HOSTILE.split("\ud800")[0] in page.text


def test_embedded_sounds_can_be_decoded_and_are_there_once(tmp_path: Path) -> None:
    _, page = write([make_run("a", ASKED), make_run("b", ASKED)], tmp_path)
    held = [
        s
        for s, (_, a) in zip(page.scripts, (e for e in page.elements if e[0] == "script"), strict=True)
        if a.get("type") == "text/plain"
    ]
    assert len(held) == 8
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(held[0])))
    assert rate == 16_000
    assert len(samples) == pytest.approx(32_000, abs=400)
    assert {entry["sound"] for entry in page.data["entries"]} == set(range(8))
    peaks = base64.b64decode(page.data["sounds"][0]["peaks"])
    assert (len(peaks), max(peaks)) == (480, 255)


def test_sounds_beyond_the_limit_are_left_out_and_that_is_said(tmp_path: Path) -> None:
    done, page = write([make_run("a", ASKED)], tmp_path, max_audio=0.02)
    assert 0 < done.playable < 8
    assert done.sounds == 8
    assert f"{8 - done.playable} of 8 sounds are not in the page" in page.text
    assert [sound["embedded"] for sound in page.data["sounds"]] == [True] * done.playable + [False] * (
        8 - done.playable
    )


def test_links_are_relative_and_quoted(tmp_path: Path) -> None:
    folder = tmp_path / "sounds & more #1"
    folder.mkdir()
    write_clip(folder / "a b.wav", Clip(np.zeros(16_000, np.float32)))
    question = Question("q", audio=folder / "a b.wav", id="1")
    done, page = write([make_run("a", [(question, "")], right=1.0)], tmp_path, audio=AudioMode.LINK)
    assert page.data["sounds"][0]["link"] == "sounds%20%26%20more%20%231/a%20b.wav"
    assert (done.playable, page.count("script", type="text/plain")) == (1, 0)
    done, page = write([make_run("a", [(question, "")], right=1.0)], tmp_path, audio=AudioMode.NONE)
    assert page.data["sounds"][0]["link"] is None
    assert (done.sounds, done.playable) == (1, 0)


def test_a_missing_sound_is_a_note_and_no_stop(tmp_path: Path) -> None:
    question = Question("q", audio=tmp_path / "gone.wav", id="1", answer="a")
    outcomes = dict.fromkeys(Rule, Outcome.FAILED)
    run = Run(Path("r"), CONFIG, (ResultRow(0, "1", question, None, "no such file", outcomes),))
    done, page = write([run, make_run("b", ASKED)], tmp_path)
    assert (done.sounds, done.playable, len(done.problems)) == (9, 8, 1)
    assert "gone.wav: no such file" in page.text
    assert page.data["entries"][0]["sound"] is None
    assert page.data["entries"][1]["sound"] == 1


def test_unfinished_empty_and_text_only_runs_have_reports(tmp_path: Path) -> None:
    asked = ASKED[:1]
    pending = ResultRow(0, "q0", asked[0][0], None, None, dict.fromkeys(Rule, Outcome.PENDING))
    _, page = write([Run(Path("r"), CONFIG, (pending,))], tmp_path)
    assert "r: 0 of 1 questions are finished" in page.text
    _, page = write([Run(Path("r"), CONFIG, ())], tmp_path)
    assert page.data["entries"] == []
    text = make_run("t", ASKED, config=replace(CONFIG, format=Format.TEXT))
    _, page = write([text], tmp_path)
    assert "Listens an answer" in page.text
    assert "Coverage over time" not in page.text
    assert "Comparison" not in page.text


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [make_run("x/run", ASKED), make_run("y/run", ASKED), make_run("z/other", ASKED)]
    _, page = write(runs, tmp_path)
    assert page.data["runs"] == ["run (1)", "run (2)", "other"]


def test_the_rule_decides_who_is_right(tmp_path: Path) -> None:
    question, text = ASKED[0]
    run = make_run("r", [(question, text.replace("<answer>a", "<answer>(A)"))], right=1.0)
    assert write([run], tmp_path)[1].data["entries"][0]["runs"][0]["outcome"] == "wrong"
    lettered = write([run], tmp_path, rule=Rule.LETTER)[1]
    assert lettered.data["entries"][0]["runs"][0]["outcome"] == "right"
    assert "Accuracy by letter" in re.sub(r"\s+", " ", lettered.text)


def test_what_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    told: list[int] = []
    with pytest.raises(InputError, match="give another --out"):
        write_report([make_run("a", ASKED)], tmp_path, on_progress=lambda *_: told.append(1))
    assert told == []
    with pytest.raises(InputError, match="no run"):
        write_report([], tmp_path / "r.html")
    with pytest.raises(InputError, match="max audio"):
        write_report([make_run("a", ASKED)], tmp_path / "r.html", max_audio=-1)
