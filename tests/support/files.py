"""Files from a client's side: offers, chunks, and what comes back."""

from __future__ import annotations

import hashlib

from gateway.protocol.files import CHUNK
from gateway.protocol.messages import FileAck, FileChunk, FileOffer, Message
from tests.support.peer import Peer


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
