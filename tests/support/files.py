"""Files from a client's side: offers, chunks, and what comes back; and a Hub that takes them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gateway.backends.memory_files import MemoryFileStore
from gateway.core.books import books
from gateway.core.settings import LimitSettings
from gateway.core.settings_files import FileSettings
from gateway.protocol.files import CHUNK, file_reference
from gateway.protocol.messages import FileAck, FileChunk, FileOffer, Message, decode
from gateway.protocol.types import MsgType
from tests.support.peer import Peer
from tests.support.world import World, open_world

CONTENT = random.Random(7).randbytes(100_000)
REFERENCE = file_reference(1001, "f-1")
PATIENT = LimitSettings(message_rate=1e6, message_burst=10**6, protocol_errors_per_minute=10_000)


def offer_of(content: bytes, file_id: str = "f-1", *, to_user: int = 1002, **fields: object) -> FileOffer:
    """A valid offer; `fields` says what is different about it."""
    values: dict[str, object] = {
        "file_id": file_id,
        "to_user": to_user,
        "name": "a.bin",
        "size": len(content),
        "sha256": hashlib.sha256(content).digest(),
        "content_type": "application/octet-stream",
    } | fields
    return FileOffer(**values)  # type: ignore[arg-type]


def chunks_of(content: bytes, file_id: str = "f-1", *, start: int = 0, size: int = CHUNK) -> list[FileChunk]:
    """The chunks from `start`."""
    return [
        FileChunk(
            file_id=file_id, offset=offset, data=content[offset : offset + size], last=offset + size >= len(content)
        )
        for offset in range(start, len(content), size)
    ]


async def ack_of(peer: Peer, *, code: int | None = None, received: int | None = None) -> FileAck:
    """The next FileAck; with `code` or `received`, the next one that says so."""
    while True:
        ack = await peer.receive(FileAck)
        if (code is None or ack.code == code) and (received is None or ack.received == received):
            return ack
        assert ack.code == 0, ack


async def send_file(peer: Peer, content: bytes, offer: FileOffer | None = None) -> FileAck:
    """Offer a file and send its chunks without waiting; returns the last FileAck."""
    offer = offer or offer_of(content)
    await peer.send(offer)
    for chunk in chunks_of(content, offer.file_id):
        await peer.send(chunk)
    return await ack_of(peer, received=len(content))


async def fetch_file(peer: Peer, reference: str, start: int = 0) -> bytes:
    """Ask for a file; returns its bytes, which must come in order."""
    await peer.send(FileAck(file_id=reference, received=start))
    content = b""
    while True:
        chunk = await peer.receive(FileChunk)
        assert (chunk.file_id, chunk.offset) == (reference, start + len(content))
        assert len(chunk.data) <= CHUNK
        content += chunk.data
        if chunk.last:
            return content


def only(messages: list[Message], kind: type[Message]) -> list[Message]:
    """Those of one kind."""
    return [each for each in messages if isinstance(each, kind)]


@asynccontextmanager
async def open_files(
    settings: FileSettings | None = None, store: MemoryFileStore | None = None, **fields: Any
) -> AsyncIterator[World]:
    """A Hub with a store of files; at the end nothing is left under way, and the books are closed."""
    fields.setdefault("limits", PATIENT)
    async with open_world(file_store=store or MemoryFileStore(), files=settings or FileSettings(), **fields) as world:
        yield world
        files = world.hub.files
        assert files is not None
        for account in books(world.hub):
            assert account.balanced, account
    assert files.statistics() == {"connections": 0, "users": 0, "open": 0}
    for account in books(world.hub):
        assert account.balanced, account


async def upstream_of(world: World, kind: MsgType) -> list[Any]:
    """What went to Logic."""
    await world.hub.bus.drain()
    return [decode(up.frame) for up in world.upstream if up.msg_type == kind]
