"""The thread of the native engine: owns the model and its cache, and takes its steps.

Every step it gathers what each running row has to add (one sampled token, or a whole prompt, or a crop behind the
token that asked for it), runs all new tokens through the language model in one packed pass, and samples the next
token of each row. New sound is encoded before, beside the steps of other rows where a processor is free for that
(`engines.encoding`).
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from itertools import accumulate
from typing import Any, Literal

import torch

from relisten.audio import Clip
from relisten.engines.base import NO_NUMBERS, Feed, Look
from relisten.engines.encoding import Encoder
from relisten.engines.rows import Packed, PromptKey, Row, StateTap, held_of, pack, prompt_key
from relisten.engines.sampling import draw
from relisten.engines.threads import take_threads
from relisten.errors import EngineError
from relisten.models.base import Family
from relisten.models.decoder import PackedDecoder
from relisten.models.graphs import StepGraphs
from relisten.models.tower import ChunkCache
from relisten.trace import GeneratedSpan

MAX_STEP_TOKENS = 4096
"""New tokens in one step beyond which further prompts and crops wait for the next, so that rows that decode are
not held up."""


class Worker:
    """The thread that owns model, cache and rows. Rows stand in slots 0 .. n-1 without gaps."""

    def __init__(
        self,
        family: Family,
        max_rows: int,
        context: int,
        lockstep: bool,
        encode_beside: bool | None,
        threads: int,
        graphs: bool | None,
    ) -> None:
        self._holds = 0  # no step is taken while there are any
        self._holding = threading.Lock()
        self._lockstep = lockstep
        self._family = family
        self._max_rows = max_rows
        self._context = context
        self._decoder = PackedDecoder(family.language_model, family.lm_head)
        self._cache = self._decoder.new_cache(max_rows, context)
        self._graphs: StepGraphs | None = None
        if family.device.type == "cuda" if graphs is None else graphs:
            self._graphs = StepGraphs(self._decoder, family.embed, family.device, max_rows, context)
        self._banned = torch.tensor(sorted(family.banned_ids), dtype=torch.long, device=family.device)
        # In lockstep on a GPU, reused chunks would change what is batched together, and so the last bits.
        reproducible = family.device.type == "cpu" or not lockstep
        cache = ChunkCache() if reproducible else None
        self._threads = threads
        self._encoder = Encoder(family, self.wake, beside=encode_beside, threads=threads, cache=cache)
        self._rows: list[Row] = []
        self._waiting: deque[Row] = deque()
        self._inbox: queue.SimpleQueue[tuple[Literal["decode", "drop", "wake", "stop"], Row | None]] = (
            queue.SimpleQueue()
        )
        self._ended: str | None = None  # why nothing is decoded any more
        self._ending = threading.Lock()  # no row may enter the inbox behind the last look into it
        self._thread = threading.Thread(target=self._loop, name="relisten-native", daemon=True)
        self._thread.start()

    @property
    def open_rows(self) -> int:
        return len(self._rows) + len(self._waiting)

    def want(self, row: Row, feed: Feed | None) -> Future[Any]:
        """Ask for a span (with a `feed`) or for a look at the prompt (without one)."""
        future: Future[Any] = Future()
        with self._ending:
            if self._ended is not None or row.closed:
                future.set_exception(EngineError(self._ended or "the answer was closed"))
            elif feed is None and row.length:
                future.set_exception(EngineError("the prompt was read already; look once, and first"))
            else:
                row.feed, row.future = feed, future
                self._inbox.put(("decode", row))
        return future

    def drop(self, row: Row) -> None:
        """Close a row, and free its slot before the next step."""
        if not row.closed:
            row.closed = True
            self._inbox.put(("drop", row))

    def hold(self) -> None:
        """Take no step until `let_go` was called as often."""
        with self._holding:
            self._holds += 1

    def let_go(self) -> None:
        with self._holding:
            self._holds -= 1
        self.wake()

    def wake(self) -> None:
        """Have the thread look again for what it can do: sound was encoded, or a hold ended."""
        self._inbox.put(("wake", None))

    def stop(self) -> None:
        """End the thread after the step in hand; rows that are open fail."""
        self._inbox.put(("stop", None))
        # An engine that nobody closed is ended by the garbage collector, on whatever thread that runs.
        if threading.current_thread() not in (self._thread, self._encoder.thread):
            self._thread.join()

    @torch.inference_mode()
    def _loop(self) -> None:
        take_threads(self._threads)
        why = "the engine was closed"
        busy = False
        try:
            while self._take_commands(wait=not busy):
                self._admit()
                self._deliver_first_tokens()
                busy = not self._must_wait() and self._go_on()
        except BaseException as error:  # a bug here; nobody may wait for ever
            why = f"the engine stopped ({type(error).__name__}: {error})"
            raise
        finally:
            with self._ending:
                self._ended = why
            while not self._inbox.empty():
                _, row = self._inbox.get()
                if row is not None:
                    self._waiting.append(row)
            for row in (*self._rows, *self._waiting):
                _fail(row, why)
            self._rows.clear()
            self._waiting.clear()
            self._encoder.close()
            self._graphs = None
            self._cache = self._decoder.new_cache()  # the memory of the old one is free

    def _take_commands(self, wait: bool) -> bool:
        """Carry out what streams asked for, at least one thing if told to wait; False to stop."""
        while True:
            try:
                command, row = self._inbox.get(block=wait)
            except queue.Empty:
                return True
            wait = False
            if command == "stop":
                return False
            if row is None:
                continue
            if command == "drop":
                self._remove(row)
            elif row.slot is None and row not in self._waiting:  # it waits already if an earlier call was cancelled
                self._waiting.append(row)

    def _admit(self) -> None:
        while self._waiting and len(self._rows) < self._max_rows:
            row = self._waiting.popleft()
            row.slot = len(self._rows)
            self._rows.append(row)

    def _remove(self, row: Row) -> None:
        """Free a row's slot; the last row moves into the gap."""
        if row.future is not None:
            row.future.cancel()
            row.future = None
        self._release(row)
        if row.slot is None:
            if row in self._waiting:
                self._waiting.remove(row)
        else:
            last = self._rows.pop()
            if last is not row:
                assert last.slot is not None  # for the type checker: rows in the list have a slot
                if last.length:  # else the cache may not reach as far as its slot yet
                    self._cache.copy_row(last.slot, row.slot, last.length)
                last.slot = row.slot
                self._rows[row.slot] = last
            row.slot = None
        if not self.open_rows:
            self._encoder.forget()
            if self._graphs is not None:
                self._graphs.forget()

    def _release(self, row: Row) -> None:
        for sound in row.sounds:
            self._encoder.release(sound)
        row.sounds = ()

    def _deliver_first_tokens(self) -> None:
        """Give tokens that looks have drawn to rows that now decode."""
        for row in tuple(self._rows):
            if row.first is not None and row.future is not None:
                token, logprob = row.first
                row.first = None
                self._take_token(row, token, logprob)

    def _running(self) -> list[Row]:
        return [row for row in self._rows if row.future is not None and row.first is None]

    def _must_wait(self) -> bool:
        silent = (row.future is None or row.first is not None for row in self._rows)
        return self._holds > 0 or (self._lockstep and any(silent))

    def _go_on(self) -> bool:
        """Encode some sound, or take a step with the rows whose sound is there; False if neither can be done."""
        self._reuse_prefixes()
        running = self._running()
        ready = [row for row in running if self._audio_ready(row)]
        waiting_for_audio = sum(1 for row in running if row.future is not None) - len(ready)
        together = self._lockstep or self._encoder.thread is None
        # If the encoder's thread alone encoded, many rows would wait while few decode.
        if waiting_for_audio and (together or waiting_for_audio > len(ready)) and self._encoder.work():
            return True
        if not ready or (self._lockstep and waiting_for_audio):
            return any(row.future is None for row in running)  # some failed, which makes room
        self._step(ready)
        return True

    def _reuse_prefixes(self) -> None:
        """Copy to rows that begin what other rows about the same clip have in the cache of the same prompt. A look
        needs the hidden states of its whole prompt, so rows that look take nothing."""
        begin = [row for row in self._running() if not row.length and row.feed is not None]
        heard: dict[int, list[Row]] = {}
        for other in self._rows if begin else ():
            if other.length:
                heard.setdefault(id(other.clip), []).append(other)
        for row in begin:
            ids, tail = row.prompt.ids, row.pending[-1]
            most, source = 0, row
            for other in heard.get(id(row.clip), ()):
                count = held_of(other, ids, tail)
                if count > most:
                    most, source = count, other
                if most == len(ids) - 1:
                    break
            if most:
                self._copy(source, row, most)

    def _copy(self, other: Row, row: Row, count: int) -> None:
        assert row.slot is not None  # for the type checker: rows in the list have a slot
        assert other.slot is not None
        try:
            self._cache.reserve(row.slot + 1, count)
        except Exception as error:
            self._fail(row, error)
            return
        self._cache.copy_row(other.slot, row.slot, count)
        self._release(row)
        row.begin_again(row.prompt, [row.prompt.ids[count:]], count)
        row.asked = time.perf_counter()

    def _audio_ready(self, row: Row) -> bool:
        """Whether all sound in `pending` is encoded; if not, it is asked for. The row fails if encoding fails."""
        if row.num_pending > 1 and not row.sounds:
            row.asked = time.perf_counter()
            row.sounds = tuple(self._encoder.ask(part) for part in row.pending if isinstance(part, Clip))
        for sound in row.sounds:
            if sound.error is not None:
                self._fail(row, sound.error)
                return False
        return all(sound.embeddings is not None for sound in row.sounds)

    def _step(self, ready: list[Row]) -> None:
        """One packed pass over the new tokens of `ready`, and the next token of each.

        Where that fails (one row's clip is too long for the memory there is), each half is tried by itself, so
        that a row fails for its own sake alone.
        """
        self._pass(self._choose(ready))

    def _pass(self, rows: list[Row]) -> None:
        began = time.perf_counter()
        listening = {id(row) for row in rows if row.num_pending > 1 or not row.heard_prompt}
        failure: Exception | None = None
        try:
            tokens, logprobs, looks = self._forward(rows)
        except Exception as error:
            failure = error.with_traceback(None)  # whose frames hold all that the pass had computed
        if failure is not None:
            if len(rows) == 1:
                self._fail(rows[0], failure)
            else:
                middle = len(rows) // 2
                self._pass(rows[:middle])
                self._pass(rows[middle:])
            return
        ended = time.perf_counter()
        # Update every row's length first: a row that fails frees its slot, and the row moved into that slot is
        # copied up to its length.
        for row, logprob in zip(rows, logprobs, strict=True):
            self._release(row)
            row.length += row.num_pending
            row.pending, row.num_pending, row.passed_over = [], 0, 0
            if not math.isfinite(logprob):
                assert row.slot is not None  # for the type checker: only rows with a slot run
                self._cache.clear(row.slot, row.length)
        for row, token, logprob in zip(rows, tokens, logprobs, strict=True):
            if not math.isfinite(logprob):
                self._fail(row, EngineError(NO_NUMBERS))
                continue
            if id(row) not in listening:
                row.spend("decode", ended - began)
            elif row.heard_prompt:
                row.spend("listen", ended - row.asked)
            else:
                row.spend("encode", began - row.asked)
                row.spend("prefill", ended - began)
                row.heard_prompt = True
            if id(row) in looks:
                row.first = token, logprob
                _fulfil(row, looks[id(row)])
            else:
                self._take_token(row, token, logprob)

    def _choose(self, running: list[Row]) -> list[Row]:
        """The rows of the next step: all that only decode, and of those with more to add as many as there is room
        for, the longest waiting first. Of different prompts about one clip only the first: the others copy what
        they share with it before the step after (`_reuse_prefixes`)."""
        adding = [row for row in running if row.num_pending > 1]
        # Counted in steps and not in seconds: in lockstep nothing may depend on the clock.
        adding.sort(key=lambda row: -row.passed_over)
        prompts: set[PromptKey] = set()
        clips: set[int] = set()
        left: set[int] = set()
        room = MAX_STEP_TOKENS
        for row in adding:
            key = prompt_key(row)
            if key in prompts:
                continue
            shared = key is not None and row.feed is not None and id(row.clip) in clips
            if shared or (room < MAX_STEP_TOKENS and row.num_pending > room):
                row.passed_over += 1
                left.add(id(row))
                continue
            room -= row.num_pending
            if key is not None:
                prompts.add(key)
                clips.add(id(row.clip))
        return [row for row in running if id(row) not in left]

    def _forward(self, rows: Sequence[Row]) -> tuple[list[int], list[float], dict[int, Look]]:
        """The next token of each row, its log-prob, and the looks of rows that look, by `id(row)`."""
        family = self._family
        packed = pack(rows, family)
        looking = {id(row): place for row, place in zip(rows, packed.places, strict=True) if row.feed is None}
        watch = StateTap(packed, [*looking.values()], family.device) if looking else None
        logits = self._run_model(packed, watch)
        for source, target, length in packed.copies:
            self._cache.copy_row(source, target, length)
        if packed.copies:
            logits = logits[torch.tensor(packed.places, device=logits.device)]
        drawn = draw(
            logits,
            self._banned,
            [row.sampling.temperature for row in rows],
            [row.sampling.top_p for row in rows],
            [row.random.random() for row in rows],
        )
        looks = dict(zip(looking, watch.looks(), strict=True)) if watch is not None else {}
        return drawn.tokens, drawn.logprobs, looks

    def _run_model(self, packed: Packed, watch: StateTap | None) -> torch.Tensor:
        """Logits behind each chunk, (chunks, vocabulary)."""
        family = self._family
        if self._graphs is not None and watch is None:
            logits = self._graphs.step(packed.ids, packed.chunks, len(self._rows), self._cache)
            if logits is not None:
                return logits
        slots = [*(chunk.slot for chunk in packed.chunks), *(target for _, target, _ in packed.copies)]
        self._cache.reserve(max(slots) + 1, max(chunk.end for chunk in packed.chunks))
        embeddings = family.embed(torch.tensor(packed.ids, device=family.device))
        if packed.audio:
            at = torch.tensor(packed.audio_at, device=family.device)
            embeddings[at] = torch.cat(packed.audio).to(embeddings.dtype)
        return self._decoder(embeddings, packed.chunks, self._cache, watch)

    def _take_token(self, row: Row, token: int, logprob: float) -> None:
        row.pending, row.num_pending = [(token,)], 1
        row.full = row.length + 1 >= self._context
        row.ids.append(token)
        row.logprobs.append(logprob)
        end_of_turn = token in self._family.eos_ids
        piece = row.decoder.flush() if end_of_turn else row.decoder.push(token)
        row.pieces.append(piece)
        feed = row.feed
        assert feed is not None  # for the type checker: who wants a token gives one
        try:
            pause = feed(piece, end_of_turn)
        except Exception as error:
            self._fail(row, error)
            return
        if pause or end_of_turn or row.full:
            ends = tuple(accumulate(map(len, row.pieces)))
            span = GeneratedSpan(tuple(row.ids), tuple(row.logprobs), "".join(row.pieces), ends)
            row.ids, row.logprobs, row.pieces = [], [], []
            _fulfil(row, span)

    def _fail(self, row: Row, error: Exception) -> None:
        _fail(row, str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}")
        row.closed = True
        self._remove(row)


def _fulfil(row: Row, result: GeneratedSpan | Look) -> None:
    future, row.future = row.future, None
    if future is not None and future.set_running_or_notify_cancel():
        future.set_result(result)


def _fail(row: Row, message: str) -> None:
    future, row.future = row.future, None
    if future is not None and future.set_running_or_notify_cancel():
        future.set_exception(EngineError(message))
