"""Sessions and seen messages inside the process, for one node, or several in one program. No location lives here.

Lifetimes are kept on the monotonic clock. Every operation is atomic: its one checkpoint is at its beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import trio

from gateway.core.ports import SessionRecord, StoreUnavailable
from gateway.protocol.ids import checked_name

SEEN: Final = 100_000
"""Messages remembered at once: 5 minutes of 333 early messages a second, about 20 MB."""
WINDOW: Final = 300.0
"""Seconds for which a message is remembered (protocol section 4)."""


class MemorySessionStore:
    """A SessionStore (`gateway.core.ports`)."""

    def __init__(self, *, lifetime: float = 120.0) -> None:
        """
        Args:
            lifetime: seconds that a record lasts unless it is put again.
        """
        self._lifetime = lifetime
        self._records: dict[str, tuple[SessionRecord, float]] = {}
        """With their deadlines, in order of these: the lifetime is one for all."""
        self._users: dict[int, set[str]] = {}

    async def put(self, records: Sequence[SessionRecord]) -> None:
        """Write each as it is now, and extend its life."""
        await self._begin()
        for record in records:
            self._drop(record.session_id)
            self._records[record.session_id] = record, trio.current_time() + self._lifetime
            self._users.setdefault(record.user_id, set()).add(record.session_id)

    async def remove(self, records: Sequence[SessionRecord]) -> None:
        """Forget them."""
        await self._begin()
        for record in records:
            self._drop(record.session_id)

    async def find(self, session_id: str) -> SessionRecord | None:
        """One session; None when there is none of that id."""
        await self._begin()
        held = self._records.get(session_id)
        return held[0] if held else None

    async def of_user(self, user_id: int) -> list[SessionRecord]:
        """All sessions of a user, the oldest login first."""
        await self._begin()
        return in_order(self._records[each][0] for each in self._users.get(user_id, ()))

    def statistics(self) -> dict[str, int]:
        """Sizes of what is kept."""
        return {"sessions": len(self._records), "users": len(self._users)}

    async def _begin(self) -> None:
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        while self._records:
            session_id, (_, deadline) = next(iter(self._records.items()))
            if deadline > now:
                return
            self._drop(session_id)

    def _drop(self, session_id: str) -> None:
        held = self._records.pop(session_id, None)
        if held is None:
            return
        user_id = held[0].user_id
        self._users[user_id].discard(session_id)
        if not self._users[user_id]:
            del self._users[user_id]


def in_order(records: Iterable[SessionRecord]) -> list[SessionRecord]:
    """By login, as `of_user` gives them."""
    return sorted(records, key=lambda each: (each.login_time, each.conn_id))


class MemoryDedup:
    """A Dedup (`gateway.core.ports`)."""

    def __init__(self, *, window: float = WINDOW, most: int = SEEN) -> None:
        """
        Args:
            window: seconds for which a message is remembered.
            most: messages remembered at once; a further one is not let pass.
        """
        self._window = window
        self._most = most
        self._seen: dict[tuple[int, str], float] = {}
        """Deadlines, in order."""

    async def first(self, from_user: int, msg_id: str) -> bool:
        """Enter a message; False when it was entered before."""
        key = from_user, checked_name(msg_id, "message id")
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        while self._seen and next(iter(self._seen.values())) <= now:
            del self._seen[next(iter(self._seen))]
        if key in self._seen:
            return False
        if len(self._seen) >= self._most:
            raise StoreUnavailable("too many messages are remembered")
        self._seen[key] = now + self._window
        return True

    async def forget(self, from_user: int, msg_id: str) -> None:
        """Undo `first`."""
        await trio.lowlevel.checkpoint()
        self._seen.pop((from_user, msg_id), None)

    async def stored(self, from_user: int, msg_id: str, server_seq: int) -> None:
        """Nobody can ask for the number here."""
        await trio.lowlevel.checkpoint()

    def statistics(self) -> dict[str, int]:
        """Sizes of what is kept."""
        return {"seen": len(self._seen)}
