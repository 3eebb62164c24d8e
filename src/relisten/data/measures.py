"""What a set is like: counts, lengths, answer balance, and how varied its reasoning is, in one pass.

Variety of the reasoning (the text within `<think>`), with times and tags taken out, since those differ anyway:

| measure | what it is |
|---|---|
| distinct-n | different n-grams of words over all n-grams, over a sample of `SAMPLE` responses |
| near-duplicates | share of that sample whose word 3-grams agree by 0.8 or more (Jaccard) with an earlier one |
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from relisten.data.examples import Example
from relisten.data.manifest import ClipRecord
from relisten.protocol import Segment, split_at_listens

SAMPLE: Final = 20_000
"""Responses that distinct-n and near-duplicates are measured on; the sample is drawn evenly from the whole file."""
NEAR: Final = 0.8
_HASHES: Final = 64
_BANDS: Final = 16
_TOP: Final = 5_000
"""Different labels or answers that are counted one by one; what comes later is counted as "other"."""
_BINS: Final = 20
_TAG: Final = re.compile(r"<seg>[^<]*</seg>")
_THINK: Final = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")
_WORD: Final = re.compile(r"[^\W_]+(?:['-][^\W_]+)*|#")
_WHOLE_CLIP: Final = 1e6


@dataclass
class Spread:
    """Number, mean and extremes of a quantity, and a histogram over equal bins of a given range."""

    low: float
    high: float
    count: int = 0
    total: float = 0.0
    least: float = float("inf")
    most: float = float("-inf")
    bins: list[int] = field(default_factory=lambda: [0] * _BINS)

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        self.least = min(self.least, value)
        self.most = max(self.most, value)
        place = int((value - self.low) / (self.high - self.low) * _BINS)
        self.bins[max(0, min(_BINS - 1, place))] += 1

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None

    def to_json(self) -> dict[str, Any]:
        if not self.count:
            return {"count": 0}
        return {
            "count": self.count,
            "mean": round(self.total / self.count, 4),
            "min": round(self.least, 4),
            "max": round(self.most, 4),
            "range": [self.low, self.high],
            "histogram": self.bins,
        }


class Tally(Counter[str]):
    """A counter that names no more than `_TOP` different things."""

    def note(self, name: str) -> None:
        self[name if name in self or len(self) < _TOP else "other"] += 1


@dataclass
class ClipMeasures:
    """A manifest as a whole."""

    clips: int = 0
    splits: Tally = field(default_factory=Tally)
    labels: Tally = field(default_factory=Tally)
    label_sets: Tally = field(default_factory=Tally)
    kinds: Counter[str] = field(default_factory=Counter)
    """How many clips have events, turns, musical facts, or labels that are not complete."""
    durations: Spread = field(default_factory=lambda: Spread(0, 30))
    events: Spread = field(default_factory=lambda: Spread(0, 40))
    lengths: Spread = field(default_factory=lambda: Spread(0, 10))
    onsets: Spread = field(default_factory=lambda: Spread(0, 1))
    """Where events begin, as parts of their clip."""

    def add(self, record: ClipRecord) -> None:
        self.clips += 1
        self.splits.note(record.split or "none")
        self.label_sets.note(record.label_set or "none")
        self.durations.add(record.duration)
        self.kinds["events"] += record.events is not None
        self.kinds["turns"] += record.turns is not None
        self.kinds["music"] += record.music is not None
        self.kinds["not complete"] += not record.complete
        if record.events is not None:
            self.events.add(len(record.events))
        for event in record.events or ():
            self.labels.note(event.label)
            self.lengths.add(event.duration)
            self.onsets.add(event.onset / record.duration)

    def to_json(self) -> dict[str, Any]:
        return {
            "clips": self.clips,
            "hours": round(self.durations.total / 3600, 4),
            "splits": dict(self.splits),
            "with": dict(self.kinds),
            "label_sets": dict(self.label_sets.most_common()),
            "labels": dict(self.labels.most_common()),
            "duration": self.durations.to_json(),
            "events_per_clip": self.events.to_json(),
            "event_length": self.lengths.to_json(),
            "event_onset": self.onsets.to_json(),
        }


@dataclass
class ExampleMeasures:
    """A file of questions as a whole."""

    questions: int = 0
    answered: int = 0
    clips: set[bytes] = field(default_factory=set)
    """Eight bytes of the hash of each clip's path."""
    kinds: Tally = field(default_factory=Tally)
    splits: Tally = field(default_factory=Tally)
    difficulty: Tally = field(default_factory=Tally)
    answers: dict[str, Tally] = field(default_factory=dict)
    """Answers by kind of question."""
    places: dict[int, Counter[int]] = field(default_factory=dict)
    """Where the answer stands among the choices, by how many choices there are."""
    not_among: int = 0
    """Questions whose answer is not among their choices."""
    words: Spread = field(default_factory=lambda: Spread(0, 200))
    segments: Spread = field(default_factory=lambda: Spread(0, 10))
    segment_length: Spread = field(default_factory=lambda: Spread(0, 10))
    segment_place: Spread = field(default_factory=lambda: Spread(0, 1))
    """Middles of segments as parts of their clip, where the clip's length is known."""
    sampled: list[str] = field(default_factory=list)
    _every: int = 1
    _seen: int = 0

    def add(self, example: Example) -> None:
        question = example.question
        self.questions += 1
        audio = str(question.audio).encode("utf-8", "surrogatepass")
        self.clips.add(hashlib.blake2b(audio, digest_size=8).digest())
        self.kinds.note(example.kind or "none")
        self.splits.note(str(question.metadata.get("split") or "none"))
        self.difficulty.note(example.difficulty or "none")
        if question.answer is not None:
            self.answered += 1
            self.answers.setdefault(example.kind or "none", Tally()).note(question.answer)
            if question.answer in question.choices:
                count = len(question.choices)
                self.places.setdefault(count, Counter())[question.choices.index(question.answer)] += 1
            elif question.choices:
                self.not_among += 1
        if example.response:
            self._add_response(example)

    def _add_response(self, example: Example) -> None:
        thought = _thought(example.response)
        self.words.add(len(_TAG.sub(" ", thought).split()))
        length = example.question.metadata.get("duration")
        known = isinstance(length, (int, float)) and length > 0
        duration = float(length) if isinstance(length, (int, float)) and known else _WHOLE_CLIP
        parts = [part for part in split_at_listens(example.response, duration) if isinstance(part, Segment)]
        self.segments.add(len(parts))
        for part in parts:
            self.segment_length.add(part.duration)
            if known:
                self.segment_place.add((part.start + part.end) / 2 / duration)
        # Every k-th response, k doubling as the sample fills up: even over the file, whatever its length.
        if self._seen % self._every == 0:
            self.sampled.append(_plain(thought))
            if len(self.sampled) > SAMPLE:
                self.sampled = self.sampled[::2]
                self._every *= 2
        self._seen += 1

    def to_json(self) -> dict[str, Any]:
        found = {
            "questions": self.questions,
            "clips": len(self.clips),
            "with_response": self.words.count,
            "with_answer": self.answered,
            "answer_not_among_choices": self.not_among,
            "kinds": dict(self.kinds.most_common()),
            "splits": dict(self.splits.most_common()),
            "difficulty": dict(self.difficulty.most_common()),
            "answer_places": {
                str(count): [places[at] for at in range(count)] for count, places in sorted(self.places.items())
            },
            "commonest_answer": {
                kind: {"answer": name, "share": round(number / tally.total(), 4)}
                for kind, tally in sorted(self.answers.items())
                for name, number in tally.most_common(1)
            },
        }
        if self.words.count:
            found["reasoning"] = {
                "words": self.words.to_json(),
                "segments": self.segments.to_json(),
                "segment_length": self.segment_length.to_json(),
                "segment_place": self.segment_place.to_json(),
                "sampled": len(self.sampled),
                **{f"distinct_{n}": _rounded(distinct(self.sampled, n)) for n in (1, 2, 3)},
                "near_duplicates": _rounded(near_duplicates(self.sampled)),
            }
        return found


def distinct(texts: list[str], n: int) -> float | None:
    """Different n-grams of words over all of them, 0 to 1; None where there is no n-gram."""
    found: set[int] = set()
    total = 0
    for text in texts:
        for gram in _grams(text, n):
            found.add(hash(gram))
            total += 1
    return len(found) / total if total else None


def near_duplicates(texts: list[str], least: float = NEAR) -> float | None:
    """Share of texts whose word 3-grams agree with those of an earlier text by `least` or more (Jaccard).

    MinHash of 64 values in 16 bands finds the candidates, so the cost grows with the number of texts and not with
    its square; the agreement itself is estimated from the 64 values (standard error at most 0.06).
    """
    if not texts:
        return None
    rng = np.random.default_rng(0)
    factors = rng.integers(1, 2**61, size=(2, _HASHES, 1), dtype=np.uint64) | np.uint64(1)
    buckets: list[dict[bytes, list[int]]] = [{} for _ in range(_BANDS)]
    signatures = np.zeros((len(texts), _HASHES), np.uint64)
    rows = _HASHES // _BANDS
    doubles = 0
    for number, text in enumerate(texts):
        signature = _signature(text, factors)
        signatures[number] = signature
        near = False
        for band in range(_BANDS):
            key = signature[band * rows : (band + 1) * rows].tobytes()
            held = buckets[band].setdefault(key, [])
            # A few of a crowded bucket are enough: they are all alike.
            if not near:
                near = any(np.mean(signatures[other] == signature) >= least for other in held[:8])
            held.append(number)
        doubles += near
    return doubles / len(texts)


def _signature(text: str, factors: NDArray[np.uint64]) -> NDArray[np.uint64]:
    grams = {
        int.from_bytes(hashlib.blake2b(" ".join(g).encode(), digest_size=8).digest(), "little")
        for g in _grams(text, 3)
    }
    values = np.fromiter(grams or {0}, np.uint64)
    found: NDArray[np.uint64] = (values * factors[0] + factors[1]).min(axis=1)
    return found


def _grams(text: str, n: int) -> Iterator[tuple[str, ...]]:
    words = text.split()
    return (tuple(words[at : at + n]) for at in range(len(words) - n + 1))


def _thought(response: str) -> str:
    found = _THINK.search(response)
    return found[1] if found else response


def _plain(thought: str) -> str:
    """The words of a reasoning without tags, times and case."""
    return " ".join(_WORD.findall(_NUMBER.sub("#", _TAG.sub(" ", thought)).casefold()))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
