"""Where everything of a reproduction is:

OUT/plan.json                        what is reproduced
OUT/sets/                            clips and questions
OUT/pool/                            scenes of the base
OUT/base/                            what all arms start from, as in the paper: one for all seeds
OUT/seed-0/sft/                      a training that arms share
OUT/seed-0/D/rl/                     an arm's reinforcement
OUT/seed-0/D/test/, greedy/, long/, alone/   its evaluations, as `relisten eval` writes them
OUT/seed-0/D/at-B-prime/test/, greedy/       the same for what it was when B' had done all its steps
OUT/seed-0/D/at-E-with-sft/test/, greedy/    likewise; its time has that of SFT in it, which E has not had
OUT/logs/, OUT/done/                 what jobs printed, and which are done
"""

from __future__ import annotations

from pathlib import Path

from relisten.reproduce.arms import Arm


def sets(folder: Path) -> Path:
    """Clips and questions."""
    return folder / "sets"


def pool(folder: Path) -> Path:
    """Scenes of the base."""
    return folder / "pool"


def base(folder: Path) -> Path:
    """The run of the base."""
    return folder / "base"


def sft(folder: Path, seed: int) -> Path:
    """The run of supervised fine-tuning."""
    return folder / f"seed-{seed}" / "sft"


def arm_folder(folder: Path, seed: int, arm: Arm) -> Path:
    """What belongs to one arm alone: its evaluations and its reinforcement."""
    return folder / f"seed-{seed}" / arm.folder


def rl(folder: Path, seed: int, arm: Arm) -> Path:
    """The run of an arm's reinforcement."""
    return arm_folder(folder, seed, arm) / "rl"


def at_equal_time(folder: Path, seed: int, arm: Arm, other: Arm) -> Path:
    """Evaluations of `arm` as it was when `other` had done all its steps."""
    return arm_folder(folder, seed, arm) / equal_time(arm, other)


def equal_time(arm: Arm, other: Arm) -> str:
    """The name of that moment. Of folders and jobs that older versions did not count SFT for, it is another."""
    return f"at-{other.folder}{'-with-sft' * (arm.supervised != other.supervised)}"


def start(folder: Path, seed: int, arm: Arm) -> Path:
    """The checkpoint that an arm's reinforcement starts from."""
    return (sft(folder, seed) if arm.supervised else base(folder)) / "checkpoint"


def checkpoint(folder: Path, seed: int, arm: Arm) -> Path:
    """What an arm is evaluated with."""
    return rl(folder, seed, arm) / "checkpoint" if arm.questions else start(folder, seed, arm)
