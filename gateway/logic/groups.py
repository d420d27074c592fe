"""Group membership by the command line and by other programs: synchronous, on the store's file, also while a node runs.

Each call is one transaction and counts from the next message on; a running node needs no notice. Opens the file
for every call, so nothing is held between them.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from gateway.logic.database import connect
from gateway.logic.store import INT64_MAX, StoreFailed

MAX_MEMBERS: Final = 2_000
"""Most members of a group: a message to it is one transaction that enters it in each one's timeline."""
NAME_LIMIT: Final = 128


class GroupError(ValueError):
    """What was asked cannot be: an id out of range, a group that is there already or not at all, too many members."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A group and who is in it, in ascending order. `created_at` is Unix milliseconds."""

    group_id: int
    name: str
    created_at: int
    members: tuple[int, ...]


def create_group(path: Path, group_id: int, members: Iterable[int] = (), *, name: str = "") -> Group:
    """Make a group.

    Raises:
        GroupError: it exists, an id is not an int64 above zero, the name is too long, or there are too many members.
        StoreFailed: the store cannot be used.
    """
    checked_id(group_id, "a group id")
    checked_title(name)
    with _transaction(path) as connection:
        if _name_of(connection, group_id) is not None:
            raise GroupError(f"group {group_id} exists already")
        connection.execute("INSERT INTO groups VALUES (?, ?, ?)", (group_id, name, _now_ms()))
        _add(connection, group_id, members)
        return _read(connection, group_id)


def delete_group(path: Path, group_id: int) -> None:
    """Remove a group; its messages stay in their timelines. Raises GroupError, StoreFailed."""
    with _existing(path, group_id) as connection:
        connection.execute("DELETE FROM groups WHERE group_id = ?", (group_id,))


def add_members(path: Path, group_id: int, members: Iterable[int]) -> Group:
    """Add members; those that are in it already stay. Raises GroupError, StoreFailed."""
    with _existing(path, group_id) as connection:
        _add(connection, group_id, members)
        return _read(connection, group_id)


def remove_members(path: Path, group_id: int, members: Iterable[int]) -> Group:
    """Remove members; what they received stays theirs. Raises GroupError, StoreFailed."""
    with _existing(path, group_id) as connection:
        connection.executemany(
            "DELETE FROM members WHERE group_id = ? AND user_id = ?",
            [(group_id, checked_id(user_id, "a user id")) for user_id in members],
        )
        return _read(connection, group_id)


def find_group(path: Path, group_id: int) -> Group:
    """One group with its members. Raises GroupError, StoreFailed."""
    with _existing(path, group_id) as connection:
        return _read(connection, group_id)


def list_groups(path: Path, *, of_user: int = 0) -> Sequence[Group]:
    """All groups by id, or those that a user is in. Raises GroupError, StoreFailed."""
    where, values = "", ()  # type: tuple[str, tuple[int, ...]]
    if of_user:
        where = " WHERE group_id IN (SELECT group_id FROM members WHERE user_id = ?)"
        values = (checked_id(of_user, "a user id"),)
    with _transaction(path) as connection:
        rows = connection.execute(f"SELECT group_id FROM groups{where} ORDER BY group_id", values).fetchall()
        return [_read(connection, group_id) for (group_id,) in rows]


@contextmanager
def _transaction(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(connect(path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise StoreFailed(f"{path}: {error}") from error


@contextmanager
def _existing(path: Path, group_id: int) -> Iterator[sqlite3.Connection]:
    checked_id(group_id, "a group id")
    with _transaction(path) as connection:
        if _name_of(connection, group_id) is None:
            raise GroupError(f"there is no group {group_id}")
        yield connection


def _name_of(connection: sqlite3.Connection, group_id: int) -> str | None:
    row = connection.execute("SELECT name FROM groups WHERE group_id = ?", (group_id,)).fetchone()
    return row[0] if row else None


def _add(connection: sqlite3.Connection, group_id: int, members: Iterable[int]) -> None:
    now = _now_ms()
    connection.executemany(
        "INSERT OR IGNORE INTO members VALUES (?, ?, ?)",
        [(group_id, checked_id(user_id, "a user id"), now) for user_id in members],
    )
    count = connection.execute("SELECT COUNT(*) FROM members WHERE group_id = ?", (group_id,)).fetchone()[0]
    if count > MAX_MEMBERS:
        raise GroupError(f"group {group_id} would have {count} members; at most {MAX_MEMBERS}")


def _read(connection: sqlite3.Connection, group_id: int) -> Group:
    name, created_at = connection.execute(
        "SELECT name, created_at FROM groups WHERE group_id = ?", (group_id,)
    ).fetchone()
    users = connection.execute("SELECT user_id FROM members WHERE group_id = ? ORDER BY user_id", (group_id,))
    return Group(group_id=group_id, name=name, created_at=created_at, members=tuple(user for (user,) in users))


def checked_id(number: int, what: str) -> int:
    """Return `number` if it is an int64 above zero; GroupError says that `what` must be."""
    if type(number) is not int or not 0 < number <= INT64_MAX:
        raise GroupError(f"{what} must be a whole number from 1 to 2^63-1, not {str(number)[:40]}")
    return number


def checked_title(name: str) -> str:
    """Return `name` if a group may be called so; else GroupError."""
    if len(name) > NAME_LIMIT or not name.isprintable():
        raise GroupError(f"a group's name has at most {NAME_LIMIT} printable characters")
    return name


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
