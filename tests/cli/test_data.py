"""`relisten data import`, `simulate`, `compose` and `stats` as a user runs them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from support.cli import data, lines

from relisten.audio import Clip, write_clip
from relisten.data.examples import Example, write_examples
from relisten.question import Question


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Three sounds and a DESED table of them with two bad rows."""
    (tmp_path / "sounds").mkdir()
    rng = np.random.default_rng(0)
    for name in "abc":
        samples = (0.1 * rng.standard_normal(128_000)).astype(np.float32)
        write_clip(tmp_path / "sounds" / f"{name}.wav", Clip.from_samples(samples))
    path = tmp_path / "labels.tsv"
    path.write_text(
        "filename\tonset\toffset\tevent_label\n"
        "a.wav\t1.0\t2.0\tDog\na.wav\t3.0\t4.0\tDog\na.wav\t5.0\t6.5\tCat\n"
        "b.wav\t1.0\t2.5\tCat\nb.wav\t4.0\t5.5\tSiren\nb.wav\tx\t5.5\tSiren\n"
        "c.wav\t0.5\t1.5\tSiren\nc.wav\t2.5\t3.5\tDog\nc.wav\t4.5\t6.0\tSiren\n"
        "gone.wav\t0.5\t1.5\tSiren\n"
    )
    return path


def imported(labels: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    manifest = labels.parent / "manifest.jsonl"
    code, _, _ = data(
        capsys, "import", "desed", labels, "--audio", labels.parent / "sounds", "--out", manifest, "--processes", 1
    )
    assert code == 0
    return manifest


# import


def test_bad_rows_are_told_counted_and_listed(
    labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, report = tmp_path / "m.jsonl", tmp_path / "new" / "report.jsonl"
    code, said, told = data(
        capsys, "import", "desed", labels, "--audio", tmp_path / "sounds", "--out", out, "--report", report,
        "--split", "train", "--processes", 1,
    )  # fmt: skip
    assert code == 0
    assert "3 clips (0.01 h), 8 events, 0 turns" in said
    assert "2 bad rows left out (1 clip not complete), 0 warnings" in said
    assert f"{labels}:7: times 'x', '5.5' are not seconds" in told
    assert f"{labels}:11: no sound under" in told
    assert [row["bad"] for row in lines(report)] == [True, True]
    assert [(row["id"], row["split"], row.get("complete", True)) for row in lines(out)] == [
        ("a.wav", "train", True),
        ("b.wav", "train", False),
        ("c.wav", "train", True),
    ]


def test_an_import_of_nothing_lists_why(labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "new" / "report.jsonl"
    rows = labels.read_text().splitlines()
    labels.write_text(f"{rows[0]}\n{rows[10]}\n")
    rest = ("--audio", tmp_path / "sounds", "--out", tmp_path / "m.jsonl", "--report", report, "--processes", 1)
    assert data(capsys, "import", "desed", labels, *rest)[0] == 2
    assert "no sound under" in lines(report)[0]["reason"]


def test_strict_stops_and_keeps_what_was_there(
    labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.jsonl"
    out.write_text("before\n")
    code, _, told = data(
        capsys,
        "import",
        "desed",
        labels,
        "--audio",
        tmp_path / "sounds",
        "--out",
        out,
        "--strict",
        "--processes",
        1,
    )
    assert code == 2
    assert told.startswith(f"relisten: {labels}:7: times 'x'")
    assert "--strict stops here" in told
    assert out.read_text() == "before\n"
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_counts_as_json(labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, said, _ = data(
        capsys, "import", "desed", labels, "--audio", tmp_path / "sounds", "--out", tmp_path / "m.jsonl", "--json"
    )
    counts = json.loads(said)
    assert (counts["clips"], counts["events"], counts["bad_rows"], counts["not_complete"]) == (3, 8, 2, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("csv", "{labels}", "--audio", "{sounds}"), "label format 'csv' is unknown; use one of\n  audioset"),
        (("desed", "none.tsv", "--audio", "{sounds}"), "none.tsv: no such file; check the path"),
        (("desed", "{labels}", "--audio", "nowhere"), "nowhere: is not a folder"),
        (("desed", "{labels}", "--audio", "{sounds}", "--resolution", "-1"), "give 0 to 10 seconds"),
        (("rttm", "{labels}", "--audio", "{sounds}"), "no clip came through; the first reason"),
        (("audioset", "{labels}", "--audio", "{sounds}", "--names", "none.tsv"), "none.tsv: cannot be read"),
        (
            ("desed", "{labels}", "--audio", "{sounds}", "--split", "foo"),
            "split 'foo' is unknown; use one of train, validation, test",
        ),
    ],
)
def test_what_cannot_be_imported_is_one_clear_line(
    arguments: tuple[str, ...], message: str, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word.format(labels=labels, sounds=tmp_path / "sounds") for word in arguments]
    code, _, told = data(capsys, "import", *given, "--out", tmp_path / "m.jsonl", "--processes", 1)
    assert code == 2
    assert message in told
    assert "Traceback" not in told
    assert not (tmp_path / "m.jsonl").exists()


def test_a_split_may_go_by_another_name(labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "m.jsonl"
    data(capsys, "import", "desed", labels, "--audio", tmp_path / "sounds", "--out", out, "--split", "dev")
    assert {row["split"] for row in lines(out)} == {"validation"}


# No command writes over what it reads


@pytest.mark.parametrize(
    "arguments",
    [
        ("import", "desed", "{file}", "--audio", "{sounds}", "--out", "{file}"),
        ("import", "desed", "{file}", "--audio", "{sounds}", "--out", "{folder}/m.jsonl", "--report", "{file}"),
        ("compose", "{file}", "--out", "{file}"),
        ("stats", "{file}", "--html", "{file}"),
        ("filter", "{file}", "--out", "{file}"),
        ("filter", "{file}", "--out", "{folder}/kept.jsonl", "--dropped", "{file}"),
        ("filter", "{folder}/other.jsonl", "--out", "{file}", "--not-in", "{file}"),
        ("export", "jsonl", "{file}", "--out", "{folder}"),
    ],
)
def test_no_input_is_written_over(
    arguments: tuple[str, ...], labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").symlink_to(tmp_path)
    file = labels.rename(tmp_path / "train.jsonl")
    before = file.read_bytes()
    words = {"file": tmp_path / "here" / file.name, "folder": tmp_path / "here", "sounds": tmp_path / "sounds"}
    code, _, told = data(capsys, *(word.format(**words) for word in arguments))
    assert (code, told) == (2, f"relisten: {words['file']}: is the input; give another file\n")
    assert file.read_bytes() == before


def test_manifest_and_report_are_two_files(
    labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = tmp_path / "same.jsonl"
    code, _, told = data(
        capsys, "import", "desed", labels, "--audio", tmp_path / "sounds", "--out", same, "--report", same
    )
    assert (code, told) == (2, f"relisten: {same}: is given as --out and as --report; give two files\n")
    assert not same.exists()


# simulate


def test_a_simulated_set_can_be_asked_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--out", tmp_path / "set", "--seconds", 2, 3, "--processes", 1)
    code, said, _ = data(capsys, "simulate", *options, "--count", 2)
    assert (code, said.startswith("2 clips (2 new")) == (0, True)
    _, said, _ = data(capsys, "simulate", *options, "--count", 4, "--json")
    assert {key: json.loads(said)[key] for key in ("clips", "new")} == {"clips": 4, "new": 2}
    code, said, _ = data(
        capsys, "compose", tmp_path / "set" / "manifest.jsonl", "--out", tmp_path / "q.jsonl", "--style", "short",
        "--kinds", "scenes", "--processes", 1,
    )  # fmt: skip
    assert code == 0
    rows = lines(tmp_path / "q.jsonl")
    assert rows
    assert all((tmp_path / row["audio"]).is_file() for row in rows)
    _, said, _ = data(
        capsys, "import", "scenes", tmp_path / "set" / "manifest.jsonl", "--audio", tmp_path / "set" / "clips",
        "--out", tmp_path / "again.jsonl", "--processes", 1,
    )  # fmt: skip
    assert [row["events"] for row in lines(tmp_path / "again.jsonl")] == [
        row["events"] for row in lines(tmp_path / "set" / "manifest.jsonl")
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--count", 0), "--count 0: it must be 1 or more"),
        (("--split", "dev"), "split 'dev' is unknown; use one of train, validation, test"),
        (("--backgrounds", "."), "--backgrounds goes with --sources or --speech"),
        (("--snr", 6, 30), "--snr goes with --sources or --speech"),
        (("--speech", "--pitch", 2), "--pitch goes with --sources; leave it out"),
        (("--stretch", 0.1), "--stretch goes with --sources; leave it out"),
        (("--sources", "nowhere"), "nowhere: is not a folder"),
        (("--seconds", 9, 3), "give the lowest value first"),
    ],
)
def test_what_cannot_be_simulated_is_one_clear_line(
    arguments: tuple[object, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, told = data(capsys, "simulate", "--out", tmp_path / "set", *arguments)
    assert code == 2
    assert message in told


# compose


def test_questions_come_from_a_manifest(labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = imported(labels, capsys)
    with manifest.open("a") as file:
        file.write("{\n")
    out = tmp_path / "deep" / "q.jsonl"
    code, said, told = data(capsys, "compose", manifest, "--out", out, "--per-clip", 3, "--processes", 1)
    assert code == 0
    assert "6 questions about 2 of 3 clips" in said
    assert "not asked about: 1 clip labels not complete" in said
    assert "1 bad row passed over" in said
    assert f"{manifest}:4: is not JSON" in told
    for row in lines(out):
        assert row["answer"] in row["choices"]
        assert row["audio"].startswith("../sounds/")
        assert row["metadata"]["source"] in ("a", "c")
    _, said, _ = data(
        capsys, "compose", manifest, "--out", out, "--processes", 1, "--kinds", "exists,first", "--json"
    )
    assert json.loads(said)["bad_rows"] == 1
    assert {row["kind"] for row in lines(out)} <= {"exists", "first"}


def test_some_questions_show_what_tools_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data(capsys, "simulate", "--out", tmp_path, "--count", 6, "--processes", 1)
    out = tmp_path / "q.jsonl"
    asked = ("compose", tmp_path / "manifest.jsonl", "--out", out, "--processes", 1, "--kinds", "scenes")
    data(capsys, *asked)
    assert not any("findings" in row for row in lines(out))
    code, _, _ = data(capsys, *asked, "--tools", "loudness,silence")
    assert code == 0
    rows = lines(out)
    shown = [finding for row in rows for finding in row.get("findings", ())]
    assert {finding.split("]")[0] for finding in shown} == {"[loudness", "[silence"}
    assert 0 < sum("findings" in row for row in rows) < len(rows)
    again = out.read_bytes()
    data(capsys, *asked, "--tools", "loudness,silence")  # from what was kept
    assert out.read_bytes() == again
    data(capsys, *asked, "--tools", "loudness,silence", "--tool-share", 1)
    assert all("findings" in row for row in lines(out))


def test_a_sound_that_tools_cannot_read_is_a_bad_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data(capsys, "simulate", "--out", tmp_path, "--count", 2, "--processes", 1)
    out = tmp_path / "q.jsonl"
    next((tmp_path / "clips").rglob("*.flac")).unlink()
    asked = ("--processes", 1, "--tools", "loudness", "--tool-share", 1, "--json")
    code, said, told = data(capsys, "compose", tmp_path / "manifest.jsonl", "--out", out, *asked)
    assert code == 0
    assert json.loads(said)["bad_rows"] == 1
    assert "manifest.jsonl:" in told
    assert "cannot be read" in told or "not there" in told or "no such" in told.lower()
    assert len({row["audio"] for row in lines(out)}) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tools", "loudnes"), "tool 'loudnes' is unknown"),
        (("--tools", "loudness", "--tool-share", 2), "tool share 2"),
        (("--tool-share", 0.3), "--tool-share goes with --tools; leave it out"),
        (
            ("--kinds", "what"),
            "question kinds ['what']: use some of scenes, relations, speech, music, count_window",
        ),
        (("--kinds", "speech"), "allows no question"),
        (("--per-clip", 0), "per clip 0"),
    ],
)
def test_what_cannot_be_composed_leaves_no_file(
    arguments: tuple[object, ...], message: str, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = imported(labels, capsys)
    out = tmp_path / "q.jsonl"
    code, _, told = data(capsys, "compose", manifest, "--out", out, "--processes", 1, *arguments)
    assert code == 2
    assert message in told
    assert not out.exists()
    assert list(tmp_path.glob(".*.part")) == []


# stats


def test_stats_of_both_kinds_of_files_as_table_json_and_page(
    labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = imported(labels, capsys)
    questions = tmp_path / "q.jsonl"
    data(capsys, "compose", manifest, "--out", questions, "--processes", 1)
    page = tmp_path / "page.html"
    code, said, _ = data(capsys, "stats", manifest, questions, "--html", page)
    assert code == 0
    for words in ("Dog 3", "not complete 1", "near duplicates", "answer at place 1..4", "distinct 2"):
        assert words in " ".join(said.split())
    code, said, _ = data(capsys, "stats", manifest, questions, "--json")
    clips, asked = map(json.loads, said.splitlines())
    assert (clips["clips"], clips["labels"]) == (3, {"Siren": 3, "Dog": 3, "Cat": 2})
    assert clips["duration"] == {
        "count": 3, "mean": 8.0, "min": 8.0, "max": 8.0, "range": [0, 30],
        "histogram": [0, 0, 0, 0, 0, 3, *[0] * 14],
    }  # fmt: skip
    assert asked["questions"] == sum(asked["kinds"].values()) == len(lines(questions))
    assert asked["answer_not_among_choices"] == 0
    assert asked["reasoning"]["segments"]["min"] >= 1
    assert 0 < asked["reasoning"]["distinct_1"] < asked["reasoning"]["distinct_3"] <= 1
    text = page.read_text()
    assert "http" not in text.replace("http-equiv", "")
    assert "Content-Security-Policy" in text
    svgs = [part.partition("</svg>")[0] + "</svg>" for part in text.split("<svg")[1:]]
    assert len(svgs) >= 8
    for svg in svgs:
        ElementTree.fromstring("<svg" + svg)


def test_stats_tell_what_is_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "q.jsonl"
    question = Question("Which?", ("a", "b"), tmp_path / "x.wav", "1", "c")
    write_examples(path, [Example(question, "", ""), Example(question, "no tags <b>", "<script>")])
    with path.open("a") as file:
        file.write("nothing\n")
    code, said, told = data(capsys, "stats", path, "--json", "--html", tmp_path / "page.html")
    found = json.loads(said)
    assert (code, found["answer_not_among_choices"], found["bad_rows"], found["with_response"]) == (0, 2, 1, 1)
    assert "q.jsonl:3: is not JSON" in told
    assert "<script>" not in (tmp_path / "page.html").read_text()


def test_what_looks_like_markup_is_shown_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "[b].jsonl"
    write_examples(
        path, [Example(Question("Which?", (), tmp_path / "\udce9.wav", "1", "c"), "", "[/laughter] :bell:")]
    )
    code, said, _ = data(capsys, "stats", path)
    assert code == 0
    assert "[/laughter] :bell: 1" in said
    assert "[b].jsonl" in "".join(said.split())


def test_stats_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    code, _, told = data(capsys, "stats", tmp_path / "empty.jsonl")
    assert code == 2
    assert "holds no good row" in told
    assert data(capsys, "stats", tmp_path / "none.jsonl")[0] == 2
