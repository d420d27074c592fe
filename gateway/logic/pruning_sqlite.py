"""Forgetting in the SQLite file: one bounded step over some timelines, inside the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import takewhile
from typing import Final

from gateway.logic.store import Retention

TIMELINES: Final = 200
"""Looked at in one step."""
ENTRIES: Final = 1_000
"""Forgotten in one step: about 10 ms, in which nobody else writes."""

# finds each next user by the index: a DISTINCT would read every entry of them
_USERS: Final = """WITH RECURSIVE found(user_id) AS (
        SELECT MIN(user_id) FROM timelines WHERE user_id > ?
        UNION ALL
        SELECT (SELECT MIN(user_id) FROM timelines WHERE user_id > found.user_id) FROM found WHERE user_id IS NOT NULL)
    SELECT user_id FROM found WHERE user_id IS NOT NULL LIMIT ?"""
_HEAD: Final = "SELECT MAX(server_seq) FROM timelines WHERE user_id = ?"
_OLDEST: Final = """SELECT t.server_seq, t.message, m.stored_at
    FROM timelines t LEFT JOIN messages m ON m.id = t.message
    WHERE t.user_id = ? AND t.server_seq < ? ORDER BY t.server_seq LIMIT ?"""
_FORGET_ENTRIES: Final = "DELETE FROM timelines WHERE user_id = ? AND server_seq <= ?"
_COUNT: Final = "UPDATE messages SET refs = refs - 1 WHERE id = ?"
_FORGET_MESSAGE: Final = "DELETE FROM messages WHERE id = ? AND refs <= 0"


def prune(connection: sqlite3.Connection, retention: Retention, after: str) -> str:
    """See `Store.prune`; `after` is a user."""
    room = ENTRIES
    user = int(after or 0)
    users = [row[0] for row in connection.execute(_USERS, (user, TIMELINES))]
    for user in users:
        gone = _oldest(connection, retention, user, room)
        if gone:
            connection.execute(_FORGET_ENTRIES, (user, gone[-1][0]))
            connection.executemany(_COUNT, [(message,) for _, message in gone])
            connection.executemany(_FORGET_MESSAGE, [(message,) for _, message in gone])
        room -= len(gone)
        if not room:
            return str(user - 1)  # there may be more of this one
    return str(user) if len(users) == TIMELINES else ""


def _oldest(connection: sqlite3.Connection, retention: Retention, user: int, room: int) -> Sequence[tuple[int, int]]:
    """(server_seq, message) of entries that may go."""
    head = connection.execute(_HEAD, (user,)).fetchone()[0]
    last = head - retention.keep if retention.keep else 0
    rows = connection.execute(_OLDEST, (user, head, room))
    found = [
        (server_seq, message)
        for server_seq, message, _ in takewhile(lambda row: row[0] <= last or (row[2] or 0) < retention.before_ms, rows)
    ]
    rows.close()
    return found
