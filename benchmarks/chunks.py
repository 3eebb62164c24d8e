"""What the chunk cache saves: how much of a listen's sound the clip's own encoding holds already, to the bit.

    python benchmarks/chunks.py [--clips 100] [--seconds 30] [--json] [--out FILE]

Simulated scenes of 30 s, crops of 3 to 10 s at times rounded to 0.1 s as models write them. For the tower of
Qwen2.5-Omni-7B, which hears chunks of 2 s each on its own, the share of frames that need no encoding: for crops as
asked for, and widened to the grid (`NativeEngine(align=True)`), where also the frames that are left to encode are
told as a multiple of those of the crop as asked for. No weights are needed: a chunk is known exactly where its mel
features are equal.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from _measuring import Figure, Run, arguments
from torch import Tensor

from relisten.audio import SAMPLE_RATE, Clip
from relisten.data.scenes import SceneSpec, simulate_many
from relisten.models.mel import LogMel
from relisten.models.tower import ChunkCache
from relisten.protocol import Segment

CHUNK_FRAMES, HOP = 200, 160
GRID = CHUNK_FRAMES * HOP / SAMPLE_RATE
CROPS = (3.0, 4.0, 6.0, 10.0)
CROPS_A_CLIP = 4


def chunks(mel: LogMel, clip: Clip) -> Iterator[Tensor]:
    yield from mel([clip])[0].split(CHUNK_FRAMES, dim=1)


def main() -> None:
    parser = arguments(__doc__, model=None, repeats=None)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of the clips, at least 10")
    options = parser.parse_args()
    run = Run(options)
    mel, random = LogMel(), np.random.default_rng(0)
    spec = SceneSpec(duration=(options.seconds, options.seconds), long_share=0.0)
    frames = {(seconds, aligned): np.zeros(2) for seconds in CROPS for aligned in (False, True)}
    for scene in simulate_many("test", 0, 0, options.clips, spec, processes=1):
        clip = scene.clip
        known = {ChunkCache.key(chunk) for chunk in chunks(mel, clip)}
        for seconds, aligned in frames:
            for _ in range(CROPS_A_CLIP):
                start = round(random.uniform(0, clip.duration - seconds), 1)
                asked = Segment(start, start + seconds)
                heard = asked.widened(GRID, clip.duration) if aligned else asked
                for chunk in chunks(mel, clip.crop(heard.start, heard.end)):
                    found = ChunkCache.key(chunk) in known
                    frames[seconds, aligned] += (chunk.shape[1], chunk.shape[1] * found)
    figures = []
    for seconds in CROPS:
        (all_, found), (wide, wide_found) = frames[seconds, False], frames[seconds, True]
        figures += [
            Figure(f"crops of {seconds:g} s: known already", 100 * found / all_, "%"),
            Figure(f"crops of {seconds:g} s, aligned: known already", 100 * wide_found / wide, "%"),
            Figure(
                f"crops of {seconds:g} s, aligned: frames left to encode, over unaligned",
                (wide - wide_found) / (all_ - found or 1),
            ),
        ]
    run.finish(figures, grid_seconds=GRID, clips=options.clips)


if __name__ == "__main__":
    main()
