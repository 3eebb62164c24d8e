"""`ToolCache`: what tools found, kept on disk under clip, window, tool, version and arguments."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from relisten.audio import Clip, seconds_to_samples
from relisten.errors import InputError
from relisten.protocol import Segment
from relisten.tools.tool import Argument, Tool


class ToolCache:
    """One SQLite file; several threads and several processes may use it at once. A finding that cannot be kept
    (disk full, file locked for long) is only not kept: a cache never stops an answer.

    Raises:
        InputError: the file cannot be opened, or is something else.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=10, isolation_level=None, check_same_thread=False)
            self._db.execute("CREATE TABLE IF NOT EXISTS findings (key TEXT PRIMARY KEY, json TEXT) WITHOUT ROWID")
        except (OSError, sqlite3.Error) as error:
            raise InputError(
                f"{self.path}: is no cache of tools that can be used ({error}); give another path"
            ) from None

    def get(self, key: str) -> dict[str, Any] | None:
        """The finding under a key, as JSON; None where there is none or it cannot be read."""
        try:
            with self._lock:
                row = self._db.execute("SELECT json FROM findings WHERE key = ?", (key,)).fetchone()
            data = json.loads(row[0]) if row else None
        except (sqlite3.Error, ValueError):
            return None
        return data if isinstance(data, dict) else None

    def put(self, key: str, finding: Mapping[str, Any]) -> None:
        """Keep a finding; failures are never kept, since they may pass."""
        try:
            with self._lock:
                self._db.execute("INSERT OR REPLACE INTO findings VALUES (?, ?)", (key, json.dumps(finding)))
        except sqlite3.Error:
            return

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> ToolCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def cache_key(tool: Tool[..., Any], clip: Clip, window: Segment | None, arguments: Mapping[str, Argument]) -> str:
    """What makes two runs the same one. Windows are told apart by samples, not by digits of their seconds."""
    span = None if window is None else [seconds_to_samples(window.start), seconds_to_samples(window.end)]
    content = [tool.name, tool.version, clip.hash, span, dict(arguments)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()
