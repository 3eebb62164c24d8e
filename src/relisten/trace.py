"""`Trace`: everything that happened in one answer, exact to the token, and its JSON."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from itertools import chain
from typing import Any

from relisten.errors import InputError
from relisten.protocol import MAX_LISTENS, MAX_TOKENS, Finish, Format, Reason, Segment, Skip, parse_answer


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. `temperature` 0 is greedy. `seed` None draws a fresh one for every answer.

    Raises:
        InputError: for a value out of range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int = MAX_TOKENS
    max_listens: int = MAX_LISTENS
    crop_speed: float = 1.0
    """What every listen is played at: at 0.5 a crop lasts twice as long, an octave lower, and has twice the audio
    tokens. The question's own sound is never changed."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 10:
            raise InputError(f"temperature {self.temperature}: it must be from 0 (greedy) to 10")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top-p {self.top_p}: it must be above 0 and at most 1 (1 keeps every token)")
        if self.max_tokens < 1:
            raise InputError(f"max tokens {self.max_tokens}: it must be at least 1")
        if self.max_listens < 0:
            raise InputError(f"max listens {self.max_listens}: it must be at least 0 (0 never listens)")
        if not 0.25 <= self.crop_speed <= 4:
            raise InputError(f"crop speed {self.crop_speed}: it must be from 0.25 to 4 (1 plays crops as they are)")
        if self.seed is not None:
            object.__setattr__(self, "seed", operator.index(self.seed))  # numpy's integers have no JSON
            if not 0 <= self.seed < 2**63:
                raise InputError(f"seed {self.seed}: it must be from 0 to 2**63 - 1")


@dataclass(frozen=True)
class PromptSpan:
    """What the model was given: token ids, with one placeholder id for every audio token of the clip."""

    ids: tuple[int, ...]
    num_audio_tokens: int
    findings: tuple[tuple[int, int], ...] = ()
    """Where in `ids` each of the question's findings stands: first token, one past the last."""


@dataclass(frozen=True)
class GeneratedSpan:
    """Sampled tokens. `logprobs` are those of the sampled tokens under the model's whole distribution at
    temperature 1, whatever temperature and top-p they were drawn with. The end-of-turn token is in `ids` and
    has no text."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    ends: tuple[int, ...] = ()
    """How many characters of `text` stand once each token is there; empty where an engine does not tell."""


@dataclass(frozen=True)
class ListenSpan:
    """A crop that was played again: the ids inserted for it (begin, `num_audio_tokens` placeholders, end)."""

    segment: Segment
    ids: tuple[int, ...]
    num_audio_tokens: int


Span = PromptSpan | GeneratedSpan | ListenSpan


@dataclass(frozen=True)
class Timings:
    """Wall seconds this answer spent in each phase, waiting for others in its batch included."""

    encode: float = 0.0
    """The question's clip: mel and audio tower."""
    prefill: float = 0.0
    decode: float = 0.0
    listen: float = 0.0
    """Crops: mel, audio tower and prefill."""
    total: float = 0.0


@dataclass(frozen=True)
class Routing:
    """Which route an answer took (`relisten.router.routes`), why, and what its audio tools reported."""

    route: str
    """Its name: "direct", "pitch", "pitch+silence/text", ..."""
    confidence: float | None = None
    """Probability of the route that the policy would take; None where no policy was asked."""
    probabilities: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    """Why it is not the likeliest route, or what went wrong on the way; the answer came all the same."""
    reports: tuple[Mapping[str, Any], ...] = ()
    """One for each tool that ran, in order, as `ToolReport.to_json` has it; its text is a finding of the trace."""
    decision_seconds: float = 0.0
    """From the question to the decision: reading the prompt, where the policy looks at that, is part of it."""
    tool_seconds: float = 0.0

    @property
    def failures(self) -> tuple[str, ...]:
        """The tools that found nothing out."""
        return tuple(report["tool"] for report in self.reports if report["failure"] is not None)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"reports": list(self.reports), "failures": list(self.failures)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Routing:
        """Raises KeyError or TypeError for an object that is no routing."""
        values = {part.name: data[part.name] for part in fields(cls)}
        if not all(
            isinstance(report, dict) and {"tool", "text", "failure"} <= set(report) for report in values["reports"]
        ):
            raise TypeError("a report of a tool has tool, text and failure")
        return cls(**values | {"reports": tuple(values["reports"])})


@dataclass(frozen=True)
class Trace:
    """One answer from prompt to end.

    `spans` begin with the prompt; behind it generated and listen spans follow in the order in which the model
    saw them, so that their ids joined are exactly its context.
    """

    question: str
    choices: tuple[str, ...]
    spans: tuple[Span, ...]
    finish: Finish
    format: Format
    id: str = ""
    audio: str = ""
    audio_hash: str = ""
    duration: float = 0.0
    """Length of the question's clip in seconds."""
    model: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    skipped: tuple[Skip, ...] = ()
    """Tags that were closed but not played again, and why."""
    timings: Timings = field(default_factory=Timings)
    findings: tuple[str, ...] = ()
    """What audio tools reported, as the prompt tells it; the prompt's span says which tokens these are."""
    routing: Routing | None = None
    """How a router chose; None where there was none."""
    error: str | None = None
    """What went wrong, for `Finish.FAILED` and `Finish.CONTEXT`."""

    @property
    def generated(self) -> tuple[GeneratedSpan, ...]:
        return tuple(span for span in self.spans if isinstance(span, GeneratedSpan))

    @property
    def listens(self) -> tuple[ListenSpan, ...]:
        return tuple(span for span in self.spans if isinstance(span, ListenSpan))

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments that were listened to, in order."""
        return tuple(span.segment for span in self.listens)

    @property
    def text(self) -> str:
        """All that the model wrote."""
        return "".join(span.text for span in self.generated)

    @property
    def answer(self) -> str | None:
        return parse_answer(self.text)

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The model's whole context, shape (n,)."""
        return tuple(chain.from_iterable(span.ids for span in self.spans))

    @property
    def loss_mask(self) -> tuple[int, ...]:
        """Shape (n,): 1 on sampled tokens, the end of turn included; 0 on the prompt and on inserted sound."""
        return tuple(
            chain.from_iterable([int(isinstance(span, GeneratedSpan))] * len(span.ids) for span in self.spans)
        )

    @property
    def logprobs(self) -> tuple[float, ...]:
        """Those of the sampled tokens, shape (sum of the loss mask,)."""
        return tuple(chain.from_iterable(span.logprobs for span in self.generated))

    def to_json(self) -> dict[str, Any]:
        """A JSON object: what a reader wants first (`answer`, `text`, `segments`, `finish`, `timings`), then all
        that `from_json` needs."""
        return {
            "id": self.id,
            "question": self.question,
            "choices": list(self.choices),
            "findings": list(self.findings),
            "audio": self.audio,
            "audio_hash": self.audio_hash,
            "duration": self.duration,
            "answer": self.answer,
            "text": self.text,
            "segments": [asdict(segment) for segment in self.segments],
            "finish": str(self.finish),
            "error": self.error,
            "routing": self.routing and self.routing.to_json(),
            "model": self.model,
            "format": str(self.format),
            "sampling": asdict(self.sampling),
            "timings": asdict(self.timings),
            "skipped": [
                {
                    "tag": skip.tag,
                    "reason": str(skip.reason),
                    "segment": None if skip.segment is None else asdict(skip.segment),
                }
                for skip in self.skipped
            ],
            "spans": [_span_to_json(span) for span in self.spans],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Trace:
        """The trace that `to_json` wrote; what it derives (answer, text, segments) is derived anew.

        Raises:
            InputError: for an object that is not a trace, naming what is missing or wrong.
        """
        try:
            return cls(
                question=data["question"],
                choices=tuple(data["choices"]),
                spans=tuple(_span_from_json(span) for span in data["spans"]),
                finish=Finish(data["finish"]),
                format=Format(data["format"]),
                id=data["id"],
                audio=data["audio"],
                audio_hash=data["audio_hash"],
                duration=data["duration"],
                model=data["model"],
                sampling=Sampling(**data["sampling"]),
                skipped=tuple(
                    Skip(s["tag"], Reason(s["reason"]), s["segment"] and Segment(**s["segment"]))
                    for s in data["skipped"]
                ),
                timings=Timings(**data["timings"]),
                findings=tuple(data.get("findings", ())),
                routing=Routing.from_json(data["routing"]) if data.get("routing") else None,
                error=data["error"],
            )
        except (KeyError, TypeError, ValueError) as error:
            what = f"{type(error).__name__}: {error}"
            raise InputError(f"not a trace ({what}); give one that relisten wrote") from None


_KINDS: dict[str, type[Span]] = {"prompt": PromptSpan, "generated": GeneratedSpan, "listen": ListenSpan}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def _span_to_json(span: Span) -> dict[str, Any]:
    return {"kind": _NAMES[type(span)]} | asdict(span)


def _span_from_json(data: Mapping[str, Any]) -> Span:
    kind = _KINDS[data["kind"]]
    values = {name.name: data[name.name] for name in fields(kind) if name.name in data or name.default is MISSING}
    for name in ("ids", "logprobs", "ends"):
        if name in values:
            values[name] = tuple(values[name])
    if "findings" in values:
        values["findings"] = tuple((start, stop) for start, stop in values["findings"])
    if "segment" in values:
        values["segment"] = Segment(**values["segment"])
    return kind(**values)
