from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from relisten.data.labels import LabelProblem, read_names
from relisten.data.manifest import Chord, ClipRecord, LabelledEvent, Music, Turn
from relisten.errors import InputError

Sounds = Callable[..., Path]
Run = Callable[..., tuple[list[ClipRecord], list[LabelProblem]]]


def _reasons(findings: list[LabelProblem]) -> list[str]:
    return [f"{Path(finding.where).name}: {finding.message}" for finding in findings]


# AudioSet-Strong


@pytest.mark.parametrize(
    "name",
    ["abcdefghijK_30000.wav", "YabcdefghijK_30.000_40.000.flac", "abcdefghijK_30.wav", "deep/YabcdefghijK.wav"],
)
def test_audioset_finds_the_sound_under_the_names_in_use(name: str, sounds: Sounds, run: Run) -> None:
    labels = (
        "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
        "abcdefghijK_30000\t0.5\t2.25\t/m/09x0r\n"
        "abcdefghijK_30000\t3\t4\t/m/0bt9lr\n"
    )
    names = {"/m/09x0r": "Speech", "/m/0bt9lr": "Dog"}
    (clip,), findings = run("audioset", labels, sounds(name), names=names)
    assert findings == []
    assert clip.id == "abcdefghijK_30000"
    assert clip.source == "abcdefghijK"
    assert clip.label_set == "audioset"
    assert clip.complete
    assert clip.events == (LabelledEvent(0.5, 2.25, "Speech"), LabelledEvent(3.0, 4.0, "Dog"))
    assert clip.duration == 10.0
    assert len(clip.hash) == 64


def test_audioset_rows_of_a_clip_may_stand_anywhere(sounds: Sounds, run: Run) -> None:
    rows = [f"{clip}\t{at}\t{at + 0.5}\tDog" for at in range(9) for clip in ("b_0", "a_0", "c_0")]
    clips, findings = run("audioset", "\n".join(rows), sounds("a_0.wav", "b_0.wav", "c_0.wav"))
    assert [clip.id for clip in clips] == ["b_0", "a_0", "c_0"]
    assert all(
        clip.events is not None and [event.onset for event in clip.events] == list(range(9)) for clip in clips
    )
    assert findings == []


def test_bad_rows_are_told_left_out_and_mark_their_clip(sounds: Sounds, run: Run) -> None:
    labels = (
        "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
        "a_0\t0\t1\tDog\n"
        "a_0\tx\t1\tDog\n"
        "a_0\t3\t2\tDog\n"
        "a_0\t9\t12\tDog\n"
        "a_0\t11\t12\tDog\n"
        "a_0\t5\t6\t\n"
        "a_0\t7\t8\t/m/abc\n"
        "a_0\t1\t2\tDog\textra\n"
        "\t1\t2\tDog\n"
        "b_0\t1\t2\tDog\n"
        "gone_0\t1\t2\tDog\n"
    )
    folder = sounds("a_0.wav", "b_0.wav")
    (a, b), findings = run("audioset", labels, folder)
    assert (a.events, a.complete) == ((LabelledEvent(0.0, 1.0, "Dog"),), False)
    assert (b.events, b.complete) == ((LabelledEvent(1.0, 2.0, "Dog"),), True)
    assert all(finding.bad for finding in findings)
    assert sorted(_reasons(findings)) == sorted(
        [
            "labels.txt:3: times 'x', '1' are not seconds; write them as 1.25",
            "labels.txt:4: label 'Dog' spans 3 to 2 s; it needs 0 <= start <= end",
            "labels.txt:5: label 'Dog' spans 9 to 12 s of a clip of 10.000 s; mend its times",
            "labels.txt:6: label 'Dog' spans 11 to 12 s of a clip of 10.000 s; mend its times",
            "labels.txt:7: the label at 5 s is empty; name the sound",
            "labels.txt:8: label /m/abc has no name; give --names mid_to_display_name.tsv with a line for it",
            "labels.txt:9: has 5 cells where 4 are expected; separate them by tabs",
            "labels.txt:10: names no segment; fill in the first column",
            f"labels.txt:12: no sound under {folder} is called gone_0; left out",
        ]
    )


def test_a_name_file_that_is_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "names.tsv"
    path.write_text("/m/1\tDog\n/m/2\n")
    assert "names.tsv:2: got '/m/2' and ''" in str(read_names(path))
    path.write_text("mid\tname\n/m/1\tDog, puppy\n")
    assert read_names(path) == {"/m/1": "Dog, puppy"}


# DESED


def test_desed_with_its_sources_and_clips_without_events(sounds: Sounds, run: Run) -> None:
    labels = (
        "filename\tonset\toffset\tevent_label\n"
        "Y-abcdefghij_10.000_20.000.wav\t0.163\t0.665\tCat\n"
        "12.wav\t\t\t\n"
        "Y-abcdefghij_10.000_20.000.wav\t1,5\t2,0\tDog\n"
    )
    (cat, quiet), findings = run("desed", labels, sounds("Y-abcdefghij_10.000_20.000.wav", "12.wav"))
    assert findings == []
    assert cat.source == "-abcdefghij"
    assert cat.events == (LabelledEvent(0.163, 0.665, "Cat"), LabelledEvent(1.5, 2.0, "Dog"))
    assert (quiet.events, quiet.source) == ((), "12")


def test_a_table_without_a_needed_column_is_refused(sounds: Sounds, run: Run) -> None:
    with pytest.raises(InputError, match="has no onset, offset; add the column"):
        run("desed", "filename\tevent_label\na.wav\tDog\n", sounds("a.wav"))


# Checks against the sound


def test_repeats_are_dropped_and_overlaps_within_a_label_told(sounds: Sounds, run: Run) -> None:
    labels = "a\t1\t3\tDog\na\t1\t3\tDog\na\t2\t4\tDog\na\t2\t4\tCat\na\t4\t5\tDog\n"
    (clip,), findings = run("desed", labels, sounds("a.wav"))
    assert clip.complete
    assert clip.events is not None
    assert [(event.onset, event.label) for event in clip.events] == [(1, "Dog"), (2, "Cat"), (2, "Dog"), (4, "Dog")]
    assert [finding.bad for finding in findings] == [False, False]
    assert "repeats 'Dog'" in findings[0].message
    assert "'Dog' from 2 s begins before the one of" in findings[1].message


def test_a_label_may_end_a_trifle_past_the_clip(sounds: Sounds, run: Run) -> None:
    (clip,), findings = run("desed", "a\t1\t10.15\tDog\n", sounds("a.wav"))
    assert findings == []
    assert clip.events == (LabelledEvent(1.0, 10.0, "Dog"),)
    _, findings = run("desed", "a\t1\t10.15\tDog\n", sounds("a.wav"), resolution=0.01)
    assert "mend its times" in findings[0].message


def test_a_name_that_two_sounds_share_is_not_guessed(sounds: Sounds, run: Run) -> None:
    folder = sounds("y/a.wav", "x/a.wav")
    clips, findings = run("desed", "a.wav\t1\t2\tDog\n", folder)
    assert clips == []
    assert findings[0].message == f"2 sounds under {folder} are called a (x/a.wav, y/a.wav); keep one"
    (clip,), _ = run("desed", "y/a.wav\t1\t2\tDog\n", folder)
    assert clip.audio == folder / "y/a.wav"


def test_a_broken_sound_loses_its_clip_only(sounds: Sounds, run: Run) -> None:
    folder = sounds("a.wav", "b.wav")
    (folder / "a.wav").write_bytes(b"RIFF")
    clips, findings = run("desed", "a\t1\t2\tDog\nb\t1\t2\tDog\n", folder)
    assert [clip.id for clip in clips] == ["b"]
    assert "a.wav" in findings[0].message


def test_processes_change_nothing(sounds: Sounds, run: Run) -> None:
    folder = sounds(*(f"{n}.wav" for n in range(6)), seconds=0.5)
    labels = "".join(f"{n}\t0.1\t0.2\tDog\n" for n in range(6))
    assert run("desed", labels, folder) == run("desed", labels, folder, processes=2)


# MusicBench


def _musicbench(**changes: object) -> dict[str, object]:
    row = {
        "location": "data_aug2/song_3.wav",
        "main_caption": "A calm song.",
        "beats": [[0.5, 1.0, 1.5], [1.0, 2.0, 1.0]],
        "bpm": 120.0,
        "chords": ["Am", "N"],
        "chords_time": [0.4, 3.0],
        "key": ["A", "minor"],
        "keyprob": [0.8],
    }
    return row | changes


@pytest.mark.parametrize("listed", [False, True])
def test_musicbench_as_lines_and_as_one_list(listed: bool, sounds: Sounds, run: Run) -> None:
    rows = [_musicbench(), _musicbench(location="data_aug2/song_4.wav", keyprob=[0.2], bpm=0)]
    text = json.dumps(rows, indent=1) if listed else "\n".join(map(json.dumps, rows))
    (one, two), findings = run("musicbench", text, sounds("song_3.wav", "song_4.wav"))
    assert findings == []
    assert one.music == Music((0.5, 1.0, 1.5), (0.5, 1.5), (Chord(0.4, "Am"), Chord(3.0, "N")), "A minor", 120.0)
    assert one.source == two.source == "song"
    assert one.metadata["main_caption"] == "A calm song."
    assert one.events is None
    assert two.music is not None
    assert (two.music.key, two.music.tempo) == (None, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (json.dumps(_musicbench(chords=["Am"])), "1 chords and 2 chord times; there must be as many"),
        (json.dumps(_musicbench(beats=[[0.1], []])), "1 beats and 0 numbers"),
        (json.dumps(_musicbench(beats=[[-1.0], [1]])), "-1.0 is not a number of seconds"),
        (json.dumps(_musicbench(location=None)), "'location' is None"),
        ("[" + json.dumps(_musicbench()) + ", {", "is cut off or not JSON from here on"),
        ("[3]", "got int; the list must hold objects"),
        ("{", "is not JSON"),
    ],
)
def test_bad_musicbench_rows(text: str, reason: str, sounds: Sounds, run: Run) -> None:
    _, findings = run("musicbench", text, sounds("song_3.wav"))
    assert [reason in finding.message for finding in findings] == [True]


def test_a_long_list_is_read_piece_by_piece(sounds: Sounds, run: Run) -> None:
    rows = [_musicbench(main_caption="x" * 5000, location=f"{n}.wav") for n in range(40)]
    clips, findings = run("musicbench", json.dumps(rows), sounds("0.wav", "39.wav", seconds=4.0))
    assert [clip.id for clip in clips] == ["0.wav", "39.wav"]
    assert len(findings) == 38


def test_beats_past_the_end_are_left_out(sounds: Sounds, run: Run) -> None:
    (clip,), findings = run("musicbench", json.dumps(_musicbench()), sounds("song_3.wav", seconds=2.0))
    assert clip.music == Music(key="A minor", tempo=120.0)
    assert "a beat or chord at 3 s lies outside a clip of 2" in findings[0].message


# JAMS


def _jams(**scaper: object) -> dict[str, object]:
    event = {"label": "siren", "role": "foreground", "event_time": 1.0}
    return {
        "annotations": [
            {
                "namespace": "scaper",
                "data": [
                    {"time": 1.0, "duration": 2.5, "value": event, "confidence": 1.0},
                    {"time": 0.0, "duration": 10.0, "value": {"label": "park", "role": "background"}},
                ],
                "sandbox": {"scaper": {"soundscape_audio_path": "/far/away/mix.wav"}},
            }
        ],
        **scaper,
    }


@pytest.mark.parametrize("name", ["scene.wav", "mix.flac"])
def test_jams_of_scaper(name: str, sounds: Sounds, run: Run) -> None:
    (clip,), findings = run("jams", json.dumps(_jams()), sounds(name), name="scene.jams")
    assert findings == []
    assert clip.events == (LabelledEvent(1.0, 3.5, "siren", 1.0),)
    assert clip.audio.name == name


def test_jams_with_columns_and_musical_facts(sounds: Sounds, run: Run) -> None:
    jams = {
        "annotations": [
            {"namespace": "beat", "data": [{"time": 0.5, "duration": 0, "value": 1}, {"time": 1, "value": 2}]},
            {"namespace": "chord", "data": {"time": [0.5], "duration": [2], "value": ["A:min"], "confidence": [1]}},
            {"namespace": "key_mode", "data": [{"time": 0, "duration": 9, "value": "A:minor"}]},
            {"namespace": "tempo", "data": [{"time": 0, "duration": 9, "value": 98.5}]},
        ]
    }
    (clip,), findings = run("jams", json.dumps(jams), sounds("scene.wav"), name="scene.jams")
    assert findings == []
    assert clip.events is None
    assert clip.music == Music((0.5, 1.0), (0.5,), (Chord(0.5, "A:min"),), "A minor", 98.5)


@pytest.mark.parametrize("at", [-0.05, float("nan"), 10.5])
def test_musical_facts_that_cannot_be_are_told_and_left_out(at: float, sounds: Sounds, run: Run) -> None:
    facts = {"beat": (1, 1), "chord": (at, "A:min"), "tempo": (0, 0.5), "key_mode": (0, "A:minor")}
    annotations = [
        {"namespace": namespace, "data": [{"time": time, "duration": 1, "value": value}]}
        for namespace, (time, value) in facts.items()
    ]
    (clip,), findings = run(
        "jams", json.dumps({"annotations": annotations}), sounds("scene.wav"), name="scene.jams"
    )
    assert clip.music == Music(key="A minor")
    tempo, times = findings
    assert tempo.message == "a tempo of 0.5 beats a minute is none; it is left out"
    assert f"a beat or chord at {at:g} s lies outside a clip of 10.000 s" in times.message


@pytest.mark.parametrize("text", ["{", "[]", '{"annotations": [{"namespace": "beat"}]}', '{"annotations": 3}'])
def test_what_is_no_jams_is_told(text: str, sounds: Sounds, run: Run) -> None:
    clips, findings = run("jams", text, sounds("scene.wav"), name="scene.jams")
    assert clips == []
    assert "is not a JAMS file" in findings[0].message


def test_a_bad_observation_marks_the_clip(sounds: Sounds, run: Run) -> None:
    jams = {"annotations": [{"namespace": "tag_open", "data": [{"time": None, "duration": 1, "value": "dog"}]}]}
    (clip,), findings = run("jams", json.dumps(jams), sounds("scene.wav"), name="scene.jams")
    assert (clip.events, clip.complete) == ((), False)
    assert "annotation 1, row 1: has time None" in str(findings[0])


# Audacity


def test_audacity_track_with_frequency_lines_and_spaces(sounds: Sounds, run: Run) -> None:
    labels = "0.500000\t1.0\tbig dog\n\\\t100.0\t2000.0\n2,5\t2,5\tclick\n"
    (clip,), findings = run("audacity", labels, sounds("take.wav"), name="take.txt")
    assert findings == []
    assert clip.events == (LabelledEvent(0.5, 1.0, "big dog"), LabelledEvent(2.5, 2.5, "click"))


def test_a_folder_of_tracks_and_an_empty_label(sounds: Sounds, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "tracks"
    folder.mkdir()
    (folder / "a.txt").write_text("1\t2\tdog\n3\t4\t\n")
    (folder / "b.txt").write_text("")
    (a, b), findings = run("audacity", folder, sounds("a.wav", "b.wav"))
    assert (a.events, a.complete) == ((LabelledEvent(1.0, 2.0, "dog"),), False)
    assert (b.events, b.complete) == ((), True)
    assert "a.txt:2: the label at 3 s is empty" in str(findings[0])


# Speech


def test_rttm(sounds: Sounds, run: Run) -> None:
    labels = (
        ";; made by hand\n"
        "SPKR-INFO meet 1 <NA> <NA> <NA> unknown anna <NA>\n"
        "SPEAKER meet 1 2.50 1.50 <NA> <NA> ben <NA> <NA>\n"
        "SPEAKER talk 1 0 1 <NA> <NA> eve <NA> <NA>\n"
        "SPEAKER meet 1 0.10 2.00 <NA> <NA> anna <NA> <NA>\n"
        "SPEAKER meet 1 5 later <NA> <NA> anna <NA> <NA>\n"
        "SPEAKER meet\n"
    )
    (meet, talk), findings = run("rttm", labels, sounds("meet.wav", "talk.wav"))
    assert meet.turns == (Turn(0.1, 2.1, "anna"), Turn(2.5, 4.0, "ben"))
    assert (meet.complete, talk.complete) == (False, True)
    assert meet.events is None
    assert sorted(reason.partition(" ")[0] for reason in _reasons(findings)) == ["labels.txt:6:", "labels.txt:7:"]


def test_srt(sounds: Sounds, run: Run) -> None:
    labels = (
        "1\n00:00:00,500 --> 00:00:02,000\nANNA: Hello <i>there</i>,\nmy friend.\n\n"
        "2\n00:00:03,000 --> 00:00:04,000\n[door slams]\n\n"
        "3\n00:00:05,000 --> 00:00:06,250\nWho &amp; what?\n"
    )
    (clip,), findings = run("srt", labels, sounds("talk.wav"), name="talk.srt")
    assert findings == []
    assert clip.turns == (Turn(0.5, 2.0, "ANNA", "Hello there, my friend."), Turn(5.0, 6.25, "", "Who & what?"))


def test_vtt(sounds: Sounds, run: Run) -> None:
    labels = (
        "WEBVTT - made by hand\n\nNOTE a remark\n\nSTYLE\n::cue { color: red }\n\n"
        "intro\n00:01.000 --> 00:02.500 align:start\n<v.loud Anna Berg>So it <b>begins</b></v>\n\n"
        "00:00:03.000 --> 00:00:04.000\n♪ la la ♪\n"
    )
    (clip,), findings = run("vtt", labels, sounds("talk.wav"), name="talk.vtt")
    assert findings == []
    assert clip.turns == (Turn(1.0, 2.5, "Anna Berg", "So it begins"),)


@pytest.mark.parametrize(
    ("cue", "reason"),
    [
        ("00:00:01 -> 00:00:02\nHi.", "labels.srt:1: is no time line"),
        ("00:00:03,000 --> 00:00:02,000\nHi.", "spans 3 to 2 s"),
        ("00:00:03,000 --> 00:00:22,000\nHi.", "spans 3 to 22 s of a clip of 10.000 s"),
        ("00:00:03,000 --> 00:00:04,000\n- BEN: Hi.\n- What?", "several speakers (BEN / ?)"),
    ],
)
def test_bad_cues_mark_the_clip(cue: str, reason: str, sounds: Sounds, run: Run) -> None:
    labels = f"1\n{cue}\n\n2\n00:00:05,000 --> 00:00:06,000\nGood.\n"
    (clip,), findings = run("srt", labels, sounds("labels.wav"), name="labels.srt")
    assert clip.turns == (Turn(5.0, 6.0, "", "Good."),)
    assert not clip.complete
    assert reason in str(findings[0])
