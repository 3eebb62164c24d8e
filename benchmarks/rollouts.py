"""What rollouts of reinforcement learning cost, as ratios measured side by side in one run.

    python benchmarks/rollouts.py [--model MODEL] [--questions N] [--threads 1 2] [--json] [--out FILE]

1. Rollouts a second: N questions x 8 sampled answers, all at once in the native engine, against the way of Echo's
   released code: one answer at a time, and at every turn the whole text sent again with all its sounds, each padded
   to 300 s by `WhisperFeatureExtractor`. The stock side replays 16 answers of ours in a round, evenly spread over
   how much they listen and write, so that both write the same tokens and hear the same crops; its turns run on
   transformers' own forward with its own cache.
2. Memory of features a rollout: mel features of true length, a question's once for its group, against padded ones.
3. How many crops answers to one question hear twice, which the chunk cache encodes once.

Both sides alternate, and medians are compared, so that a busy machine slows both alike. Each side works with each
of `--threads`, and the best of each counts.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Sequence

import torch
from _measuring import Figure, Run, arguments, scene_questions
from _stock import PADDED_SECONDS, Stock, counts, spread

from relisten.audio import SAMPLE_RATE
from relisten.engines.native import NativeEngine
from relisten.models import load
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.processes import usable_processors
from relisten.protocol import Format
from relisten.question import Question
from relisten.trace import Sampling
from relisten.train.grpo.rollouts import Rollout, roll_out
from relisten.train.rewards import Reward

GROUP = 8
REPLAYED = 16  # answers of the stock side in a round
BYTES = 4


def ours(engine: NativeEngine, asked: Sequence[Question], turn: int) -> tuple[float, list[Rollout]]:
    """Seconds a rollout, and the rollouts."""
    began = time.perf_counter()
    groups = roll_out(
        engine,
        asked,
        GROUP,
        Reward.parse("paper"),
        format=Format.INTERLEAVED,
        sampling=Sampling(1.0, max_tokens=256),
        seed=(0, turn),
    )
    return (time.perf_counter() - began) / (len(asked) * GROUP), [one for group in groups for one in group]


def feature_bytes(family: Qwen2_5Omni, rollouts: Sequence[Rollout]) -> tuple[float, float]:
    """Mean bytes of mel features a rollout: ours and padded."""
    mel = family.mel
    padded = mel.n_mels * mel.num_frames(PADDED_SECONDS * SAMPLE_RATE) * BYTES
    true, stock = [], []
    for one in rollouts:
        assert one.clip is not None
        crops = [one.clip.crop(s.start, s.end) for s in one.trace.segments]
        frames = mel.num_frames(one.clip.num_samples) / GROUP + sum(mel.num_frames(c.num_samples) for c in crops)
        true.append(mel.n_mels * frames * BYTES)
        stock.append(padded * (1 + len(crops)))
    return statistics.mean(true), statistics.mean(stock)


def known(rollouts: Sequence[Rollout]) -> float:
    """The share of crops that an answer to the same question has listened to before, to the sample."""
    heard = [(id(one.clip), segment) for one in rollouts for segment in one.trace.segments]
    return 1 - len(set(heard)) / max(1, len(heard))


def main() -> None:
    parser = arguments(__doc__, repeats=5, threads=sorted({1, usable_processors()}))
    parser.add_argument("--questions", type=int, default=16)
    options = parser.parse_args()
    run = Run(options)
    family = load(options.model, dtype="float32")
    assert isinstance(family, Qwen2_5Omni)
    stock, asked = Stock(family), scene_questions(options.questions)
    seconds: dict[tuple[str, int], list[float]] = {}
    answers, rollouts = [], []
    with contextlib.ExitStack() as stack:
        engines = {}
        for threads in options.threads:
            engines[threads] = stack.enter_context(
                NativeEngine(family, max_rows=options.questions * GROUP, lockstep=True, threads=threads)
            )
        for turn in range(options.repeats + 1):
            for threads, engine in engines.items():
                torch.set_num_threads(threads)  # of this thread, which the stock way runs on
                fast, rollouts = ours(engine, asked, turn)
                traces = [one.trace for one in rollouts]
                few = spread(traces, REPLAYED)
                slow = statistics.mean(stock.replay(traces[place], rollouts[place].clip).seconds for place in few)
                if turn > 0:  # the first warms up
                    seconds.setdefault(("ours", threads), []).append(fast)
                    seconds.setdefault(("released", threads), []).append(slow)
                    answers.append({"all": counts(traces), "replayed": counts([traces[place] for place in few])})
    medians = {key: statistics.median(found) for key, found in seconds.items()}
    (ours_s, threads), (released_s, released_threads) = (
        min((medians[side, threads], threads) for threads in options.threads) for side in ("ours", "released")
    )
    true, padded = feature_bytes(family, rollouts)
    run.finish(
        [
            Figure("rollouts", 1 / ours_s, "a second"),
            Figure("rollouts the released way", 1 / released_s, "a second"),
            Figure("times as many as the released way", released_s / ours_s, goal="20"),
            Figure("features of a rollout", true / 1e6, "MB"),
            Figure("features of a rollout, padded", padded / 1e6, "MB"),
            Figure("times less memory for features", padded / true, goal="30"),
            Figure("crops known from an answer to the same question", 100 * known(rollouts), "%"),
        ],
        threads={"ours": threads, "released": released_threads},
        seconds=[
            {"side": side, "threads": threads, "rollout": found} for (side, threads), found in medians.items()
        ],
        answers=answers,
    )


if __name__ == "__main__":
    main()
