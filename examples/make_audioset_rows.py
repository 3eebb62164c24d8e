"""A few simulated clips in the layout of AudioSet-Strong: `python examples/make_audioset_rows.py FOLDER`.

Writes `strong.tsv` (segment_id, start_time_seconds, end_time_seconds, label), `mid_to_display_name.tsv` and
`audio/<segment_id>.flac`, so that the way from AudioSet's rows to training data can be tried without its videos.
"""

from __future__ import annotations

import sys
from pathlib import Path

from relisten.audio import write_clip
from relisten.data.scenes import SceneSpec, simulate

NAMES = {
    "kick": ("/m/0bm02", "Bass drum"),
    "snare": ("/m/06rvn", "Snare drum"),
    "hi-hat": ("/m/03qtq", "Hi-hat"),
    "clap": ("/m/0l15bq", "Clapping"),
    "bell": ("/m/0395lw", "Bell"),
    "voice": ("/m/09x0r", "Speech"),
}
SPEC = SceneSpec(duration=(8.0, 10.0), long_share=0.0, events=(3, 8), labels=tuple(NAMES), overlap_share=0.0)


def main(folder: Path, count: int = 24) -> None:
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    rows = ["segment_id\tstart_time_seconds\tend_time_seconds\tlabel"]
    for scene in simulate("train", seed=7, count=count, spec=SPEC):
        segment = f"relisten{scene.index:03d}_0"  # a video's id has eleven characters; the clip starts at 0 ms
        write_clip(folder / "audio" / f"{segment}.flac", scene.clip)
        rows += [f"{segment}\t{e.onset:.3f}\t{e.offset:.3f}\t{NAMES[e.label][0]}" for e in scene.events]
    (folder / "strong.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    names = "".join(f"{code}\t{name}\n" for code, name in NAMES.values())
    (folder / "mid_to_display_name.tsv").write_text(names, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
