"""Audio models that answer by listening again."""

from relisten.audio import Clip
from relisten.engines.drive import Piece
from relisten.errors import EngineError, InputError, RelistenError
from relisten.listener import Listener
from relisten.protocol import Finish, Format, Listen, Segment, Skip, Stop
from relisten.question import Question, read_questions
from relisten.trace import Sampling, Trace

__all__ = [
    "Clip",
    "EngineError",
    "Finish",
    "Format",
    "InputError",
    "Listen",
    "Listener",
    "Piece",
    "Question",
    "RelistenError",
    "Sampling",
    "Segment",
    "Skip",
    "Stop",
    "Trace",
    "read_questions",
]
