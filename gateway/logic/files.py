"""Files: what a node's offer becomes, and who may fetch a group's file. No byte of a file comes here.

An offer is stored as a message of the timeline (content_type 40), so that whoever is offline finds it by Sync, and is
sent as FileOffer to whoever is connected.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.logic.intake import Job
from gateway.logic.routing import Origin, Router
from gateway.logic.store import Store, StoreFailed
from gateway.protocol.codes import Code
from gateway.protocol.messages import FileAck, packet
from gateway.protocol.types import MsgType

FETCH_BATCH: Final = 256
"""Fetches answered in one go."""


async def permit_fetches(store: Store, router: Router, jobs: Sequence[Job[FileAck]], now: int) -> None:
    """Answer each: 0 for a member of the group that the file was sent to, 4004 for others, 4402 when nobody knows."""
    groups = {job.work: _group(job.work) for job in jobs}
    try:
        members = await store.members(sorted({group for group in groups.values() if group}))
    except StoreFailed:
        members = None
    for job in jobs:
        if members is None:
            code = Code.UPSTREAM_UNAVAILABLE
        elif job.origin.user_id in members.get(groups[job.work], frozenset()):
            code = Code.OK
        else:
            code = Code.INVALID_PAYLOAD
        await router.reply(job.origin, MsgType.FILE_ACK, fetch_answer(job.origin, job.work, code, now))


def fetch_answer(origin: Origin, ask: FileAck, code: int, now: int) -> bytes:
    """The packet that tells the node."""
    answer = FileAck(file_id=ask.file_id, code=code, message=ask.message, received=ask.received)
    return packet(answer, seq=origin.seq, timestamp=now)


def _group(ask: FileAck) -> int:
    """The group that the node says the file was sent to."""
    text = ask.message
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0
