"""Questions by rule from any manifest: which labels there are, what may be asked of a clip, and many clips at once.

A first pass over the manifest learns each label set: how often a label comes, and which labels sound together so
regularly that they may be two names for one sound (Dog and Bark). A second pass asks. What comes out of a clip
depends on the clip, the seed and those labels, never on the number of processes.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from relisten.audio import Clip
from relisten.data.dialogue import DIALOGUE
from relisten.data.examples import Example, example_row
from relisten.data.harmony import HARMONY
from relisten.data.manifest import ClipRecord, LabelledEvent, parse_record
from relisten.data.parallel import ordered_map
from relisten.data.questions import KINDS as SCENE_KINDS
from relisten.data.questions import Kind
from relisten.data.relations import RELATIONS
from relisten.data.subject import Style, Subject
from relisten.data.timbres import LABELS
from relisten.data.told import Told, ask_tools, choose_told
from relisten.data.wording import Rng
from relisten.errors import InputError
from relisten.jsonl import dump_row, parse_row
from relisten.question import Question
from relisten.tools.cache import ToolCache
from relisten.tools.tool import find_tool

KINDS: Final[Mapping[str, Kind]] = {**SCENE_KINDS, **RELATIONS, **DIALOGUE, **HARMONY}
"""Everything that can be asked, by name."""
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "scenes": tuple(SCENE_KINDS),
    "relations": tuple(RELATIONS),
    "speech": tuple(DIALOGUE),
    "music": tuple(HARMONY),
}
"""Names for several kinds at once."""

SCENES: Final = "scenes"
"""The label set of simulated scenes, whose labels are words of ours."""
_SHORTEST: Final = 1.6
"""Clips below this many seconds leave no room for a window."""
_STRAYS: Final = 8
_TOGETHER: Final = 0.4
"""Share of a label's clips in which another must begin with it for the two to count as names of one sound."""
_FEW: Final = 3
_CHUNK: Final = 64
_ROUNDS: Final = 3
_PLAIN: Final[Mapping[str, Mapping[str, float]]] = {
    "count_window": {"0": 0.2, "1": 0.5},
    "count_all": {"0": 0.2, "1": 0.5},
    "count_before": {"0": 0.3, "1": 0.7},
    "count_after": {"0": 0.3, "1": 0.7},
    "distinct": {"1": 0.25},
    "speaker_turns": {"1": 0.4},
    "speakers": {"1": 0.3},
}
"""How readily a question is kept whose answer would else be the rule: most sounds come once or never."""
_WORD: Final = re.compile(r"[^\W\d_]{3,}")


@dataclass(frozen=True)
class ComposeOptions:
    """What to ask.

    Raises:
        InputError: for an unknown kind or numbers out of range.
    """

    per_clip: int = 5
    kinds: tuple[str, ...] = tuple(KINDS)
    seed: int = 0
    style: Style = Style.FULL
    min_confidence: float = 0.5
    """Clips with an event whose label is less sure are not asked about their sounds."""
    tools: tuple[str, ...] = ()
    """Audio tools whose findings some of the questions show."""
    tool_share: float = 0.5
    """How many of the questions, where there are tools."""
    per_kind: int = 0
    """Most questions of one kind in all, the first ones; 0 for no limit."""

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            raise InputError(f"question kinds {unknown}: use some of {', '.join((*GROUPS, *KINDS))}")
        if self.per_clip < 1 or self.seed < 0 or not 0 <= self.min_confidence <= 1:
            raise InputError(
                f"per clip {self.per_clip}, seed {self.seed}, confidence {self.min_confidence:g}: at least 1, at "
                "least 0, and 0 to 1"
            )
        if not 0 <= self.tool_share <= 1:
            raise InputError(f"tool share {self.tool_share:g}: it must be from 0 to 1")
        if self.per_kind < 0:
            raise InputError(f"per kind {self.per_kind}: at least 1, or 0 for no limit")
        for name in self.tools:
            find_tool(name)


def kinds_named(names: Iterable[str]) -> tuple[str, ...]:
    """Kinds from their names and the names of groups, each once; all of them for no name."""
    found = [kind for name in names for kind in GROUPS.get(name, (name,))]
    return tuple(dict.fromkeys(found)) or tuple(KINDS)


@dataclass
class Vocabulary:
    """What a manifest tells about the labels of one set."""

    clips: Counter[str] = field(default_factory=Counter)
    """In how many clips each label is heard."""
    together: Counter[tuple[str, str]] = field(default_factory=Counter)
    """In how many clips the events of two labels (in this order of letters) begin together."""

    def learn(self, events: Sequence[LabelledEvent], gap: float) -> None:
        """Take in the events of one clip; onsets closer than `gap` seconds are together."""
        self.clips.update({event.label for event in events})
        pairs = set()
        for number, early in enumerate(events):
            for late in events[number + 1 :]:
                if late.onset - early.onset >= gap:
                    break
                if late.label != early.label:
                    pairs.add((min(early.label, late.label), max(early.label, late.label)))
        self.together.update(pairs)

    def akin(self) -> dict[str, frozenset[str]]:
        """Labels that may name one sound: one has all words of the other, or they nearly always begin together."""
        found: dict[str, set[str]] = {label: set() for label in self.clips}
        words = {
            label: {word.removesuffix("s") for word in _WORD.findall(label.casefold())} for label in self.clips
        }
        pairs = [
            (one, other)
            for one, other in itertools.combinations(words, 2)
            if words[one] and words[other] and (words[one] <= words[other] or words[other] <= words[one])
        ]
        for (one, other), number in self.together.items():
            if number >= _FEW and number >= _TOGETHER * min(self.clips[one], self.clips[other]):
                pairs.append((one, other))
        for one, other in pairs:
            found[one].add(other)
            found[other].add(one)
        return {label: frozenset(others) for label, others in found.items() if others}


@dataclass(frozen=True)
class Labels:
    """One label set, ready to ask with."""

    names: tuple[str, ...]
    weights: tuple[float, ...]
    akin: Mapping[str, frozenset[str]]


def learn_labels(manifest: Path) -> dict[str, Labels]:
    """The first pass: each label set of a manifest by its name. Bad rows are passed over here.

    Raises:
        InputError: the manifest cannot be read.
    """
    found: dict[str, Vocabulary] = {}
    for chunk in _chunks(manifest):
        for where, line in chunk:
            record = _record(where, line, manifest.parent)
            if isinstance(record, ClipRecord) and record.events and record.label_set != SCENES:
                gap = max(0.15, 2 * record.resolution)
                found.setdefault(record.label_set, Vocabulary()).learn(record.events, gap)
    return {
        name: Labels(
            tuple(sorted(vocabulary.clips)),
            tuple(float(vocabulary.clips[label]) for label in sorted(vocabulary.clips)),
            vocabulary.akin(),
        )
        for name, vocabulary in found.items()
    }


@dataclass(frozen=True)
class Composed:
    """What came out of one stretch of a manifest."""

    rows: tuple[str, ...]
    """Examples as text, a line each."""
    kinds: tuple[str, ...]
    """Of each row."""
    clips: int
    refused: Mapping[str, int]
    """Clips that nothing was asked about, by reason."""
    bad: tuple[InputError, ...]

    def within(self, limit: int, counts: Counter[str]) -> Composed:
        """Without the rows whose kind has had `limit` in `counts`, which goes on counting."""
        kept = []
        for row, kind in zip(self.rows, self.kinds, strict=True):
            counts[kind] += 1
            if counts[kind] <= limit:
                kept.append((row, kind))
        return replace(self, rows=tuple(row for row, _ in kept), kinds=tuple(kind for _, kind in kept))


def compose(
    manifest: Path,
    out_folder: Path,
    options: ComposeOptions,
    processes: int = 1,
    tool_cache: Path | None = None,
) -> Iterator[Composed]:
    """Examples for every clip of a manifest, in order, as the rows of a file that lies in `out_folder`.

    Args:
        tool_cache: where the findings of `options.tools` are kept for another time.

    Raises:
        InputError: the manifest cannot be read.
    """
    labels = learn_labels(manifest)
    make = partial(_composed, manifest.parent, out_folder, labels, options, tool_cache)
    counts: Counter[str] = Counter()
    for composed in ordered_map(make, _chunks(manifest), processes):
        yield composed.within(options.per_kind, counts) if options.per_kind else composed


def compose_record(
    record: ClipRecord, labels: Mapping[str, Labels], options: ComposeOptions, cache: ToolCache | None = None
) -> list[Example] | str:
    """The examples about one clip, or why there are none.

    Raises:
        InputError: tools are asked for and the clip cannot be read, or a tool is not installed.
    """
    rng = clip_rng(record.id, options.seed)
    subject = subject_of(record, labels, options, rng)
    if isinstance(subject, str):
        return subject
    found: dict[str, Example] = {}
    turn = int(rng.integers(12))
    kinds = _allowed(subject, options.kinds)
    told: tuple[Told, ...] = ()
    for _ in range(_ROUNDS):
        for number in rng.permutation(len(kinds)):
            if len(found) == options.per_clip:
                return list(found.values())
            kind = kinds[int(number)]
            given = subject
            if options.tools and rng.random() < options.tool_share:
                told = told or ask_tools(Clip.load(record.audio), options.tools, cache)
                given = replace(subject, told=choose_told(rng, kind, told))
            example = KINDS[kind](given, rng)
            if example is None or example.question.text in found or len(example.question.choices) < 2:
                continue
            if rng.random() < _PLAIN.get(example.kind, {}).get(str(example.question.answer), 1.0):
                question = replace(_placed(example.question, turn), id=f"{record.id}-{len(found)}")
                found[question.text] = replace(example, question=question)
                turn += 1
    return list(found.values()) or "nothing beyond doubt"


def _placed(question: Question, turn: int) -> Question:
    """The question with its answer at the place whose turn it is, so that every place is the answer's as often."""
    choices = [choice for choice in question.choices if choice != question.answer]
    choices.insert(turn % len(question.choices), str(question.answer))
    metadata = {key: value for key, value in question.metadata.items() if key != "kind"}  # the example has it
    return replace(question, choices=tuple(choices), metadata=metadata)


def clip_rng(clip: str, seed: int) -> Rng:
    """The random numbers of one clip: they depend on its id and the seed alone."""
    digest = hashlib.sha256(f"{seed}\0{clip}".encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def subject_of(
    record: ClipRecord, labels: Mapping[str, Labels], options: ComposeOptions, rng: Rng
) -> Subject | str:
    """A manifest row as what questions are made from, or why nothing can be asked."""
    if record.duration < _SHORTEST:
        return f"shorter than {_SHORTEST:g} s"
    if not record.complete:
        return "labels not complete"
    events = record.events or ()
    ours = record.label_set == SCENES
    if any(event.confidence is not None and event.confidence < options.min_confidence for event in events):
        events = ()
    if any(mark in event.label for event in events for mark in '<>"\n'):
        events = ()
    turns = record.turns or ()
    if not (events or turns or record.music):
        return "nothing labelled, or not surely" if record.events != () else "no sound in it"
    known = labels.get(record.label_set)
    present = {event.label for event in events}
    akin = {} if ours or known is None else known.akin
    return Subject(
        name=record.id,
        audio=record.audio,
        duration=record.duration,
        events=events,
        strays=LABELS if ours else _strays(known, present, rng) if known is not None else (),
        akin=akin,
        margin=record.resolution if ours else max(record.resolution, 0.01),
        turns=turns,
        music=record.music,
        style=options.style,
        quoted=not ours,
        metadata={
            "clip": record.id,
            "source": record.origin,
            "split": record.split,
            "hash": record.hash,
            "duration": record.duration,
        },
    )


def _strays(labels: Labels, present: set[str], rng: Rng) -> tuple[str, ...]:
    """Labels that the clip lacks, those that are common in the set more often; none that may be a present sound."""
    close = {other for label in present for other in labels.akin.get(label, ())}
    free = [number for number, name in enumerate(labels.names) if name not in present and name not in close]
    if not free:
        return ()
    weights = np.array([labels.weights[number] for number in free])
    drawn = rng.choice(len(free), size=min(_STRAYS, len(free)), replace=False, p=weights / weights.sum())
    found: list[str] = []
    for number in drawn:
        name = labels.names[free[int(number)]]
        if not any(name in labels.akin.get(other, ()) for other in found):
            found.append(name)
    return tuple(found)


def _allowed(subject: Subject, kinds: Sequence[str]) -> list[str]:
    """The kinds that this subject has any material for."""
    return [
        kind
        for kind in kinds
        if (subject.turns if kind in DIALOGUE else subject.music if kind in HARMONY else subject.events)
    ]


def _composed(
    folder: Path,
    out_folder: Path,
    labels: Mapping[str, Labels],
    options: ComposeOptions,
    tool_cache: Path | None,
    chunk: Sequence[tuple[str, bytes]],
) -> Composed:
    with contextlib.nullcontext() if tool_cache is None else ToolCache(tool_cache) as cache:
        return _composed_with(folder, out_folder, labels, options, cache, chunk)


def _composed_with(
    folder: Path,
    out_folder: Path,
    labels: Mapping[str, Labels],
    options: ComposeOptions,
    cache: ToolCache | None,
    chunk: Sequence[tuple[str, bytes]],
) -> Composed:
    rows: list[str] = []
    kinds: list[str] = []
    refused: Counter[str] = Counter()
    bad: list[InputError] = []
    clips = 0
    for where, line in chunk:
        record = _record(where, line, folder)
        if isinstance(record, InputError):
            bad.append(record)
            continue
        clips += 1
        try:
            examples = compose_record(record, labels, options, cache)
        except InputError as error:
            bad.append(InputError(f"{where}: {error}"))
            continue
        if isinstance(examples, str):
            refused[examples] += 1
            continue
        rows += (dump_row(example_row(example, out_folder)) for example in examples)
        kinds += (example.kind for example in examples)
    return Composed(tuple(rows), tuple(kinds), clips, refused, tuple(bad))


def _record(where: str, line: bytes, folder: Path) -> ClipRecord | InputError:
    row = parse_row(line, where)
    if isinstance(row, InputError):
        return row
    try:
        return parse_record(row[1], folder, where)
    except InputError as error:
        return error


def _chunks(manifest: Path) -> Iterator[list[tuple[str, bytes]]]:
    """The lines of a file, some at a time, each with where it stands."""
    try:
        file = manifest.open("rb")
    except OSError as error:
        raise InputError(f"{manifest}: cannot be read ({error.strerror}); check the path") from None
    with file:
        lines = ((f"{manifest}:{number}", line) for number, line in enumerate(file, 1) if line.strip())
        while chunk := list(itertools.islice(lines, _CHUNK)):
            yield chunk
