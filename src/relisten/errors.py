"""The errors that a user can cause or mend. Everything else is a bug and keeps its traceback."""

from __future__ import annotations


class RelistenError(Exception):
    """Base of every error this package raises on purpose; its message says value, rule and remedy."""


class InputError(RelistenError, ValueError):
    """Something the user gave (a file, a question, an option, a checkpoint) cannot be used as it is."""


class EngineError(RelistenError, RuntimeError):
    """An engine could not go on with an answer. Where a step of many answers failed, all of those fail; others in
    flight are not affected."""


class DivergedError(RelistenError, RuntimeError):
    """Training cannot go on: a loss or a gradient is no number any more. What was saved before stays."""
