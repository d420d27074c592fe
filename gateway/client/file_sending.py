"""Sending a file: hashed, offered, sent on a stream or in chunks, and gone on with over reconnections."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import trio

from gateway.client.backoff import Backoff
from gateway.client.connection import Connection
from gateway.client.errors import FileFailed
from gateway.client.files import Lost, Sending, worth_another_try
from gateway.client.journal import Journal, wall_ms
from gateway.client.messages import SentFile
from gateway.client.transport import LanedTransport, StreamRefused, TransportFailed
from gateway.protocol.codes import Code
from gateway.protocol.files import CHUNK, WINDOW, offer_problem
from gateway.protocol.messages import FileOffer, encode

BLOCK: Final = 65_536
"""Bytes read at a time."""
CHUNK_ENVELOPE: Final = 512
"""Bytes of a FileChunk beside its data, at most."""
RETRY: Final = 0.5
"""Seconds: the bound of the first pause after a refusal that may pass."""
TOLD: Final = 5.0
"""Seconds in which a FileAck explains why a stream was stopped."""


async def describe_file(
    path: Path, file_id: str, *, to_user: int, group_id: int, name: str, content_type: str
) -> FileOffer:
    """The offer of a file, read once for its digest.

    Raises:
        ValueError: an offer that no server takes.
        OSError: the file cannot be read.
    """
    size, digest = await trio.to_thread.run_sync(_digest, path, abandon_on_cancel=True)
    offer = FileOffer(
        file_id=file_id, to_user=to_user, group_id=group_id, name=name, size=size, sha256=digest,
        content_type=content_type,
    )  # fmt: skip
    problem = offer_problem(offer)
    if problem:
        raise ValueError(problem)
    return offer


def _digest(path: Path) -> tuple[int, bytes]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
    return size, digest.digest()


class FileSender:
    """Sends one file, once."""

    def __init__(
        self, journal: Journal, online: Callable[[], Awaitable[Connection]], path: Path, offer: FileOffer
    ) -> None:
        """`online` waits for a connection with a session, and raises what ended the client."""
        self._journal = journal
        self._online = online
        self._path = path
        self._offer = offer
        self._sending = Sending(offer, journal.settings.file_patience)
        self._descriptor = -1

    async def run(self, *, announced: bool) -> SentFile:
        """Until it is stored and, if that is asked for, announced.

        Raises:
            FileFailed: refused, or nothing moved for too long.
            OSError: the file cannot be read.
            ClientClosed, Refused: the client has ended.
        """
        self._descriptor = await trio.to_thread.run_sync(os.open, self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with self._journal.files.sending(self._sending), self._sending.patiently(f"sending {self._offer.name!r}"):
                await self._attempts(announced)
        finally:
            os.close(self._descriptor)
        sending = self._sending
        return SentFile(
            file_id=self._offer.file_id,
            reference=sending.reference,
            size=self._offer.size,
            server_seq=sending.receipt.server_seq if sending.receipt is not None else 0,
        )

    async def _attempts(self, announced: bool) -> None:
        backoff = Backoff(RETRY, self._journal.settings.backoff_cap, self._journal.random)
        while True:
            connection = await self._online()
            self._sending.begin(connection)
            try:
                await self._attempt(connection)
                if not announced or await self._announced():
                    return
            except Lost:
                if connection.online:  # what broke is not known to the connection yet
                    await trio.sleep(backoff.delay())
            except FileFailed as failure:
                if not worth_another_try(failure):
                    raise
                await trio.sleep(backoff.delay())

    async def _attempt(self, connection: Connection) -> None:
        """Offer it, send what the server does not have, and wait until it has it all."""
        sending = self._sending
        connection.control(encode(self._offer, seq=connection.next_seq(), timestamp=wall_ms()))
        await sending.until(lambda: sending.answered)
        if not self._stored:
            lanes = connection.lanes
            if lanes is None:
                await self._send_chunks(connection)
            else:
                await self._send_stream(connection, lanes)
        await sending.until(lambda: self._stored)

    @property
    def _stored(self) -> bool:
        return self._sending.answered and bool(self._sending.reference)

    async def _announced(self) -> bool:
        """Whether the message about it is stored; False when it should be offered once more."""
        sending = self._sending
        with trio.move_on_after(self._journal.settings.resend_after):
            await sending.until(lambda: sending.receipt is not None)
        return sending.receipt is not None

    async def _send_chunks(self, connection: Connection) -> None:
        """Never more than WINDOW ahead of what the server has."""
        sending, size = self._sending, self._offer.size
        most = min(CHUNK, self._journal.max_frame - CHUNK_ENVELOPE)
        offset = sending.received
        while offset < size and not self._stored:
            end = min(size, sending.received + WINDOW)
            if offset >= end:
                await sending.until(partial(self._room_at, offset))
                continue
            block = await self._read(offset, min(BLOCK, end - offset))
            for start in range(0, len(block), most):
                sending.chunks.append((offset + start, block[start : start + most]))
            offset += len(block)
            connection.to_write.ring()
            await sending.until(lambda: True)

    def _room_at(self, offset: int) -> bool:
        return self._sending.received + WINDOW > offset or self._stored

    async def _send_stream(self, connection: Connection, lanes: LanedTransport) -> None:
        finished = False
        try:
            stream = lanes.open_stream()
        except StreamRefused as refused:
            raise FileFailed(str(refused), code=refused.code or Code.TOO_MANY_STREAMS) from None
        except TransportFailed:
            raise Lost from None
        try:
            await stream.send_all(encode(self._offer, seq=connection.next_seq(), timestamp=wall_ms()))
            offset = self._sending.received
            while offset < self._offer.size:
                block = await self._read(offset, min(BLOCK, self._offer.size - offset))
                await stream.send_all(block)
                offset += len(block)
                self._sending.moved()
            await stream.finish()
            finished = True
        except StreamRefused as refused:
            with trio.move_on_after(TOLD):  # why, or that the server has it all, a FileAck says
                await self._sending.until(lambda: self._stored)
                return
            raise FileFailed(str(refused), code=refused.code or Code.TOO_MANY_STREAMS) from None
        except TransportFailed:
            raise Lost from None
        finally:
            if not finished:
                stream.reset(Code.OK)

    async def _read(self, offset: int, count: int) -> bytes:
        block = await trio.to_thread.run_sync(os.pread, self._descriptor, count, offset)
        if len(block) < count:
            raise FileFailed(f"{self._path} has become shorter", code=Code.INVALID_PAYLOAD)
        return block
