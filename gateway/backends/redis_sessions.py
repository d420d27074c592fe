"""Sessions and seen messages in Redis (protocol section 6), on the servers of the location store while that one runs.

Each key is written by one script on that key; a session and its place in its user's set are two keys, which a cluster
may have on two servers, so each may be there without the other for a while: readers go by the session's own key.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import msgspec

from gateway.backends.memory_sessions import WINDOW, in_order
from gateway.backends.redis_scripts import DROP, ENROL, FIRST, KEEP, LEAVE, LIST, READ
from gateway.backends.redis_servers import RedisServers
from gateway.backends.redis_shard import MESSAGES, SESSIONS, Answer, Job
from gateway.core.ports import SessionRecord, StoreUnavailable
from gateway.protocol.ids import checked_name

log = logging.getLogger("gateway.redis")

LIFETIME: Final = 120.0
"""Seconds that a session lasts unless it is put again: as long as its location."""

_read: Final = msgspec.json.Decoder(SessionRecord).decode


class RedisSessionStore:
    """A SessionStore (`gateway.core.ports`)."""

    def __init__(self, servers: RedisServers, *, lifetime: float = LIFETIME) -> None:
        """
        Args:
            servers: run by the location store that they belong to.
            lifetime: seconds that a record lasts unless it is put again.
        """
        self._servers = servers
        self._keys = servers.keys
        self._lifetime_ms = int(lifetime * 1000)

    async def put(self, records: Sequence[SessionRecord]) -> None:
        """Write each as it is now, and extend its life.

        Raises:
            ValueError: an id is none.
            StoreUnavailable: not all of them were written.
        """
        until, lifetime = self._servers.deadline(), self._lifetime_ms
        jobs = []
        for each in records:
            key, of_user = self._keys.session(each.session_id), self._keys.user_sessions(each.user_id)
            jobs.append(Job(KEEP, key, until, lifetime, (msgspec.json.encode(each),)))
            jobs.append(Job(ENROL, of_user, until, lifetime, (each.session_id,)))
        await self._do(jobs, until)

    async def remove(self, records: Sequence[SessionRecord]) -> None:
        """Forget them.

        Raises:
            ValueError: an id is none.
            StoreUnavailable: not all of them were forgotten; what is left runs out.
        """
        until = self._servers.deadline()
        jobs = []
        for each in records:
            jobs.append(Job(DROP, self._keys.session(each.session_id), until))
            jobs.append(Job(LEAVE, self._keys.user_sessions(each.user_id), until, 0, (each.session_id,)))
        await self._do(jobs, until)

    async def find(self, session_id: str) -> SessionRecord | None:
        """One session; None when there is none of that id.

        Raises:
            ValueError: the id is none.
            StoreUnavailable: it cannot be asked for.
        """
        (found,) = await self._find([session_id])
        return found

    async def of_user(self, user_id: int) -> list[SessionRecord]:
        """All sessions of a user, the oldest login first.

        Raises:
            ValueError: it is no user id.
            StoreUnavailable: they cannot be asked for.
        """
        until, key = self._servers.deadline(), self._keys.user_sessions(user_id)
        ((_, *told),) = await self._do([Job(LIST, key, until)], until)
        ids = [each.decode(errors="replace") for each in told]
        found = await self._find(ids)
        gone = [each for each, record in zip(ids, found, strict=True) if record is None]
        if gone:  # a killed node's, which have run out
            await self._do([Job(LEAVE, key, until, 0, (each,)) for each in gone], until)
        return in_order(each for each in found if each is not None and each.user_id == user_id)

    async def _find(self, ids: Sequence[str]) -> list[SessionRecord | None]:
        until = self._servers.deadline()
        answers = await self._do([Job(READ, self._keys.session(each), until) for each in ids], until)
        return [_record(values[0]) if values else None for _, *values in answers]

    async def _do(self, jobs: Sequence[Job], until: float) -> list[Answer]:
        answers = await self._servers.ask(SESSIONS, jobs, until)
        failed = [answer for answer in answers if answer[0] in (b"error", b"away")]
        if failed:
            raise StoreUnavailable(f"Redis did not do it: {failed[0][-1].decode(errors='replace')}")
        return answers


class RedisDedup:
    """A Dedup (`gateway.core.ports`), shared by all nodes."""

    def __init__(self, servers: RedisServers, *, window: float = WINDOW) -> None:
        """
        Args:
            servers: run by the location store that they belong to.
            window: seconds for which a message is remembered.
        """
        self._servers = servers
        self._window_ms = int(window * 1000)

    async def first(self, from_user: int, msg_id: str) -> bool:
        """Enter a message; False when it was entered before. It lasts five minutes; how many fit is Redis' to say.

        Raises:
            ValueError: an id is none.
            StoreUnavailable: it cannot be asked, or has no room.
        """
        key, until = self._key(from_user, msg_id), self._servers.deadline()
        (answer,) = await self._servers.ask(MESSAGES, [Job(FIRST, key, until, self._window_ms)], until)
        if answer[0] not in (b"first", b"seen"):
            raise StoreUnavailable(f"Redis did not do it: {answer[-1].decode(errors='replace')}")
        return bool(answer[0] == b"first")

    async def forget(self, from_user: int, msg_id: str) -> None:
        """Undo `first`; what cannot be undone runs out."""
        until = self._servers.deadline()
        await self._try(Job(DROP, self._key(from_user, msg_id), until))

    async def stored(self, from_user: int, msg_id: str, server_seq: int) -> None:
        """Note under which number the message was stored."""
        until = self._servers.deadline()
        await self._try(Job(KEEP, self._key(from_user, msg_id), until, self._window_ms, (server_seq,)))

    def _key(self, from_user: int, msg_id: str) -> bytes:
        return self._servers.keys.seen(from_user, checked_name(msg_id, "message id"))

    async def _try(self, job: Job) -> None:
        try:
            await self._servers.ask(MESSAGES, [job], job.until)
        except StoreUnavailable as error:
            log.warning("dedup_not_written", extra={"reason": str(error)})


def _record(value: bytes) -> SessionRecord | None:
    try:
        return _read(value)
    except msgspec.DecodeError:
        return None  # nobody of ours wrote it
