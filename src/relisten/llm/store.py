"""Replies that were paid for, kept on disk under the identity of their request; and what all of it cost.

One SQLite file, written in one transaction a reply and synchronised before the reply is used: after a `kill -9` or
a power cut every reply that reached this process is there. Requests that were under way then are sent again, with
the same `Idempotency-Key`: an endpoint that knows it does not charge twice.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from relisten.errors import InputError
from relisten.llm.chat import Reply
from relisten.llm.errors import StopRunError

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY, step TEXT NOT NULL, model TEXT NOT NULL, text TEXT NOT NULL, finish TEXT NOT NULL,
    max_tokens INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    cost REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lost (
    key TEXT NOT NULL, step TEXT NOT NULL, reason TEXT NOT NULL, prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL, cost REAL NOT NULL
);
"""


@dataclass(frozen=True)
class Usage:
    """Requests, tokens and dollars of one step."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cost + other.cost,
        )


class ReplyStore:
    """The file; one process at a time has it open.

    Raises:
        InputError: another process has it open, it is no store, or it cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"{self.path}: cannot be opened ({error}); check the folder") from None
        try:
            # Exclusive comes first: the write-ahead log then needs no shared memory and works on any file system.
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_TABLES)
        except sqlite3.Error as error:
            self._db.close()
            if "locked" in str(error):
                message = "is in use by another run; wait for it, or give another folder"
            else:
                message = f"is not a store of replies ({error}); give another path, or move it away"
            raise InputError(f"{self.path}: {message}") from None

    def get(self, key: str, max_tokens: int) -> Reply | None:
        """The reply to this request, unless it was cut short and `max_tokens` now allows a longer one."""
        row = self._db.execute(
            "SELECT text, finish, prompt_tokens, completion_tokens, max_tokens FROM replies WHERE key = ?", (key,)
        ).fetchone()
        if row is None or (row[1] == "length" and row[4] < max_tokens):
            return None
        return Reply(*row[:4])

    def put(self, key: str, step: str, model: str, max_tokens: int, reply: Reply, cost: float) -> None:
        """Keep a reply for good; when this returns it is on disk.

        Raises:
            StopRunError: the disk does not take it.
        """
        with self._telling(), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "INSERT INTO lost SELECT key, step, 'replaced by a longer reply', prompt_tokens, "
                "completion_tokens, cost FROM replies WHERE key = ?",
                (key,),
            )
            self._db.execute(
                "INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (key, step, model, reply.text, reply.finish, max_tokens, reply.prompt_tokens,
                 reply.completion_tokens, cost),
            )  # fmt: skip

    def lose(self, key: str, step: str, reason: str, prompt: int, completion: int, cost: float) -> None:
        """Note a request that broke off and may have been charged all the same.

        Raises:
            StopRunError: the disk does not take it.
        """
        row = (key, step, reason, prompt, completion, cost)
        with self._telling():
            self._db.execute("INSERT INTO lost VALUES (?, ?, ?, ?, ?, ?)", row)

    def usage(self) -> dict[str, Usage]:
        """What the kept replies used, by step."""
        return self._sums("replies")

    def lost(self) -> dict[str, Usage]:
        """What requests without a usable reply are presumed to have used, by step."""
        return self._sums("lost")

    def spent(self) -> float:
        """Dollars, everything presumed included."""
        return sum(usage.cost for usage in (*self.usage().values(), *self.lost().values()))

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> ReplyStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StopRunError(
                f"{self.path}: a reply cannot be kept ({error}); free some space, what is there already stays"
            ) from error

    def _sums(self, table: str) -> dict[str, Usage]:
        rows = self._db.execute(
            "SELECT step, COUNT(*), SUM(prompt_tokens), SUM(completion_tokens), SUM(cost) "
            f"FROM {table} GROUP BY step ORDER BY step"
        )
        return {row[0]: Usage(*row[1:]) for row in rows}
