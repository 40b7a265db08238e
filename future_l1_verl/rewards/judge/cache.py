"""Keeps a judge's verdicts, so that no question is asked twice."""

import fcntl
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


class VerdictCache:
    """Maps `key` to a verdict (any JSON value but null), in the SQLite file ``path`` or, without one, in memory.

    Processes of one machine may share the file; machines may not, since SQLite's write-ahead log does not work over a network
    file system. Raises sqlite3.DatabaseError if the file is not such a database.
    """

    def __init__(self, path: str | None = None) -> None:
        # Not bound to a thread: a Ray actor is built in one thread and serves in another.
        if path is None:
            self._rows = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            self._create()
            return
        folder = Path(path).parent
        folder.mkdir(parents=True, exist_ok=True)
        directory = os.open(folder, os.O_RDONLY)
        try:
            # When two processes switch a file to the write-ahead log at once, one gets "locked" whatever its timeout.
            fcntl.flock(directory, fcntl.LOCK_EX)
            self._rows = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
            self._rows.execute("PRAGMA journal_mode = WAL")
            self._rows.execute("PRAGMA synchronous = NORMAL")
            self._create()
        finally:
            os.close(directory)

    def _create(self) -> None:
        # Files of earlier versions have a table ``verdicts`` of yes and no, which is left alone.
        self._rows.execute("CREATE TABLE IF NOT EXISTS said (key BLOB PRIMARY KEY, verdict TEXT NOT NULL) WITHOUT ROWID")

    def get(self, key: bytes) -> Any:
        """Returns the verdict, or None if there is none yet."""
        row = self._rows.execute("SELECT verdict FROM said WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, key: bytes, verdict: Any) -> None:
        """Stores a verdict unless there is one already, so that all processes use the same."""
        self._rows.execute("INSERT OR IGNORE INTO said VALUES (?, ?)", (key, json.dumps(verdict)))


def key(model: str, template: str, parts: Iterable[str], more: Mapping[str, Any]) -> bytes:
    """Returns a digest of all that a verdict depends on; ``parts`` fill the template, ``more`` is what else is sent."""
    return hashlib.sha256(json.dumps([model, template, *parts, *([more] if more else [])]).encode()).digest()
