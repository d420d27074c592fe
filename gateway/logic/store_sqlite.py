"""The Store on one SQLite file. All SQL that Logic runs lives here; threads are entered here and nowhere else.

One worker thread at a time uses the connection. Statements are few per transaction, not per message, because
each step of SQLite gives the interpreter away and has to wait for it again.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import trio

from gateway.logic import database
from gateway.logic.pruning_sqlite import prune
from gateway.logic.store import (
    ENTRY_BYTES,
    INT64_MAX,
    OWED_PER_PAGE,
    RECENT,
    Entry,
    History,
    NotMember,
    Outcome,
    Page,
    Post,
    Posted,
    Raised,
    Receipt,
    Retention,
    StoreFailed,
    Told,
    Write,
)
from gateway.protocol.types import AckStatus

T = TypeVar("T")

ENTRIES_PER_COMMIT: Final = 20_000
"""Timeline entries in one transaction, so that messages to large groups do not hold up others for seconds."""

_KNOWN = """SELECT m.sender, m.msg_id, m.server_seq, m.stored_at FROM json_each(?) j CROSS JOIN messages m
    WHERE m.sender = json_extract(j.value, '$[0]') AND m.msg_id = json_extract(j.value, '$[1]')"""
_MEMBERS = """SELECT m.group_id, m.user_id FROM json_each(?) j CROSS JOIN members m WHERE m.group_id = j.value"""
_HEADS = """SELECT j.value, (SELECT MAX(server_seq) FROM timelines WHERE user_id = j.value) FROM json_each(?) j"""
_LAST_ID = "SELECT COALESCE(MAX(id), 0) FROM messages"
_ADD_MESSAGE = """INSERT INTO messages
    (id, sender, msg_id, to_user, group_id, content, content_type, sent_at, stored_at, server_seq, refs)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_ADD_ENTRY = "INSERT INTO timelines (user_id, server_seq, message) VALUES (?, ?, ?)"
_RECENT = """SELECT t.server_seq FROM timelines t JOIN messages m ON m.id = t.message
    WHERE t.user_id = ? AND t.server_seq > ? AND m.msg_id = ? AND m.sender != ? ORDER BY t.server_seq DESC LIMIT 1"""
_RECEIVED = """SELECT t.user_id, t.server_seq, t.status, m.id, m.sender, m.msg_id, m.server_seq, m.status
    FROM json_each(?) j CROSS JOIN timelines t CROSS JOIN messages m
    WHERE t.user_id = json_extract(j.value, '$[0]') AND t.server_seq = json_extract(j.value, '$[1]')
    AND m.id = t.message"""
_MARK_ENTRY = "UPDATE timelines SET status = ? WHERE user_id = ? AND server_seq = ?"
_MARK_MESSAGE = "UPDATE messages SET status = ?, owed = 1 WHERE id = ?"
_MARK_TOLD = "UPDATE messages SET owed = 0 WHERE id = ? AND status = ?"
_PAGE = """SELECT t.server_seq, m.msg_id, m.sender, m.to_user, m.group_id, m.content, m.content_type, m.sent_at
    FROM timelines t JOIN messages m ON m.id = t.message
    WHERE t.user_id = ? AND t.server_seq > ? ORDER BY t.server_seq LIMIT ?"""
_OWED = """SELECT id, sender, msg_id, server_seq, status FROM messages INDEXED BY messages_owed
    WHERE sender = ? AND owed LIMIT ?"""


class SqliteStore:
    """A Store (`gateway.logic.store`) on a file. Made by `open`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._limiter = trio.CapacityLimiter(1)

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, *, busy: float = database.BUSY) -> AsyncIterator[SqliteStore]:
        """Open the file, making it if need be, and close it at the end.

        Raises:
            StoreFailed: it cannot be opened, is no store, or was made by a newer version.
        """
        connection = await trio.to_thread.run_sync(lambda: database.connect(path, busy=busy))
        store = cls(connection)
        try:
            yield store
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(connection.close, limiter=store._limiter)

    async def write(self, writes: Sequence[Write], now_ms: int) -> list[Outcome]:
        """See `Store.write`."""
        return await self._run(lambda: self._write(writes, now_ms))

    async def read(self, queries: Sequence[History]) -> list[Page]:
        """See `Store.read`."""
        return await self._run(lambda: [_page(self._connection, query) for query in queries])

    async def members(self, group_ids: Sequence[int]) -> dict[int, frozenset[int]]:
        """See `Store.members`."""
        found = await self._run(lambda: _members(self._connection, group_ids))
        return {group_id: frozenset(users) for group_id, users in found.items()}

    async def prune(self, retention: Retention, after: str) -> str:
        """See `Store.prune`."""
        return await self._run(lambda: self._transaction(lambda: prune(self._connection, retention, after)))

    async def _run(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(lambda: _guarded(work), limiter=self._limiter)

    def _write(self, writes: Sequence[Write], now_ms: int) -> list[Outcome]:
        def work() -> list[Outcome]:
            connection = self._connection
            posts = _Posts(connection, now_ms)
            done = posts.prefix(writes)
            outcomes: list[Outcome] = [posts.place(each) if isinstance(each, Post) else None for each in done]
            posts.insert()
            receipts = [(index, write) for index, write in enumerate(done) if isinstance(write, Receipt)]
            for index, raised in _mark(connection, receipts):
                outcomes[index] = raised
            connection.executemany(_MARK_TOLD, [(each.key, each.status) for each in done if isinstance(each, Told)])
            return outcomes

        return self._transaction(work)

    def _transaction(self, work: Callable[[], T]) -> T:
        connection = self._connection
        if connection.in_transaction:  # an earlier rollback failed
            connection.execute("ROLLBACK")
        connection.execute("BEGIN IMMEDIATE")
        try:
            done = work()
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        return done


class _Posts:
    """The Posts of one transaction: where each goes, worked out before anything is inserted."""

    def __init__(self, connection: sqlite3.Connection, now_ms: int) -> None:
        self._connection = connection
        self._now_ms = now_ms
        self._known: dict[tuple[int, str], tuple[int, int]] = {}
        self._members: dict[int, list[int]] = {}
        self._heads: dict[int, int] = {}
        self._next_id = 0
        self._messages: list[tuple[Any, ...]] = []
        self._entries: list[tuple[int, int, int]] = []

    def prefix(self, writes: Sequence[Write]) -> Sequence[Write]:
        """As many writes as one transaction takes; what `place` needs to know of them has been read."""
        posts = [each for each in writes if isinstance(each, Post)]
        if not posts:
            return writes
        self._members = _members(self._connection, {each.group_id for each in posts if each.group_id})
        writes = list(itertools.islice(writes, self._fitting(writes)))
        posts = [each for each in writes if isinstance(each, Post)]
        pairs = _json([(each.sender, each.msg_id) for each in posts])
        for sender, msg_id, server_seq, stored_at in self._connection.execute(_KNOWN, (pairs,)):
            self._known[sender, msg_id] = server_seq, stored_at
        users = {user for each in posts for user in (each.sender, *self._recipients(each))}
        self._heads = {user: head or 0 for user, head in self._connection.execute(_HEADS, (_json(list(users)),))}
        self._next_id = self._connection.execute(_LAST_ID).fetchone()[0] + 1
        return writes

    def place(self, post: Post) -> Posted | NotMember:
        """Give a Post its places; one that is known already has them."""
        known = self._known.get((post.sender, post.msg_id))
        if known is not None:
            return Posted(*known, repeated=True)
        if post.group_id and post.sender not in self._members.get(post.group_id, ()):
            return NotMember()
        server_seq = self._enter(post.sender)
        recipients = [(user, self._enter(user)) for user in self._recipients(post) if user != post.sender]
        self._messages.append((
            self._next_id, post.sender, post.msg_id, post.to_user, post.group_id, post.content, post.content_type,
            post.sent_at, self._now_ms, server_seq, 1 + len(recipients),
        ))  # fmt: skip
        self._known[post.sender, post.msg_id] = server_seq, self._now_ms
        self._next_id += 1
        return Posted(server_seq, self._now_ms, recipients)

    def insert(self) -> None:
        """Write what was placed."""
        self._connection.executemany(_ADD_MESSAGE, self._messages)
        self._connection.executemany(_ADD_ENTRY, self._entries)

    def _enter(self, user: int) -> int:
        self._heads[user] += 1
        self._entries.append((user, self._heads[user], self._next_id))
        return self._heads[user]

    def _recipients(self, post: Post) -> Sequence[int]:
        return self._members.get(post.group_id, ()) if post.group_id else (post.to_user,)

    def _fitting(self, writes: Sequence[Write]) -> int:
        entries = 0
        for index, write in enumerate(writes):
            if isinstance(write, Post):
                entries += 1 + len(self._recipients(write))
                if entries > ENTRIES_PER_COMMIT and index:
                    return index
        return len(writes)


def _mark(connection: sqlite3.Connection, receipts: Sequence[tuple[int, Receipt]]) -> Iterable[tuple[int, Raised]]:
    """Raise the status of entries and messages; yields (index, what the sender is owed)."""
    if not receipts:
        return []
    asked = [(index, each, each.server_seq or _recent(connection, each)) for index, each in receipts]
    pairs = _json([(each.user_id, server_seq) for _, each, server_seq in asked])
    rows = {(row[0], row[1]): list(row[2:]) for row in connection.execute(_RECEIVED, (pairs,))}
    entries: dict[tuple[int, int], AckStatus] = {}
    raised: dict[int, tuple[int, Raised]] = {}
    for index, receipt, server_seq in asked:
        row = rows.get((receipt.user_id, server_seq))
        if row is None:
            continue
        entry_status, key, sender, msg_id, sender_seq, _ = row
        if receipt.msg_id not in ("", msg_id) or sender == receipt.user_id or receipt.status <= entry_status:
            continue
        row[0] = entries[receipt.user_id, server_seq] = receipt.status
        if receipt.status > max(row[5], raised[key][1].status if key in raised else 0):
            raised[key] = index, Raised(key, sender, msg_id, sender_seq, receipt.status)
    connection.executemany(_MARK_ENTRY, [(status, *place) for place, status in entries.items()])
    connection.executemany(_MARK_MESSAGE, [(each.status, key) for key, (_, each) in raised.items()])
    return raised.values()


def _recent(connection: sqlite3.Connection, receipt: Receipt) -> int:
    """The place of a message that a receipt names by msg_id only, if it is recent; else 0, which no entry has."""
    head = _head(connection, receipt.user_id)
    values = receipt.user_id, head - RECENT, receipt.msg_id, receipt.user_id
    row = connection.execute(_RECENT, values).fetchone()
    return row[0] if row else 0


def _page(connection: sqlite3.Connection, query: History) -> Page:
    entries: list[Entry] = []
    has_more = False
    room = query.max_bytes
    cursor = min(query.cursor, INT64_MAX)
    rows = connection.execute(_PAGE, (query.user_id, cursor, query.limit + 1))
    for row in rows:
        room -= ENTRY_BYTES + len(row[5].encode())
        if len(entries) == query.limit or (entries and room < 0):
            has_more = True
            break
        entries.append(Entry(*row))
    rows.close()
    next_cursor = entries[-1].server_seq if entries else min(cursor, _head(connection, query.user_id))
    owed = connection.execute(_OWED, (query.user_id, OWED_PER_PAGE))
    raised = [Raised(key, sender, msg_id, seq, AckStatus(status)) for key, sender, msg_id, seq, status in owed]
    return Page(entries, next_cursor, has_more, raised)


def _head(connection: sqlite3.Connection, user_id: int) -> int:
    row = connection.execute("SELECT MAX(server_seq) FROM timelines WHERE user_id = ?", (user_id,)).fetchone()
    return row[0] or 0


def _members(connection: sqlite3.Connection, group_ids: Iterable[int]) -> dict[int, list[int]]:
    groups: dict[int, list[int]] = {}
    asked = _json(list(group_ids))
    if asked != "[]":
        for group_id, user_id in connection.execute(_MEMBERS, (asked,)):
            groups.setdefault(group_id, []).append(user_id)
    return groups


def _json(value: object) -> str:
    """One parameter for a whole batch, which json_each takes apart again."""
    return msgspec.json.encode(value).decode()


def _guarded(work: Callable[[], T]) -> T:
    try:
        return work()
    except sqlite3.Error as error:
        raise StoreFailed(f"{type(error).__name__}: {error}") from error
