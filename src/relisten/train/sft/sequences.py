"""Examples laid out as token sequences, as inference would have produced them, and sets of them prepared once.

A prepared set is a file of rows in our own form, with their lengths in a file beside it. It is kept in the run's
folder: a run that goes on sees the very rows it began with, and no process holds the set in memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relisten.audio import Clip
from relisten.data.examples import Example, example_row, parse_example
from relisten.data.export.base import need_response
from relisten.errors import InputError
from relisten.files import make_folder, replacing
from relisten.jsonl import dump_row, parse_row
from relisten.models.qwen2_5_omni import Qwen2_5Omni
from relisten.protocol import Format
from relisten.train.batches import Batcher, Target


@dataclass(frozen=True)
class TrainingSequence:
    """Token ids from the system turn to the end of the response; placeholders where sound is heard."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    """`weights[i]` is the loss weight of token i, 0 for what the model does not sample."""
    clips: tuple[Clip, ...]
    """The question's clip, then every crop that is inserted, in the order of their placeholders."""


class Layout:
    """Lays examples out for one model and one format.

    Args:
        answer_weight, heard_weight: see `batches.Batcher`.
    """

    def __init__(
        self, family: Qwen2_5Omni, format: Format, answer_weight: float = 1.0, heard_weight: float = 1.0
    ) -> None:
        self.family = family
        self.format = format
        self._batcher = Batcher(family, answer_weight, heard_weight)

    def sequence(self, example: Example, clip: Clip) -> TrainingSequence:
        """
        Raises:
            InputError: no response, or a clip too short to be heard.
        """
        heard = self.family.num_audio_tokens(clip.num_samples)
        if not heard:
            raise InputError(f"example {example.question.id!r}: its sound of {clip.duration:.3f} s is too short")
        head = self.family.prompt(example.question, clip, self.format).parts[0]
        assert isinstance(head, tuple)
        prefix = (*head, *self.family.audio_ids(heard))
        branch = self._batcher.branch(clip, Target(example.question, need_response(example)), self.format)
        return TrainingSequence(
            (*prefix, *branch.ids), (0.0,) * len(prefix) + branch.weights, (clip, *branch.crops)
        )


@dataclass
class Counts:
    """What came of making a set ready."""

    kept: int = 0
    too_long: int = 0
    bad: int = 0


class ReadySet:
    """A set that `make_ready` wrote; any thread may read any example.

    Attributes:
        lengths: tokens of each, inserted sound included.
        weights: summed loss weight of each.
    """

    def __init__(self, path: Path) -> None:
        self._folder = path.parent
        self._path = path
        with np.load(path.with_suffix(".npz")) as kept:
            self._places: NDArray[np.int64] = kept["places"]
            self.lengths: NDArray[np.int64] = kept["lengths"]
            self.weights: NDArray[np.float64] = kept["weights"]

    def __len__(self) -> int:
        return len(self.lengths)

    def example(self, index: int) -> Example:
        with self._path.open("rb") as file:
            file.seek(int(self._places[index]))
            line = file.readline()
        row = parse_row(line, f"{self._path}:{index + 1}")
        if isinstance(row, InputError):
            raise row
        return parse_example(row[1], self._folder, row[0])


def make_ready(
    examples: Iterable[Example | InputError],
    path: Path,
    layout: Layout,
    max_length: int,
    threads: int = 4,
    on_bad: Callable[[InputError], None] = lambda error: None,
) -> Counts:
    """Read every sound once, lay every example out, and write those that can be trained on to `path`.

    Rows that cannot be read, have no response or are longer than `max_length` tokens are told to `on_bad` and left
    out, not cut: a response that is cut would teach to end without an answer.

    Raises:
        InputError: the set cannot be read, or the file cannot be written.
    """
    found = Counts()
    columns: dict[str, list[Any]] = {"places": [], "lengths": [], "weights": []}
    make_folder(path.parent)
    with replacing(path, binary=True) as file:
        for example, laid in _laid_out(examples, layout, threads):
            if isinstance(laid, InputError):
                found.bad += 1
                on_bad(laid)
                continue
            if len(laid.ids) > max_length:
                found.too_long += 1
                what = f"example {example.question.id!r} has {len(laid.ids)} tokens"
                on_bad(InputError(f"{what}, more than max_length {max_length}; raise it to keep this one"))
                continue
            columns["places"].append(file.tell())
            columns["lengths"].append(len(laid.ids))
            columns["weights"].append(sum(laid.weights))
            file.write(dump_row(example_row(_absolute(example), path.parent)).encode())
            found.kept += 1
        kinds = {"places": np.int64, "lengths": np.int64, "weights": np.float64}
        arrays = {name: np.array(values, dtype=kinds[name]) for name, values in columns.items()}
        np.savez(path.with_suffix(".npz"), **arrays)  # type: ignore[arg-type]
    return found


def _absolute(example: Example) -> Example:
    audio = example.question.audio
    return replace(example, question=replace(example.question, audio=Path(str(audio)).absolute()))


def _laid_out(
    examples: Iterable[Example | InputError], layout: Layout, threads: int
) -> Iterator[tuple[Example, TrainingSequence | InputError]]:
    """The examples in order, each with its sequence or what is wrong with it; threads read sounds ahead."""

    def one(example: Example | InputError) -> tuple[Any, TrainingSequence | InputError]:
        try:
            if isinstance(example, InputError):
                return None, example
            need_response(example)
            return example, layout.sequence(example, example.question.clip())
        except InputError as error:
            return example, error

    waiting: deque[Future[tuple[Any, TrainingSequence | InputError]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for example in examples:
            waiting.append(pool.submit(one, example))
            if len(waiting) > 4 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
