"""The Store on one Redis, which several Logics share. What is done there is in store_redis_scripts.

Every write is one script, so the numbers of a timeline have no hole whoever writes to it. `Stored` is durable as far
as the server makes it so before it answers: `appendonly yes`, `appendfsync always` (docs/logic.md).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import msgspec

from gateway.backends.asyncio_thread import AsyncioThread
from gateway.backends.settings_redis import RedisSettings
from gateway.logic.redis_lanes import PATIENCE, RedisLanes
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
    Write,
)
from gateway.logic.store_redis_pruning import PRUNE, TURN
from gateway.logic.store_redis_scripts import MEMBERS, READ, WRITE
from gateway.protocol.types import AckStatus

T = TypeVar("T")

COST_PER_SCRIPT: Final = 5_000
"""Roughly the timeline entries that one script writes: while it runs, 30 ms at most, the server serves nobody else.
A message to the largest group always fits."""
BYTES_PER_SCRIPT: Final = 1_048_576
"""Contents of messages in one script, but for the first."""
QUERIES_PER_SCRIPT: Final = 16
"""Pages read by one script, which are 2 MB at most."""
GROUPS_PER_SCRIPT: Final = 16
TIMELINES_PER_LOOK: Final = 200
"""Looked at by one script."""
ENTRIES_PER_SCRIPT: Final = 250
"""Forgotten by one script: about 6 ms, in which the server serves nobody else."""
PRUNING_MS: Final = 60_000
"""For how long after a round has begun no other begins."""

_WRITE, _READ, _MEMBERS, _PRUNE = range(4)


class _Message(msgspec.Struct, frozen=True):
    """A message as it is stored. The scripts rely on the order of the first five, and on `status` being a digit."""

    status: int
    sender: int
    msg_id: str
    server_seq: int
    stored_at: int
    to_user: int
    group_id: int
    content_type: int
    sent_at: int
    content: str


class _Rest(msgspec.Struct, frozen=True):
    """What the server need not add to."""

    to_user: int
    group_id: int
    content_type: int
    sent_at: int
    content: str


_read_message: Final = msgspec.json.Decoder(_Message).decode


class RedisStore:
    """A Store (`gateway.logic.store`) on one Redis. Made by `open`; any number of them share what is there."""

    def __init__(self, settings: RedisSettings, thread: AsyncioThread, *, patience: float = PATIENCE) -> None:
        self._lanes = RedisLanes(settings, thread, lanes=4, patience=patience)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: RedisSettings, thread: AsyncioThread, *, patience: float = PATIENCE
    ) -> AsyncIterator[RedisStore]:
        """A store whose connections end with the block. Redis may be away: then what is asked meanwhile fails.

        Args:
            settings: whom to connect to, and the keys' prefix; `timeout` is not for us.
            thread: where redis-py runs; outlives the block.
            patience: seconds that one operation may take.

        Raises:
            ValueError: the prefix is no name, or the URL none of Redis.
        """
        store = cls(settings, thread, patience=patience)
        try:
            yield store
        finally:
            await store._lanes.close()

    async def write(self, writes: Sequence[Write], now_ms: int) -> list[Outcome]:
        """See `Store.write`."""
        packed = msgspec.msgpack.encode(list(_fitting(writes)))
        answers = await self._lanes.ask(_WRITE, WRITE, now_ms, packed, COST_PER_SCRIPT, RECENT)
        return [_outcome(answer) for answer in answers]

    async def read(self, queries: Sequence[History]) -> list[Page]:
        """See `Store.read`."""
        pages: list[Page] = []
        for some in _batches(queries, QUERIES_PER_SCRIPT):
            asked = [(str(each.user_id), min(each.cursor, INT64_MAX), each.limit, each.max_bytes) for each in some]
            answers = await self._lanes.ask(_READ, READ, msgspec.msgpack.encode(asked), OWED_PER_PAGE)
            pages += [_page(query, *answer) for query, answer in zip(some, answers, strict=True)]
        return pages

    async def members(self, group_ids: Sequence[int]) -> dict[int, frozenset[int]]:
        """See `Store.members`."""
        found: dict[int, frozenset[int]] = {}
        for some in _batches(list(dict.fromkeys(group_ids)), GROUPS_PER_SCRIPT):
            answers = await self._lanes.ask(_MEMBERS, MEMBERS, msgspec.msgpack.encode([str(each) for each in some]))
            found |= {group: frozenset(map(int, users)) for group, users in zip(some, answers, strict=True) if users}
        return found

    async def prune(self, retention: Retention, after: str) -> str:
        """See `Store.prune`; `after` is where the last look at the keys ended, and the users it found who are still to
        come. Of several Logics, one makes a round."""
        if not after and not await self._lanes.ask(_PRUNE, TURN, PRUNING_MS):
            return ""
        cursor, *users = after.split(" ") if after else ("0",)
        if not users:
            timeline = f"{self._lanes.prefix}timeline:"
            cursor, found = await self._lanes.scan(_PRUNE, cursor, f"{timeline}*", TIMELINES_PER_LOOK)
            users = [key.removeprefix(timeline) for key in found]
        some = msgspec.msgpack.encode(users[:TIMELINES_PER_LOOK])
        asked = retention.before_ms, retention.keep, ENTRIES_PER_SCRIPT
        done = await self._lanes.ask(_PRUNE, PRUNE, some, *asked) if users else 0
        if cursor == "0" and done == len(users):
            return ""
        return " ".join([cursor, *users[done:]])


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _fitting(writes: Sequence[Write]) -> Iterator[tuple[Any, ...]]:
    """As many as one script may carry, as it takes them."""
    size = 0
    for index, write in enumerate(writes):
        if isinstance(write, Post):
            rest = _Rest(write.to_user, write.group_id, write.content_type, write.sent_at, write.content)
            text = b"," + msgspec.json.encode(rest)[1:]
            size += len(text)
            if size > BYTES_PER_SCRIPT and index:
                return
            # as a text: the server's MessagePack knows no bytes
            yield "post", str(write.sender), write.msg_id, str(write.to_user), str(write.group_id), text.decode()
        elif isinstance(write, Receipt):
            yield "receipt", str(write.user_id), write.server_seq, write.msg_id, write.status.value
        else:
            yield "told", write.key, write.status.value


def _outcome(answer: Sequence[Any]) -> Outcome:
    kind, *told = answer
    if kind == "posted":
        server_seq, stored_at, others = told
        recipients = sorted(zip(map(int, others[::2]), others[1::2], strict=True))
        return Posted(server_seq, stored_at, recipients)
    if kind == "repeated":
        return Posted(told[0], told[1], repeated=True)
    if kind == "not member":
        return NotMember()
    if kind == "raised":
        key, sender, msg_id, server_seq, status = told
        return Raised(key, int(sender), msg_id, server_seq, AckStatus(status))
    return None


def _page(
    query: History, length: int, texts: Sequence[str], more: bool, owed: Sequence[Sequence[Any]], before: int
) -> Page:
    entries: list[Entry] = []
    room = query.max_bytes
    for server_seq, text in enumerate(texts, before + 1):
        try:
            message = _read_message(text)
        except msgspec.DecodeError as error:
            raise StoreFailed(f"a message in Redis cannot be read: {error}") from error
        room -= ENTRY_BYTES + len(message.content.encode())
        if entries and room < 0:
            more = True
            break
        entries.append(
            Entry(
                server_seq, message.msg_id, message.sender, message.to_user, message.group_id,
                message.content, message.content_type, message.sent_at,
            )
        )  # fmt: skip
    next_cursor = entries[-1].server_seq if entries else min(query.cursor, length)
    raised = [Raised(key, query.user_id, msg_id, seq, AckStatus(status)) for key, msg_id, seq, status in owed]
    return Page(entries, next_cursor, more, raised)
