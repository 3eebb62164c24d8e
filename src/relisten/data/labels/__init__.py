"""Label formats that become a manifest. A format is one reader and one line in `FORMATS`."""

from __future__ import annotations

from typing import Final

from relisten.data.labels.base import LabelFormat, LabelProblem
from relisten.data.labels.importing import ImportOptions, import_labels
from relisten.data.labels.musicbench import read_musicbench
from relisten.data.labels.scenes import read_scenes
from relisten.data.labels.speech import read_rttm, read_subtitles
from relisten.data.labels.tables import read_audioset, read_desed, read_names
from relisten.data.labels.tracks import read_audacity, read_jams

FORMATS: Final[dict[str, LabelFormat]] = {
    "audioset": LabelFormat(
        read_audioset,
        (".tsv", ".csv"),
        "AudioSet-Strong TSV, with --names mid_to_display_name.tsv",
        0.2,
        "audioset",
    ),
    "desed": LabelFormat(
        read_desed,
        (".tsv", ".csv", ".txt"),
        "DESED or DCASE TSV: filename, onset, offset, event_label",
        0.2,
        "desed",
    ),
    "musicbench": LabelFormat(
        read_musicbench, (".json", ".jsonl"), "MusicBench JSON: beats, chords, key, tempo", 0.1
    ),
    "jams": LabelFormat(
        read_jams, (".jams", ".json"), "JAMS, one a clip: Scaper's events, open tags, musical facts", 0.05, "jams"
    ),
    "audacity": LabelFormat(read_audacity, (".txt",), "Audacity label tracks, one .txt a clip", 0.1, "audacity"),
    "rttm": LabelFormat(read_rttm, (".rttm",), "RTTM: who speaks when", 0.25),
    "srt": LabelFormat(read_subtitles, (".srt", ".vtt"), "SubRip (.srt) or WebVTT (.vtt), one file a clip", 0.25),
    "vtt": LabelFormat(read_subtitles, (".srt", ".vtt"), "the same as srt", 0.25),
    "scenes": LabelFormat(read_scenes, (".jsonl",), "a manifest of ours (relisten data simulate)", 0.0),
}

__all__ = ["FORMATS", "ImportOptions", "LabelFormat", "LabelProblem", "import_labels", "read_names"]
