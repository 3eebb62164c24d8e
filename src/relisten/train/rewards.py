"""Rewards of an answer: small named parts, each a function of the trace and its question, and named sums of them.

The parts of Echo (section 3.3), and those of the released training code:

| part | value |
|---|---|
| `format` | 0.5 when there is exactly one think and one answer block, else 0 |
| `consistency` | -0.1 for each `</seg>` behind which the sentence does not go on, at least -0.5 |
| `accuracy` | 0.5 when the answer is right, else 0 |
| `segment` | 0.5 when the answer is right and a segment was listened to, else 0 |
| `non_overlap` | 0.5 x (length of the union of the segments / sum of their lengths), 0 without segments |
| `confident_accuracy` | right: 0.5 (1 - (c - 1)^2); wrong: -0.5 c^2; no answer: 0 |
| `linear_confident_accuracy` | right: 0.5 c; wrong: -0.5 c; no answer: 0 |
| `confident_segment` | `confident_accuracy` where that is above 0 and a segment was listened to, else 0 |
| `confident_segment_of_2`, `_of_3` | `confident_accuracy`, where above 0, x min(segments, 2) / 2, or 3 and 3 |
| `cited` | 0.5 when the answer is right and names a segment that could be played, played or not |

c is the probability of the token that decides: the first of a right answer; of a wrong one, that by which it parts
from the reference (which may be the one that ends it). `cited` is ours: it is what `segment` is to answers that
cite and do not listen.

`paper` and the released variants (`multiturn_rl_*`) are sums of them: see `SUMS`. Any sum can be written down, with
weights and with functions of your own: "format + 2*accuracy + my_module:my_part".

Where this differs from the released code, on purpose:

* Segments are those that were really played again; there, every tag that was written counts, also one that no
  sound was inserted for, and the second of two adjacent tags is not seen.
* `consistency` looks at the first character that is no white space: a sentence usually goes on with a space, so
  that the very next character would never tell anything. A malformed tag counts, too. Where nothing follows the
  last `</seg>`, the sentence counts as going on, as there.
* `format` wants each of the four tags exactly once and in order; there, "<think>a<think>b</think>" passes.
* A right answer is right whatever its format, which has a reward of its own, and whatever its case and white space.
* The answer is the first block, as in evaluation; there, two blocks are none.
* c comes from the log-probs recorded while sampling; there, one is looked up at the end of the response where no
  answer is found.
"""

from __future__ import annotations

import importlib
import math
import re
import sys
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from relisten.errors import InputError
from relisten.protocol import Finish, Segment, same_answer
from relisten.question import Question
from relisten.trace import Trace

Part = Callable[[Trace, Question], float]
"""A part of a reward. The trace is of an answer that did not fail; the question has its reference."""

PARTS: Final[dict[str, Part]] = {}
"""Every part by its name; `part` adds to it."""

SUMS: Final[Mapping[str, str]] = {
    "paper": "format + consistency + accuracy + segment",
    "grounded": "format + consistency + accuracy + cited",
    "multiturn_rl_1": "format + accuracy + consistency",
    "multiturn_rl_2": "format + accuracy + segment",
    "multiturn_rl_3": "format + accuracy + segment + consistency",
    "multiturn_rl_6": "format + confident_accuracy + confident_segment + consistency",
    "multiturn_rl_10": "format + linear_confident_accuracy",
    "multiturn_rl_11": "format + confident_accuracy + confident_segment_of_2 + consistency + non_overlap",
    "multiturn_rl_12": "format + confident_accuracy + confident_segment_of_3 + consistency + non_overlap",
}
"""Named sums: the paper's, its counterpart for answers that only cite, and the released ones by their ids."""

_BLOCKS = re.compile(r"<think>.*</think>.*<answer>.*</answer>", re.DOTALL)
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_BEHIND_SEG = re.compile(r"</seg>\s*(\S?)")
_ANSWER = re.compile(r"<answer>\s*(?=.*?</answer>)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_]\w*")
_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def part(name: str) -> Callable[[Part], Part]:
    """Decorator that gives a part its name.

        @part("short")
        def short(trace, question):
            return 0.1 if len(trace.text) < 400 else 0.0

    Raises:
        InputError: the name is taken, or is no name.
    """

    if not _NAME.fullmatch(name) or name in PARTS or name in SUMS:
        raise InputError(f"reward part {name!r}: it must be a new name of letters, digits and _")

    def add(function: Part) -> Part:
        PARTS[name] = function
        return function

    return add


@dataclass(frozen=True)
class Score:
    """What an answer earned: the weighted sum, and the parts before weights."""

    total: float
    parts: Mapping[str, float]


@dataclass(frozen=True)
class Reward:
    """A weighted sum of parts; made by `parse`."""

    terms: tuple[tuple[str, float, Part], ...]
    """(name, weight, function)"""

    @classmethod
    def parse(cls, text: str) -> Reward:
        """A reward from the name of a sum, or from a sum written down.

        Args:
            text: "paper", or terms such as "format + 2*accuracy - 0.1*my_module:length"; a term is a part, a
                named sum, or the import path of a function (trace, question) -> float, with a weight in front.

        Raises:
            InputError: for a term that is none of these, or one that comes twice.
        """
        terms: dict[str, tuple[float, Part]] = {}
        for name, weight in _terms(text):
            inner = _terms(SUMS[name]) if name in SUMS else [(name, 1.0)]
            for simple, factor in inner:
                if simple in terms:
                    raise InputError(f"reward {text!r}: {simple} is in it twice; name it once, with a weight")
                terms[simple] = (weight * factor, _find(simple))
        return cls(tuple((name, weight, function) for name, (weight, function) in terms.items()))

    def __call__(self, trace: Trace, question: Question) -> Score:
        """Score one answer.

        Raises:
            InputError: the trace is of a failed answer, the question has no reference, or a part fails or gives no
                finite number.
        """
        if trace.finish is Finish.FAILED:
            raise InputError(f"answer {trace.id!r} failed ({trace.error}); leave it out, it earns nothing")
        if question.answer is None:
            raise InputError(f"question {question.id!r} has no reference answer; rewards need one")
        parts: dict[str, float] = {}
        for name, _, function in self.terms:
            try:
                parts[name] = value = float(function(trace, question))
            except Exception as error:  # a part may be anyone's
                raise InputError(f"reward part {name} failed for question {question.id!r}: {error!r}") from error
            if not math.isfinite(value):
                raise InputError(f"reward part {name} gave {value} for question {question.id!r}; give a number")
        return Score(math.fsum(weight * parts[name] for name, weight, _ in self.terms), parts)


def _terms(text: str) -> list[tuple[str, float]]:
    """(name, weight) of every term of a sum."""
    found = []
    pieces = re.split(r"(?<![0-9]e)([+-])", text.strip() if text.strip().startswith(("+", "-")) else f"+{text}")
    if pieces[0].strip():
        raise InputError(f"reward {text!r} cannot be read; write terms such as format + 2*accuracy")
    for sign, term in zip(pieces[1::2], pieces[2::2], strict=True):
        weight, star, name = term.rpartition("*")
        try:
            factor = float(weight) if star else 1.0
        except ValueError:
            factor = math.nan
        if not name.strip() or not math.isfinite(factor):
            raise InputError(f"reward {text!r}: {term.strip()!r} is no term; write a name, or weight*name")
        found.append((name.strip(), -factor if sign == "-" else factor))
    return found


def _find(name: str) -> Part:
    if name in PARTS:
        return PARTS[name]
    if not _PATH.fullmatch(name):
        known = ", ".join((*SUMS, *PARTS))
        raise InputError(f"reward {name!r} is not known; use some of {known}, or module:function")
    module, _, attribute = name.partition(":")
    if (here := str(Path.cwd())) not in sys.path:  # as with `python -m`: a file in this folder is found either way
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"reward {name!r}: cannot be imported ({error}); check the path") from None
    if not callable(found):
        raise InputError(
            f"reward {name!r}: is a {type(found).__name__}; name a function (trace, question) -> float"
        )
    function: Part = found
    return function


@part("format")
def format_(trace: Trace, question: Question) -> float:
    """Echo, section 3.3. Blocks may be empty, and other text may stand around them."""
    text = trace.text
    return 0.5 if all(text.count(tag) == 1 for tag in _TAGS) and _BLOCKS.search(text) else 0.0


@part("consistency")
def consistency(trace: Trace, question: Question) -> float:
    """Echo, section 3.3: an upper-case letter or `<` behind a tag is a new sentence or an end."""
    behind: list[str] = _BEHIND_SEG.findall(trace.text)
    return -min(5, sum(first.isupper() or first == "<" for first in behind)) / 10


@part("accuracy")
def accuracy(trace: Trace, question: Question) -> float:
    """Echo, section 3.3."""
    return 0.5 if _right(trace, question) else 0.0


@part("segment")
def segment(trace: Trace, question: Question) -> float:
    """Echo, section 3.3; the released code calls it tool."""
    return accuracy(trace, question) if trace.listens else 0.0


@part("cited")
def cited(trace: Trace, question: Question) -> float:
    """A right answer with a segment inside the clip, listened to or not."""
    named = trace.listens or any(skip.segment for skip in trace.skipped)
    return accuracy(trace, question) if named else 0.0


@part("non_overlap")
def non_overlap(trace: Trace, question: Question) -> float:
    """0.5 for segments that share nothing, less the more they repeat each other."""
    return 0.5 * distinct_share(trace.segments) if trace.segments else 0.0


@part("confident_accuracy")
def confident_accuracy(trace: Trace, question: Question) -> float:
    """Rewards being sure when right, and being unsure when wrong."""
    c = confidence(trace, question)
    if c is None:
        return 0.0
    return 0.5 * (1 - (c - 1) ** 2) if _right(trace, question) else -0.5 * c**2


@part("linear_confident_accuracy")
def linear_confident_accuracy(trace: Trace, question: Question) -> float:
    """The same, in proportion to the probability."""
    c = confidence(trace, question)
    if c is None:
        return 0.0
    return 0.5 * c if _right(trace, question) else -0.5 * c


def _confident_segment(name: str, most: int) -> None:
    @part(name)
    def reward(trace: Trace, question: Question) -> float:
        return max(0.0, confident_accuracy(trace, question)) * min(len(trace.listens), most) / most


_confident_segment("confident_segment", 1)
_confident_segment("confident_segment_of_2", 2)
_confident_segment("confident_segment_of_3", 3)


def distinct_share(segments: Sequence[Segment]) -> float:
    """Length of the union of one segment or more over the sum of their lengths."""
    union = reached = 0.0
    for heard in sorted(segments):
        union += max(0.0, heard.end - max(reached, heard.start))
        reached = max(reached, heard.end)
    return union / math.fsum(segment.duration for segment in segments)


def confidence(trace: Trace, question: Question) -> float | None:
    """Probability of the sampled token that decides whether the answer is right; see the module's table.

    Returns:
        None where there is no answer.

    Raises:
        InputError: the trace does not record which token wrote which text.
    """
    answer = trace.answer
    opened = _ANSWER.search(trace.text)
    if answer is None or opened is None:
        return None
    ends = _token_ends(trace)
    decides = opened.end()
    if not _right(trace, question):
        # Go to where the written answer, or what ends it, parts from the reference.
        for written, wanted in zip(answer, str(question.answer).strip(), strict=False):
            if written.casefold() != wanted.casefold():
                break
            decides += 1
    return math.exp(trace.logprobs[bisect_right(ends, decides)])


def _token_ends(trace: Trace) -> list[int]:
    """For every sampled token, how many characters `trace.text` has up to its end."""
    spans = trace.generated
    if any(len(span.ends) != len(span.ids) for span in spans):
        raise InputError(
            f"answer {trace.id!r}: the engine did not record which token wrote which text, which rewards by "
            "confidence need; use the native engine, or a reward without them"
        )
    begun = 0
    ends = []
    for span in spans:
        ends.append([begun + end for end in span.ends])
        begun += len(span.text)
    return list(chain.from_iterable(ends))


def _right(trace: Trace, question: Question) -> bool:
    return question.answer is not None and same_answer(trace.answer, question.answer)
