"""Answers to Sync: a page of the user's timeline, then the receipts that their sender may have missed."""

from __future__ import annotations

from collections.abc import Sequence

from gateway._framing import HEADER, build_ack
from gateway.logic.intake import Job
from gateway.logic.pages import sync_packet
from gateway.logic.routing import Origin, Router
from gateway.logic.settings import SYNC_BYTES, LogicSettings
from gateway.logic.store import History, Raised, Store, StoreFailed, Told
from gateway.protocol.codes import Code
from gateway.protocol.messages import SyncRequest, SyncResponse, packet
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
            body = packet(refusal, seq=job.origin.seq, timestamp=now)
            await router.reply(job.origin, MsgType.SYNC_ACK, body)
        return []
    told: list[Told] = []
    for job, page in zip(jobs, pages, strict=True):
        body = sync_packet(page, job.origin.seq, now)
        if await router.reply(job.origin, MsgType.SYNC_ACK, body) and not page.has_more:
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
