"""The answers of all runs, question by question, as the page's list shows them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from relisten.evaluate.analysis import num_words, row_fit
from relisten.evaluate.results import ResultRow, Run
from relisten.evaluate.scoring import Rule
from relisten.evaluate.segments import true_spans
from relisten.protocol import Interleaver, Listen, Skip
from relisten.question import Question
from relisten.trace import Routing, Trace

_UP_TO_TAG = re.compile(r"(.*?)(<seg>(?:(?!<seg>).)*?</seg>|</seg>|\Z)", re.DOTALL)
LONGEST: Final = 20_000
"""Characters of a response that are shown; a page must not hang on a model that never stops."""


@dataclass(frozen=True)
class Entry:
    """One question, and what each run made of it (None: the run does not have it)."""

    id: str
    question: Question | None
    results: tuple[ResultRow | None, ...]

    @property
    def sound(self) -> str:
        """What tells its sound from others: hash of the samples if known, else path or name."""
        for result in self.results:
            if result is not None and result.trace is not None and result.trace.audio_hash:
                return result.trace.audio_hash
        return f"{self.question and self.question.audio}:{self.id}"


def merge(runs: Sequence[Run]) -> list[Entry]:
    """Entries in the order of the first run, then those that only later runs have. A question whose text, choices
    or reference differ between runs is one entry for each."""
    found: dict[object, list[ResultRow | None]] = {}
    for number, run in enumerate(runs):
        for row in run.rows:
            asked = row.question
            key = (row.id, asked and (asked.text, asked.choices, asked.answer))
            found.setdefault(key, [None] * len(runs))[number] = row
    entries = []
    for results in found.values():
        first = next(result for result in results if result is not None)
        entries.append(Entry(first.id, first.question, tuple(results)))
    return entries


def entry_json(entry: Entry, rule: Rule, sound: int | None, note: str) -> dict[str, Any]:
    """What the page needs of an entry.

    Args:
        sound: index of its sound; None where there is none, and `note` says why.
    """
    question = entry.question
    durations = [result.trace.duration for result in entry.results if result and result.trace]
    duration = max(durations, default=0.0)
    groups: dict[str, str] = {}
    for result in entry.results:
        groups.update(result.groups if result else {})
    data: dict[str, Any] = {
        "id": entry.id,
        "text": question.text if question else "",
        "choices": list(question.choices) if question else [],
        "answer": question.answer if question else None,
        "groups": groups,
        "duration": duration,
        "sound": sound,
        "note": note,
        "runs": [result and _result_json(result, rule) for result in entry.results],
    }
    if question:
        data["events"] = _labelled(question.metadata, duration)
        data["reference"] = [list(span) for span in true_spans(question.metadata, "segments", duration)]
    return data


def _result_json(result: ResultRow, rule: Rule) -> dict[str, Any]:
    data: dict[str, Any] = {"outcome": str(result.outcome(rule)), "error": result.error}
    trace = result.trace
    if trace is None:
        return data
    fit = row_fit(result, "segments") or row_fit(result, "events")
    return data | {
        "answer": result.prediction,
        "finish": str(trace.finish),
        "note": trace.error,
        "findings": list(trace.findings),
        "route": None if trace.routing is None else _told(trace.routing),
        "parts": list(parts(trace)),
        "cut": max(0, len(trace.text) - LONGEST),
        "listens": len(trace.listens),
        "words": num_words(trace.text),
        "tokens": sum(len(span.ids) for span in trace.generated),
        "seconds": [round(getattr(trace.timings, name), 4) for name in ("encode", "prefill", "decode", "listen")],
        "total": round(trace.timings.total, 4),
        "iou": None if fit is None else round(fit.iou, 4),
    }


def _told(routing: Routing) -> dict[str, Any]:
    confidence = None if routing.confidence is None else round(routing.confidence, 4)
    return {"name": routing.route, "confidence": confidence, "note": routing.note}


def parts(trace: Trace) -> Iterator[str | dict[str, Any]]:
    """The response as texts and tags, in order; joined they are the response (its first `LONGEST` characters).

    A tag is {"tag": its text} with "start" and "end" where its times were good, "listen" (a count from 1) where
    it was played, and "skip" (the reason) where it was not.
    """
    interleaver = Interleaver(
        trace.duration,
        format=trace.format,
        max_listens=trace.sampling.max_listens,
    )
    heard = 0
    for match in _UP_TO_TAG.finditer(trace.text[:LONGEST]):
        if match[1]:
            yield match[1]
        if match[2]:
            tag: dict[str, Any] = {"tag": match[2]}
            for event in interleaver.feed(match[0]):
                if isinstance(event, (Listen, Skip)) and event.segment is not None:
                    tag |= {"start": round(event.segment.start, 3), "end": round(event.segment.end, 3)}
                if isinstance(event, Skip):
                    tag["skip"] = str(event.reason)
                elif isinstance(event, Listen) and heard < len(trace.listens):
                    heard += 1
                    tag["listen"] = heard
            yield tag


def _labelled(metadata: Mapping[str, Any], duration: float) -> list[list[Any]]:
    """Events with their labels: [start, end, label]."""
    listed = metadata.get("events")
    found = []
    for event in listed if isinstance(listed, (list, tuple)) else ():
        for start, end in true_spans({"events": [event]}, "events", duration):
            label = event.get("label", "") if isinstance(event, Mapping) else ""
            found.append([round(start, 3), round(end, 3), str(label)])
    return found
