"""What rollouts of reinforcement learning cost, as ratios measured side by side in one run.

    python benchmarks/rollouts.py [--model MODEL] [--questions N] [--json]

1. Rollouts a second: N questions x 8 sampled answers, all at once in the native engine, against the way of Echo's
   released code: one answer at a time, and at every turn the whole text sent again with all its sounds, each padded
   to 300 s by `WhisperFeatureExtractor`. The stock side replays answers of ours, so that both write the same tokens
   and hear the same crops; its turns run on transformers' own forward with its own cache.
2. Memory of features a rollout: mel features of true length, a question's once for its group, against padded ones.

Both sides alternate, and medians are compared, so that a busy machine slows both alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import torch
from transformers import WhisperFeatureExtractor

from relisten.audio import SAMPLE_RATE, Clip
from relisten.engines.native import NativeEngine
from relisten.evaluate.benchmarks.registry import find_benchmark
from relisten.models import load
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.protocol import Format
from relisten.question import Question
from relisten.trace import ListenSpan, Sampling
from relisten.train.grpo.rollouts import Rollout, roll_out
from relisten.train.rewards import Reward

PADDED_SECONDS = 300
GROUP = 8
REPLAYED = 3  # answers of the stock side in a round
BYTES = 4


def questions(count: int) -> list[Question]:
    """Held-out simulated scenes, in memory."""
    rows = (row for row in find_benchmark("scenes").rows(None, None) if isinstance(row, Question))
    return [replace(row, audio=row.clip()) for row in islice(rows, count)]


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


@torch.inference_mode()
def released(family: Qwen2_5Omni, extractor: WhisperFeatureExtractor, rollout: Rollout) -> float:
    """Seconds to write the same answer turn by turn, everything before a turn being sent and computed again."""
    assert rollout.clip is not None
    began = time.perf_counter()
    sounds: list[Clip] = [rollout.clip]
    prompt, *rest = rollout.trace.spans
    ids = list(prompt.ids)
    for span in rest:
        if isinstance(span, ListenSpan):
            sounds.append(rollout.clip.crop(span.segment.start, span.segment.end))
            ids += span.ids
            continue
        features = extractor(
            [sound.samples for sound in sounds],
            sampling_rate=SAMPLE_RATE,
            padding="max_length",
            return_attention_mask=True,
            return_tensors="pt",
        )
        tokens = torch.tensor([ids])
        out = family.thinker(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            input_features=features["input_features"].to(family.dtype),
            feature_attention_mask=features["attention_mask"],
            use_cache=True,
        )
        for place, token in enumerate(span.ids[:-1], start=len(ids)):
            out.logits[0, -1].softmax(-1).multinomial(1)
            out = family.thinker(
                input_ids=torch.tensor([[token]]),
                attention_mask=torch.ones(1, place + 1, dtype=torch.int64),
                position_ids=torch.full((3, 1, 1), place),
                past_key_values=out.past_key_values,
                use_cache=True,
            )
        out.logits[0, -1].softmax(-1).multinomial(1)
        ids += span.ids
    return time.perf_counter() - began


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="echo-tiny")
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    family = load(options.model, dtype="float32")
    assert isinstance(family, Qwen2_5Omni)
    extractor = WhisperFeatureExtractor.from_pretrained(family.source.folder, chunk_length=PADDED_SECONDS)
    asked = questions(options.questions)
    fast, slow, rollouts = [], [], []
    with NativeEngine(family, max_rows=options.questions * GROUP, lockstep=True) as engine:
        for turn in range(options.repeats + 1):
            seconds, rollouts = ours(engine, asked, turn)
            fast.append(seconds)
            replayed = rollouts[turn :: max(1, len(rollouts) // REPLAYED)][:REPLAYED]
            slow.append(statistics.mean(released(family, extractor, one) for one in replayed))
    # The first of each warms up and does not count.
    ours_s, released_s = statistics.median(fast[1:]), statistics.median(slow[1:])
    true, padded = feature_bytes(family, rollouts)
    result = {
        "rollouts_per_s": 1 / ours_s,
        "released_rollouts_per_s": 1 / released_s,
        "times_faster": released_s / ours_s,
        "feature_megabytes": true / 1e6,
        "released_feature_megabytes": padded / 1e6,
        "times_less_memory": padded / true,
    }
    if options.json:
        print(json.dumps(result))
        return
    print(
        f"rollouts a second    ours {result['rollouts_per_s']:.1f}, one at a time {1 / released_s:.2f}: "
        f"{result['times_faster']:.1f} times as many"
    )
    print(
        f"features a rollout   ours {true / 1e6:.2f} MB, padded {padded / 1e6:.1f} MB: "
        f"{result['times_less_memory']:.0f} times less"
    )


if __name__ == "__main__":
    main()
