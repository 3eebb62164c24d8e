"""The arms of the ablation (Echo, table 4), and one beyond it. Plain data.

| arm | supervised | reinforced on | format |
|---|---|---|---|
| A | no | no | text |
| B | yes | no | grounded |
| B' | yes | questions about windows | grounded |
| C | yes | no | interleaved |
| D | yes | questions about windows | interleaved |
| D' | yes | questions about whole clips | interleaved |
| E | no | questions about windows | text |
| E' | no | questions about whole clips | text |
| F | yes | questions about windows | interleaved, every listen at half speed |

Supervised fine-tuning is always on grounded responses, into which nothing is inserted, as in the paper. Questions
about windows stand for EAQA-RL: most name a stretch of the clip in seconds. Questions about whole clips stand for
AVQA, the less grounded set: none names a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from relisten.errors import InputError
from relisten.protocol import Format


@dataclass(frozen=True)
class Arm:
    """One row of the table."""

    name: str
    about: str
    format: Format
    supervised: bool = False
    questions: str = ""
    """The set it is reinforced on; none where it is not."""
    reward: str = ""
    crop_speed: float = 1.0

    @property
    def folder(self) -> str:
        """Its name as part of a path."""
        return self.name.replace("'", "-prime")


WINDOWS: Final = "windows"
WHOLE: Final = "whole"
_TEXT: Final = "format + accuracy"

ARMS: Final = {
    arm.name: arm
    for arm in (
        Arm("A", "base", Format.TEXT),
        Arm("B", "SFT", Format.GROUNDED, True),
        Arm("B'", "SFT, RL without listening", Format.GROUNDED, True, WINDOWS, "grounded"),
        Arm("C", "SFT, listening switched on", Format.INTERLEAVED, True),
        Arm("D", "SFT, RL with listening", Format.INTERLEAVED, True, WINDOWS, "paper"),
        Arm("D'", "as D, other questions", Format.INTERLEAVED, True, WHOLE, "paper"),
        Arm("E", "RL from the base", Format.TEXT, False, WINDOWS, _TEXT),
        Arm("E'", "as E, other questions", Format.TEXT, False, WHOLE, _TEXT),
        Arm("F", "as D, listens at half speed", Format.INTERLEAVED, True, WINDOWS, "paper", 0.5),
    )
}

PAIRS: Final = (
    ("D", "A", "all of it"),
    ("B", "A", "SFT alone"),
    ("B'", "B", "RL without listening"),
    ("D", "C", "RL with listening"),
    ("D", "B'", "RL with listening, over RL without it, both from SFT"),
    ("E", "A", "RL alone"),
    ("D", "E", "SFT and listening, over RL alone"),
    ("D", "D'", "grounded questions for RL"),
    ("E", "E'", "the same without listening"),
    ("F", "D", "half speed"),
)
"""Comparisons of one arm with another, and what they tell."""

AT_EQUAL_TIME: Final = (("D", "B'"), ("D", "E"))
"""Of which arms the first is asked as it was when the second had done all of its steps of reinforcement; the time
of SFT counts."""


def find_arms(names: Iterable[str]) -> tuple[Arm, ...]:
    """Arms by name, in the table's order; all of them for none.

    Raises:
        InputError: there is no such arm.
    """
    wanted = {name.strip().upper().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'") for name in names}
    if unknown := sorted(wanted - ARMS.keys()):
        raise InputError(f"arm {unknown[0]!r}: there is none; name some of {' '.join(ARMS)}")
    return tuple(arm for name, arm in ARMS.items() if not wanted or name in wanted)
