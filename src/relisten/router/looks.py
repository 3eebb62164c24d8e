"""What a reasoner sees of many questions before it answers them: computed once, kept on disk."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np

from relisten.engines.base import Engine, Look, LookingStream
from relisten.errors import InputError
from relisten.protocol import Format, system_prompt, user_text
from relisten.question import Question
from relisten.trace import Sampling

_AT_ONCE: Final = 32


class LookStore:
    """Looks in one SQLite file, under the reasoner's weights, the clip and the prompt's text.

    Raises:
        InputError: the file cannot be opened, or is something else.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=10, isolation_level=None)
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS looks (key TEXT PRIMARY KEY, layers INT, last BLOB, sound BLOB)"
            )
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"{self.path}: is no store of hidden states ({error}); give another path") from None

    def get(self, key: str) -> Look | None:
        row = self._db.execute("SELECT layers, last, sound FROM looks WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        layers, *states = row
        last, sound = (np.frombuffer(data, np.float32).reshape(layers, -1) for data in states)
        return Look(last, sound)

    def put(self, key: str, look: Look) -> None:
        """Keep a look.

        Raises:
            InputError: the disk is full.
        """
        last, sound = (np.ascontiguousarray(states, np.float32).tobytes() for states in (look.last, look.sound))
        try:
            self._db.execute("INSERT OR REPLACE INTO looks VALUES (?, ?, ?, ?)", (key, len(look.last), last, sound))
        except sqlite3.Error as error:
            raise InputError(f"{self.path}: cannot be written ({error}); free some space and go on") from None

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> LookStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def look_at(
    engine: Engine,
    questions: Sequence[Question],
    reasoner: str,
    store: LookStore,
    *,
    format: Format = Format.INTERLEAVED,
    on_look: Callable[[], None] = lambda: None,
) -> list[Look]:
    """What the engine's model sees of each question, without findings, in order.

    Args:
        reasoner: hash of its weights.
        on_look: called when one is there.

    Raises:
        InputError: a question's sound cannot be read, or the engine shows no hidden states.
    """

    async def all_of_them() -> list[Look]:
        places = asyncio.Semaphore(_AT_ONCE)  # bounds the clips in memory

        async def one(question: Question) -> Look:
            async with places:
                look = await _look(engine, question, reasoner, store, format)
            on_look()
            return look

        return list(await asyncio.gather(*map(one, questions)))

    return asyncio.run(all_of_them())


async def _look(engine: Engine, question: Question, reasoner: str, store: LookStore, format: Format) -> Look:
    clip = await asyncio.to_thread(question.clip)
    asked = Question(question.text, question.choices, clip, question.id)
    text = [reasoner, clip.hash, system_prompt(format), user_text(asked)]
    key = hashlib.sha256(json.dumps(text).encode("utf-8", "surrogatepass")).hexdigest()
    if (kept := store.get(key)) is not None:
        return kept
    stream = engine.open(asked, clip, format, Sampling(max_tokens=1))
    try:
        if not isinstance(stream, LookingStream):
            raise InputError(
                f"{engine.model}: its engine shows no hidden states; train and use a head with the native engine"
            )
        look = await stream.look()
    finally:
        stream.close()
    store.put(key, look)
    return look
