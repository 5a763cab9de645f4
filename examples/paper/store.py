"""A results store that survives being killed: what is finished is in it, once; what is not is done again."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.paper.training import Epoch

__all__ = ["Finished", "Store", "key_of"]

_TABLES = """
CREATE TABLE IF NOT EXISTS trials (key TEXT PRIMARY KEY, settings TEXT NOT NULL, result TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS epochs (
    key TEXT NOT NULL, number INTEGER NOT NULL, loss REAL, accuracy REAL, seconds REAL, PRIMARY KEY (key, number)
);
"""
_PATIENCE = 60.0  # seconds that one writer waits for another


@dataclass(frozen=True)
class Finished:
    """A finished trial: what it was, what it gave, and its epochs."""

    settings: Mapping[str, Any]
    result: Mapping[str, Any]
    epochs: tuple[Epoch, ...]


def key_of(settings: Mapping[str, Any]) -> str:
    """What names a trial: a digest of its settings, the same in any order and on any machine."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:20]


class Store:
    """Finished trials in one SQLite file, which several processes of one machine may write.

    A trial and its epochs are written in one transaction, when it is finished. The file keeps SQLite's own rollback
    journal: switching it to a write-ahead log is refused at once, whatever the patience, where two processes open a new
    file together.

    Args:
        path: The file; it and its folder are made if they are not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._connect()) as connection, connection:
            connection.executescript(_TABLES)

    def add(self, settings: Mapping[str, Any], result: Mapping[str, Any], epochs: Iterable[Epoch] = ()) -> None:
        """Write a finished trial; one that is there already stays as it is."""
        key = key_of(settings)
        rows = [(key, e.number, e.loss, e.accuracy, e.seconds) for e in epochs]
        with closing(self._connect()) as connection, connection:
            values = (key, json.dumps(settings, sort_keys=True), json.dumps(result, sort_keys=True))
            is_new = connection.execute("INSERT OR IGNORE INTO trials VALUES (?, ?, ?)", values).rowcount
            if is_new:
                connection.executemany("INSERT OR REPLACE INTO epochs VALUES (?, ?, ?, ?, ?)", rows)

    def __contains__(self, settings: Mapping[str, Any]) -> bool:
        with closing(self._connect()) as connection:
            query = "SELECT 1 FROM trials WHERE key = ?"
            return connection.execute(query, (key_of(settings),)).fetchone() is not None

    def finished(self, **settings: Any) -> list[Finished]:
        """The finished trials that have these settings, in the order in which they finished."""
        with closing(self._connect()) as connection:
            trials = connection.execute("SELECT key, settings, result FROM trials ORDER BY rowid").fetchall()
            found = []
            for key, stored, result in trials:
                values = json.loads(stored)
                if any(values.get(name) != value for name, value in settings.items()):
                    continue
                query = "SELECT number, loss, accuracy, seconds FROM epochs WHERE key = ? ORDER BY number"
                epochs = tuple(Epoch(*row) for row in connection.execute(query, (key,)))
                found.append(Finished(values, json.loads(result), epochs))
        return found

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=_PATIENCE)
