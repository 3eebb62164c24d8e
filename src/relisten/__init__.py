"""Audio models that answer by listening again."""

from typing import TYPE_CHECKING

from relisten.audio import Clip
from relisten.engines.drive import Piece
from relisten.errors import DivergedError, EngineError, InputError, RelistenError
from relisten.listener import Listener
from relisten.protocol import Finish, Format, Listen, Reason, Segment, Skip, Stop
from relisten.question import BadQuestionError, Question, read_questions
from relisten.trace import Routing, Sampling, Trace

if TYPE_CHECKING:
    from relisten.router.answering import Router
else:

    def __getattr__(name):
        """`Router` is imported when it is first asked for: most programs use no audio tools."""
        if name != "Router":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from relisten.router.answering import Router

        return Router


__all__ = [
    "BadQuestionError",
    "Clip",
    "DivergedError",
    "EngineError",
    "Finish",
    "Format",
    "InputError",
    "Listen",
    "Listener",
    "Piece",
    "Question",
    "Reason",
    "RelistenError",
    "Router",
    "Routing",
    "Sampling",
    "Segment",
    "Skip",
    "Stop",
    "Trace",
    "read_questions",
]
