"""Encoding the sounds of a native engine: ahead of the steps that need them, and beside steps of other rows."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from relisten.audio import Clip
from relisten.engines.threads import take_threads
from relisten.models.base import Family
from relisten.models.tower import ChunkCache
from relisten.processes import usable_processors

_BATCH_SECONDS = 240.0  # sound encoded in one batch; bounds memory, not speed


@dataclass(eq=False)
class EncodedAudio:
    """A clip that is being encoded; in the end it has `embeddings` (n, hidden) or an `error`."""

    clip: Clip
    users: int = 0  # rows that asked for it and did not release it
    embeddings: Tensor | None = None
    error: Exception | None = None


class Encoder:
    """Encodes what rows ask for, each clip object once for all rows that ask for it meanwhile.

    On a CPU clips are encoded one by one, by a thread of its own where that finds a free processor and by the
    engine's thread when that has nothing better to do. Which of them does it makes no difference to the bit
    (`models.tower.encode_features`). Elsewhere all that waits is one batch, encoded by the engine's thread.

    All methods are for the engine's thread.

    Args:
        wake: called from the encoder's own thread whenever that has encoded a sound.
        beside: whether to start the thread; None: if `threads` leaves a processor unused.
        threads: processors that an operation takes.
        cache: what may be reused; cleared by `forget`.
    """

    def __init__(
        self,
        family: Family,
        wake: Callable[[], None],
        *,
        beside: bool | None = None,
        threads: int,
        cache: ChunkCache | None,
    ) -> None:
        self._family = family
        self._wake = wake
        self._cache = cache
        self._one_by_one = family.device.type == "cpu"
        if beside is None:
            beside = self._one_by_one and threads < usable_processors()
        self._threads = threads
        self._sounds: dict[int, EncodedAudio] = {}
        self._waiting: deque[EncodedAudio] = deque()
        self._condition = threading.Condition()
        self._encoding = False  # whether the thread is encoding now
        self._closed = False
        self.thread: threading.Thread | None = None
        """Where sound is encoded beside the engine's thread."""
        if beside:
            self.thread = threading.Thread(target=self._work_beside, name="relisten-encoder", daemon=True)
            self.thread.start()

    def ask(self, clip: Clip) -> EncodedAudio:
        """Begin to encode a clip, or join those who wait for it. `release` what was asked for."""
        sound = self._sounds.get(id(clip))
        if sound is None:
            sound = self._sounds[id(clip)] = EncodedAudio(clip)
            with self._condition:
                self._waiting.append(sound)
                self._condition.notify()
        sound.users += 1
        return sound

    def release(self, sound: EncodedAudio) -> None:
        """One of those who asked needs it no longer; what nobody needs is not encoded."""
        sound.users -= 1
        if sound.users == 0:
            del self._sounds[id(sound.clip)]
            with self._condition:
                if sound in self._waiting:
                    self._waiting.remove(sound)

    def work(self) -> bool:
        """Encode some of what waits, here and now; False where nothing does."""
        batch = self._take()
        self._encode(batch)
        return bool(batch)

    def forget(self) -> None:
        """Reuse nothing from before: the weights may change from now on."""
        if self._cache is not None:
            with self._condition:
                self._condition.wait_for(lambda: not self._encoding)
                self._cache.clear()

    def close(self) -> None:
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        if self.thread is not None:
            self.thread.join()
        del self._wake  # it holds the engine's worker, which holds this

    def _take(self) -> list[EncodedAudio]:
        with self._condition:
            batch: list[EncodedAudio] = []
            seconds = 0.0
            while self._waiting and (not batch or seconds + self._waiting[0].clip.duration <= _BATCH_SECONDS):
                batch.append(self._waiting.popleft())
                seconds += batch[-1].clip.duration
                if self._one_by_one:
                    break
            return batch

    def _encode(self, batch: list[EncodedAudio]) -> None:
        if not batch:
            return
        failure: Exception | None = None
        try:
            encoded = self._family.encode_audio([sound.clip for sound in batch], self._cache)
        except Exception as error:
            failure = error.with_traceback(None)  # whose frames hold all that was computed
        if failure is None:
            for sound, embeddings in zip(batch, encoded, strict=True):
                sound.embeddings = embeddings
        elif len(batch) == 1:
            batch[0].error = failure
        else:  # by itself each, so that a bad one fails alone, and each has all the memory there is
            for sound in batch:
                self._encode([sound])

    @torch.inference_mode()
    def _work_beside(self) -> None:
        take_threads(self._threads)
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                self._encoding = True
            try:
                self._encode(self._take())
            finally:
                with self._condition:
                    self._encoding = False
                    self._condition.notify_all()
            self._wake()
