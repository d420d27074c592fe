"""Opens the SQLite file that Logic and the group commands share. Its tables and its safety live here, no queries.

Several processes may open it at once, also a new one at the same moment.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from pathlib import Path
from typing import Final

from gateway.logic.store import StoreFailed

VERSION: Final = 2
BUSY: Final = 5.0
"""Seconds to wait for another process's transaction; ours last milliseconds."""
OPENING: Final = 15.0
"""Seconds for the switch to WAL, which SQLite does not wait for by itself."""
WAL_BYTES: Final = 67_108_864
"""What the log is cut to after a burst."""

_TABLES: Final = (
    # server_seq: in the sender's timeline; status: the furthest that any recipient came; owed: sender not told yet;
    # refs: entries that show it
    """CREATE TABLE messages (
        id INTEGER PRIMARY KEY, sender INTEGER NOT NULL, msg_id TEXT NOT NULL, to_user INTEGER NOT NULL,
        group_id INTEGER NOT NULL, content TEXT NOT NULL, content_type INTEGER NOT NULL, sent_at INTEGER NOT NULL,
        stored_at INTEGER NOT NULL, server_seq INTEGER NOT NULL,
        status INTEGER NOT NULL DEFAULT 0, owed INTEGER NOT NULL DEFAULT 0, refs INTEGER NOT NULL DEFAULT 0,
        UNIQUE (sender, msg_id))""",
    "CREATE INDEX messages_owed ON messages (sender) WHERE owed",
    """CREATE TABLE timelines (
        user_id INTEGER NOT NULL, server_seq INTEGER NOT NULL, message INTEGER NOT NULL,
        status INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (user_id, server_seq)) WITHOUT ROWID""",
    "CREATE TABLE groups (group_id INTEGER PRIMARY KEY, name TEXT NOT NULL, created_at INTEGER NOT NULL)",
    """CREATE TABLE members (
        group_id INTEGER NOT NULL REFERENCES groups ON DELETE CASCADE, user_id INTEGER NOT NULL,
        added_at INTEGER NOT NULL, PRIMARY KEY (group_id, user_id)) WITHOUT ROWID""",
)

_FROM_1: Final = (
    "ALTER TABLE messages ADD COLUMN refs INTEGER NOT NULL DEFAULT 0",
    "CREATE TEMP TABLE counted (message INTEGER PRIMARY KEY, refs INTEGER NOT NULL)",
    "INSERT INTO counted SELECT message, COUNT(*) FROM timelines GROUP BY message",
    "UPDATE messages SET refs = COALESCE((SELECT refs FROM counted WHERE message = id), 0)",
    "DROP TABLE counted",
)
"""What makes a file of version 1 one of version 2."""


def connect(path: Path, *, busy: float = BUSY) -> sqlite3.Connection:
    """Open the store, making it if it is not there: readable by its owner only, WAL, synchronous FULL.

    The connection is in autocommit mode (transactions are begun explicitly) and may be used from any thread,
    by one at a time.

    Args:
        path: the file; its directory is made too.
        busy: seconds to wait for another's transaction.

    Raises:
        StoreFailed: it cannot be opened, is no store, or was made by a newer version.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(path, timeout=busy, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise StoreFailed(f"cannot open the message store {path}: {error}") from error
    try:
        _prepare(connection)
    except (StoreFailed, sqlite3.Error) as error:
        connection.close()
        raise StoreFailed(f"cannot use {path} as a message store: {error}") from error
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    _switch_to_wal(connection)
    connection.execute("PRAGMA synchronous = FULL")  # one fsync per commit: what was Stored survives a power cut
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
    if _version(connection) < VERSION:
        connection.execute("BEGIN IMMEDIATE")
        try:
            found = _version(connection)
            if found < VERSION:  # another process may have been faster
                for statement in _FROM_1 if found == 1 else _TABLES:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
    if _version(connection) > VERSION:
        raise StoreFailed("it was made by a newer version of this program")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """The switch needs the file for itself, and SQLite answers "locked" at once instead of waiting for it."""
    deadline = time.monotonic() + OPENING
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.005, 0.05))
        else:
            if mode != "wal":
                raise StoreFailed("its file system does not support SQLite's write-ahead log")
            return
