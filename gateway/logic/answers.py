"""Answers to Sync: a page of the user's timeline, then the receipts that their sender may have missed."""

from __future__ import annotations

from collections.abc import Sequence

from gateway._framing import HEADER, build_ack
from gateway.logic.intake import Job
from gateway.logic.routing import Origin, Router
from gateway.logic.settings import SYNC_BYTES, LogicSettings
from gateway.logic.store import Entry, History, Page, Raised, Store, StoreFailed, Told
from gateway.protocol.codes import Code
from gateway.protocol.messages import ChatMessage, SyncRequest, SyncResponse, packet
from gateway.protocol.types import MsgType

DEFAULT_LIMIT = 100
"""What `limit` 0 means: the same as not giving it."""


async def answer_syncs(
    store: Store, router: Router, settings: LogicSettings, jobs: Sequence[Job[SyncRequest]], now: int
) -> list[Told]:
    """Read for all and answer each; 4402 in the answer when the store cannot be read.

    Returns:
        The receipts that were told on the way.
    """
    queries = [
        History(
            job.origin.user_id, job.work.cursor, min(job.work.limit or DEFAULT_LIMIT, settings.sync_limit), SYNC_BYTES
        )
        for job in jobs
    ]
    try:
        pages = await store.read(queries)
    except StoreFailed:
        for job in jobs:
            refusal = SyncResponse(code=Code.UPSTREAM_UNAVAILABLE, next_cursor=job.work.cursor)
            await _reply(router, job.origin, refusal, now)
        return []
    told: list[Told] = []
    for job, page in zip(jobs, pages, strict=True):
        if await _reply(router, job.origin, _response(page), now) and not page.has_more:
            told += await _tell(router, job.origin, page.owed, now)
    return told


async def _tell(router: Router, origin: Origin, owed: Sequence[Raised], now: int) -> list[Told]:
    """After the last page: how far the user's own messages have come since somebody could be told."""
    told = []
    for each in owed:
        frame = build_ack(0, now, each.msg_id, each.status, 0, each.server_seq, now)
        if await router.reply(origin, MsgType.MESSAGE_ACK, frame[HEADER:]):
            told.append(Told(each.key, each.status))
    return told


async def _reply(router: Router, origin: Origin, response: SyncResponse, now: int) -> bool:
    return await router.reply(origin, MsgType.SYNC_ACK, packet(response, seq=origin.seq, timestamp=now))


def _response(page: Page) -> SyncResponse:
    return SyncResponse(
        messages=tuple(_message(entry) for entry in page.entries),
        next_cursor=page.next_cursor,
        has_more=page.has_more,
    )


def _message(entry: Entry) -> ChatMessage:
    return ChatMessage(
        msg_id=entry.msg_id,
        from_user=entry.sender,
        to_user=entry.to_user,
        content=entry.content,
        content_type=entry.content_type,
        timestamp=entry.sent_at,
        group_id=entry.group_id,
        server_seq=entry.server_seq,
    )
