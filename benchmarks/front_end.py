"""Mel features of a crop: ours against the stock extractor, side by side in one run.

    python benchmarks/front_end.py [--threads 1] [--json] [--out FILE]

A 3 s crop and a 10 s clip, with Qwen2.5-Omni-7B's settings and with echo-tiny's. The stock extractor pads each to
300 s, as Qwen2.5-Omni's processor does; both give the same numbers on the frames that exist
(tests/models/test_mel.py).
"""

from __future__ import annotations

import time
from functools import partial

from _measuring import Figure, Run, alternate, arguments, noise
from transformers import WhisperFeatureExtractor

from relisten.audio import SAMPLE_RATE, Clip
from relisten.models.mel import LogMel

PADDED_SECONDS = 300
SETTINGS = {
    "Qwen2.5-Omni-7B": {"n_mels": 128, "n_fft": 400, "hop_length": 160},
    "echo-tiny": {"n_mels": 128, "n_fft": 512, "hop_length": 320},
}
OURS_AT_ONCE = 20  # one alone is too short to be timed well


def ours(mel: LogMel, clip: Clip) -> float:
    began = time.perf_counter()
    for _ in range(OURS_AT_ONCE):
        mel([clip])
    return (time.perf_counter() - began) / OURS_AT_ONCE


def stock(extractor: WhisperFeatureExtractor, clip: Clip) -> float:
    began = time.perf_counter()
    extractor(
        clip.samples,
        sampling_rate=SAMPLE_RATE,
        padding="max_length",
        return_attention_mask=True,
        return_tensors="pt",
    )
    return time.perf_counter() - began


def main() -> None:
    options = arguments(__doc__, model=None).parse_args()
    run = Run(options)
    figures = []
    for name, settings in SETTINGS.items():
        mel = LogMel(**settings, max_samples=PADDED_SECONDS * SAMPLE_RATE)
        extractor = WhisperFeatureExtractor(
            feature_size=settings["n_mels"],
            n_fft=settings["n_fft"],
            hop_length=settings["hop_length"],
            chunk_length=PADDED_SECONDS,
        )
        for seconds in (3.0, 10.0):
            clip = noise(seconds)
            sides = {"ours": partial(ours, mel, clip), "stock": partial(stock, extractor, clip)}
            found = alternate(sides, options.repeats)
            what = f"{seconds:g} s, settings of {name}"
            figures += [
                Figure(f"{what}: ours", 1000 * found["ours"], "ms"),
                Figure(f"{what}: stock", 1000 * found["stock"], "ms"),
                Figure(f"{what}: times faster", found["stock"] / found["ours"], goal="50" if seconds == 3 else ""),
            ]
    run.finish(figures)


if __name__ == "__main__":
    main()
