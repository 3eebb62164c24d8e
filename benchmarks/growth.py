"""How the cost of answers grows: with the clip's length, with the number of listens, and with how many there are.

    python benchmarks/growth.py [--model MODEL] [--threads 1] [--json] [--out FILE]

1. Seconds to the first token of a clip of 10 s to 10 min, and seconds a listen of 3 s in it.
2. Seconds of an answer of 150 tokens over a 10 s clip with 0 to 8 listens of 3 s.
3. Tokens a second of 1 to 256 answers that listen twice.

Clips longer than the checkpoint's context are computed all the same: only the time counts here.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial

from _measuring import Figure, Run, alternate, arguments, decode, one_answer, question, time_listen

from relisten.engines.native import NativeEngine
from relisten.models import load
from relisten.protocol import Format, Segment
from relisten.question import Question
from relisten.trace import Sampling

CLIPS = (10, 30, 60, 120, 300, 600)
LISTENS = (0, 1, 2, 4, 8)
ROWS = (1, 8, 64, 256)
TOKENS = 150


async def first_token(engine: NativeEngine, asked: Question) -> tuple[float, float]:
    """Seconds to the first token, and of a listen behind it."""
    stream = engine.open(asked, asked.clip(), Format.INTERLEAVED, Sampling())
    began = time.perf_counter()
    await decode(stream, 1)
    first = time.perf_counter() - began
    again, _ = await time_listen(stream, Segment(2.0, 5.0))
    stream.close()
    return first, again


async def answers(engine: NativeEngine, asked: list[Question], listens: int, tokens: int) -> float:
    """Seconds of answers of that many tokens, all at once."""
    segments = [Segment(0.5 * number, 0.5 * number + 3.0) for number in range(listens)]
    began = time.perf_counter()
    await asyncio.gather(*(one_answer(engine, question, tokens, segments) for question in asked))
    return time.perf_counter() - began


def main() -> None:
    parser = arguments(__doc__, repeats=5)
    parser.add_argument("--longest", type=float, default=600, help="seconds; leaves out longer clips")
    parser.add_argument("--rows", type=int, default=256, help="leaves out more answers at once")
    options = parser.parse_args()
    run = Run(options)
    family = load(options.model, dtype="float32")
    family.context_size = 1 << 20
    clips = [seconds for seconds in CLIPS if seconds <= options.longest]
    rows = [count for count in ROWS if count <= options.rows]
    asked = [question(10.0, row) for row in range(max(rows))]
    with NativeEngine(family, max_rows=max(rows)) as engine:
        listening: dict[int, list[float]] = {seconds: [] for seconds in clips}

        def length(seconds: int, about: Question) -> float:
            first, listen = asyncio.run(first_token(engine, about))
            listening[seconds].append(listen)
            return first

        lengths = alternate({str(s): partial(length, s, question(s)) for s in clips}, options.repeats)
        by_listens = alternate(
            {str(n): lambda n=n: asyncio.run(answers(engine, asked[:1], n, TOKENS)) for n in LISTENS},
            options.repeats,
        )
        by_rows = alternate(
            {str(n): lambda n=n: asyncio.run(answers(engine, asked[:n], 2, TOKENS)) for n in rows}, options.repeats
        )
    figures = []
    for seconds in clips:
        middle = sorted(listening[seconds][1:])[options.repeats // 2]
        figures += [
            Figure(f"clip of {seconds} s: to the first token", 1000 * lengths[str(seconds)], "ms"),
            Figure(f"clip of {seconds} s: a 3 s listen", 1000 * middle, "ms"),
        ]
    figures += [
        Figure(f"{n} listens: an answer of {TOKENS} tokens", 1000 * by_listens[str(n)], "ms") for n in LISTENS
    ]
    figures += [Figure(f"{n} answers at once", n * TOKENS / by_rows[str(n)], "tokens/s") for n in rows]
    run.finish(figures)


if __name__ == "__main__":
    main()
