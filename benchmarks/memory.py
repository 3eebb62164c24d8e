"""Memory of an answer in flight: ours, and by arithmetic what the stock way holds for its sounds.

    python benchmarks/memory.py [--model MODEL] [--rows 256] [--json] [--out FILE]

`--rows` answers about 10 s clips that listened twice for 3 s stand open at once. What this process grew by, divided
by their number, is measured. What their keys and values need is arithmetic, and so are the features the stock way
holds for the same sounds, each padded to 300 s.
"""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path

from _measuring import Figure, Run, arguments, decode, question
from _stock import PADDED_SECONDS

from relisten.audio import SAMPLE_RATE
from relisten.engines.native import NativeEngine
from relisten.models import load
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.protocol import Format, Segment
from relisten.trace import Sampling

LISTENS = (Segment(1.0, 4.0), Segment(5.0, 8.0))
TOKENS = 20  # between listens: their number is what matters, not how long it takes to sample them


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = arguments(__doc__, repeats=None)
    parser.add_argument("--rows", type=int, default=256)
    options = parser.parse_args()
    run = Run(options)
    family = load(options.model, dtype="float32")
    assert isinstance(family, Qwen2_5Omni)
    asked = [question(10.0, row) for row in range(options.rows)]
    config = family.thinker.config.text_config
    heads = config.num_key_value_heads * config.hidden_size // config.num_attention_heads
    a_token = 2 * config.num_hidden_layers * heads * family.lm_head.weight.element_size()

    async def fill(engine: NativeEngine, count: int) -> int:
        """Tokens of one of `count` answers that are open together, and closed again."""
        streams = [engine.open(each, each.clip(), Format.INTERLEAVED, Sampling()) for each in asked[:count]]

        async def one(index: int) -> int:
            stream = streams[index]
            tokens = len(stream.prompt.ids) + len(await decode(stream, TOKENS))
            for segment in LISTENS:
                heard = stream.listen(segment)
                assert heard is not None
                tokens += len(heard.ids) + len(await decode(stream, TOKENS))
            return tokens

        tokens = await asyncio.gather(*(one(index) for index in range(count)))
        grown.append(resident())
        for stream in streams:
            stream.close()
        return tokens[0]

    grown: list[int] = []
    with NativeEngine(family, max_rows=options.rows) as engine:
        asyncio.run(fill(engine, 2))  # what the first answers allocate once and for all
        tokens = asyncio.run(fill(engine, options.rows))
    mel = family.mel
    padded = (1 + len(LISTENS)) * mel.n_mels * mel.num_frames(PADDED_SECONDS * SAMPLE_RATE) * 4
    run.finish(
        [
            Figure(
                f"grown by, an answer of {tokens} tokens", (grown[1] - grown[0]) / (options.rows - 2) / 1e6, "MB"
            ),
            Figure("its keys and values by arithmetic", tokens * a_token / 1e6, "MB"),
            Figure("features the stock way holds for its sounds, by arithmetic", padded / 1e6, "MB"),
        ]
    )


if __name__ == "__main__":
    main()
