"""Clips and questions of a reproduction: training, validation and test apart, in seeds and in sound parameters."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from relisten.data.compose import ComposeOptions, compose
from relisten.data.examples import parse_example
from relisten.data.scenes import SceneSpec
from relisten.data.simulating import MANIFEST, SimulatedSet, SimulateOptions
from relisten.data.subject import Style
from relisten.errors import InputError, RelistenError
from relisten.files import write_whole
from relisten.jsonl import parse_row
from relisten.reproduce.arms import WHOLE, WINDOWS
from relisten.reproduce.plan import LONG_SECONDS, Budget

SFT: Final = "sft"
RL: Final = "rl"
VALIDATION: Final = "validation"
TEST: Final = "test"
LONG: Final = "long"
KINDS: Final = {
    WINDOWS: ("count_window", "first", "last", "exists", "after", "before"),
    WHOLE: ("count_all", "first", "last", "exists"),
}
_PER_CLIP: Final = 4
_CLIPS_PER_QUESTION: Final = 0.4
"""Clips to make for every question that is wanted; a few allow none."""
_TIME: Final = re.compile(r"\d")


@dataclass(frozen=True)
class ClipSet:
    """Some clips and what is asked about them."""

    name: str
    split: str
    seed: int
    clips: int
    asked: tuple[str, ...] = (WINDOWS,)
    limit: int | None = None
    """Questions that are kept."""
    seconds: float | None = None
    """Of clips; None: as the scenes have it."""

    def spec(self, scenes: SceneSpec) -> SceneSpec:
        """Longer clips are as dense as short ones."""
        if self.seconds is None:
            return scenes
        longer = self.seconds / scenes.duration[1]
        events = (round(scenes.events[0] * longer), round(scenes.events[1] * longer))
        return replace(scenes, duration=(self.seconds, self.seconds), events=events)


def clip_sets(budget: Budget) -> tuple[ClipSet, ...]:
    """All sets of a budget."""

    def needed(questions: int) -> int:
        return math.ceil(_CLIPS_PER_QUESTION * questions) + 2

    return (
        ClipSet(SFT, "train", 21, budget.sft_clips),
        ClipSet(RL, "train", 22, budget.rl_clips, (WINDOWS, WHOLE)),
        ClipSet(VALIDATION, "validation", 23, needed(budget.validation), limit=budget.validation),
        ClipSet(TEST, "test", 26, needed(budget.test), limit=budget.test),
        ClipSet(LONG, "test", 27, needed(budget.long_test), limit=budget.long_test, seconds=LONG_SECONDS),
    )


def questions_file(folder: Path, name: str, asked: str = WINDOWS) -> Path:
    """Where the questions of a set are, in the folder of all sets."""
    return folder / name / f"{asked}.jsonl"


def make_set(clips: ClipSet, scenes: SceneSpec, folder: Path, processes: int) -> Iterator[None]:
    """Make a set in `folder`, or what of it is missing; yields after every clip.

    Raises:
        RelistenError: the scenes allow too few questions.
    """
    options = SimulateOptions(clips.split, clips.seed, clips.spec(scenes))
    place = folder / clips.name
    with SimulatedSet(place, options) as made:
        for _ in made.grow(clips.clips, processes):
            yield
    for asked in clips.asked:
        lines = _questions(place, asked, clips.seed)
        if clips.limit is not None and len(lines) < clips.limit:
            raise RelistenError(
                f"{place}: {len(lines)} questions about {clips.clips} clips, {clips.limit} are wanted; scenes that "
                "are less dense allow more"
            )
        write_whole(questions_file(folder, clips.name, asked), "".join(lines[: clips.limit]))


def _questions(place: Path, asked: str, seed: int) -> list[str]:
    """Rows of examples; of those about whole clips only such as name no time."""
    options = ComposeOptions(_PER_CLIP, KINDS[asked], seed, Style.SHORT)
    lines: list[str] = []
    for composed in compose(place / MANIFEST, place, options):
        if composed.bad:
            raise composed.bad[0]
        lines += composed.rows
    if asked == WINDOWS:
        return lines
    return [line for line in lines if not _TIME.search(_text(line, place))]


def _text(line: str, place: Path) -> str:
    row = parse_row(line.encode(), str(place))
    if isinstance(row, InputError):
        raise row
    return parse_example(row[1], place, row[0]).question.text
