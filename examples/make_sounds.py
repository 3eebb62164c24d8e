"""Makes the sounds and questions in this folder, from the test split: `python examples/make_sounds.py`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from relisten.audio import Clip, write_clip
from relisten.data.scenes import SceneSpec, place_events, record
from relisten.data.synth import Draw
from relisten.data.timbres import SYNTHESIS

FOLDER = Path(__file__).parent
SOUNDS = {
    "drums": (
        8.0,
        "0.3 kick, 0.75 hi-hat, 1.2 snare, 1.65 hi-hat, 2.2 kick, 2.6 snare, 3.0 hi-hat, 3.4 snare, 3.9 kick, "
        "4.4 snare, 5.2 kick, 5.7 clap, 6.15 hi-hat, 6.6 snare, 7.1 clap",
    ),
    "signals": (
        9.0,
        "0.5 voice, 1.9 bell, 3.1 low beep, 4.0 high beep, 4.8 noise burst, 6.3 chirp, 7.3 bell",
    ),
}
QUESTIONS = (
    ("drums", "How many snare hits between 2 and 5 seconds?", ("2", "3", "4", "5"), "3"),
    ("drums", "Is there a bell in the clip?", ("yes", "no"), "no"),
    ("drums", "How many claps are there in all?", ("1", "2", "3", "4"), "2"),
    ("drums", "Which sound comes right after the first clap?", ("kick", "hi-hat", "snare", "clap"), "hi-hat"),
    ("signals", "What is the first sound?", ("bell", "voice", "chirp", "kick"), "voice"),
    ("signals", "Which sound is the last one?", ("low beep", "noise burst", "bell", "voice"), "bell"),
    ("signals", "Does the bell come before the chirp?", ("yes", "no"), "yes"),
    ("signals", "Is there a clap between 3 and 6 seconds?", ("yes", "no"), "no"),
)


def main() -> None:
    spec = SceneSpec(snr=(30.0, 40.0), codec_share=0.0, silent_share=0.0, peak=(-3.0, -3.0), gain=(-6.0, 0.0))
    for number, (name, (duration, score)) in enumerate(SOUNDS.items()):
        draw = Draw("test", np.random.default_rng([2602, 11909, number]))
        notes = [note.strip().split(" ", 1) for note in score.split(",")]
        takes = {label: [SYNTHESIS[label](draw)] for label in sorted({label for _, label in notes})}
        plan = [(float(onset), label, takes[label]) for onset, label in notes]
        dry, events = place_events(draw, spec, duration, plan)
        write_clip(FOLDER / f"{name}.flac", Clip.from_samples(record(draw, spec, dry, events)))
    rows = [
        {"id": f"{name}-{number}", "audio": f"{name}.flac", "question": text, "choices": choices, "answer": answer}
        for number, (name, text, choices, answer) in enumerate(QUESTIONS, start=1)
    ]
    (FOLDER / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
