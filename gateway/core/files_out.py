"""One file on its way from the store to a client that asked for it: on a stream, or as FileChunks that give way."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from gateway.core.file_store import FileReader, StoreBroken, StoredFile
from gateway.core.files_in import FileRefused
from gateway.core.link import LanedLink, LinkClosed, has_lanes
from gateway.protocol.chunks import chunk_frame
from gateway.protocol.codes import Code
from gateway.protocol.files import CHUNK
from gateway.protocol.messages import FileAck, FileChunk, FileOffer, encode

if TYPE_CHECKING:
    from gateway.core.connection import Connection
    from gateway.core.files import Files

log = logging.getLogger("gateway.files")

BLOCK = 16 * CHUNK
"""Bytes read from the store at a time."""
STREAM_PART = 65_536
"""Bytes handed to a stream at a time."""
LOGIC_PATIENCE = 5.0
"""Seconds that Logic has to say whether somebody may fetch a group's file."""
UNKNOWN = "there is no such file for you"
"""The same whether it is not there or not theirs: nobody can find out what others send."""


class Fetch:
    """Begun by a client's FileAck. `answer` is Logic's word, `cancel` the client's; `run` is its task."""

    def __init__(self, files: Files, connection: Connection, user_id: int, ask: FileAck, seq: int) -> None:
        self.connection = connection
        self.user_id = user_id
        self.reference = ask.file_id
        self._files = files
        self._offset = ask.received
        self._seq = seq
        self._scope = trio.CancelScope()
        self._answered = trio.Event()
        self._answer: int = Code.UPSTREAM_UNAVAILABLE

    def answer(self, code: int) -> None:
        """Logic says whether this user may have it."""
        self._answer = code
        self._answered.set()

    def cancel(self) -> None:
        """The client wants no more of it, or is gone."""
        self._scope.cancel()

    async def run(self, owner: int, key: str) -> None:
        """Send it to its end. Raises nothing but trio.Cancelled."""
        metrics = self._files.metrics
        code, message = Code.INTERNAL_ERROR, "internal error"
        try:
            with self._scope:
                await self._send(owner, key)
                code = Code.OK
        except FileRefused as refused:
            code, message = refused.code, str(refused)
        except LinkClosed:
            self._scope.cancel()
        except trio.Cancelled:
            metrics.fetches_interrupted += 1
            raise
        except StoreBroken as broken:
            code, message = Code.UPSTREAM_UNAVAILABLE, "the file store cannot be read now"
            log.error("file_store_failed", extra={"error": str(broken)})
        except Exception:
            log.exception("file_fault", extra={"conn": self.connection.id})
        finally:
            self._files.left(self)
        if code is Code.OK:
            metrics.files_fetched += 1
        elif self._scope.cancel_called:
            metrics.fetches_interrupted += 1
        else:
            metrics.fetches_refused[code] += 1
            self._files.tell(self.connection, FileAck(file_id=self.reference, code=code, message=message), self._seq)

    async def _send(self, owner: int, key: str) -> None:
        reader = await self._files.store.open(owner, key)
        if reader is None:
            raise FileRefused(Code.INVALID_PAYLOAD, UNKNOWN)
        try:
            await self._check(reader.file)
            link = self.connection.link
            if has_lanes(link):
                await self._stream(reader, link)
            else:
                await self._chunks(reader)
        finally:
            await reader.close()

    async def _check(self, file: StoredFile) -> None:
        """Only its sender and whom it was sent to may have it; who is in a group, Logic knows."""
        if self.user_id not in (file.owner, file.to_user):
            if not file.group_id:
                raise FileRefused(Code.INVALID_PAYLOAD, UNKNOWN)
            ask = FileAck(file_id=self.reference, message=str(file.group_id), received=self._offset)
            if self._files.ask_logic(self.connection, self.user_id, ask):
                with trio.move_on_after(LOGIC_PATIENCE):
                    await self._answered.wait()
            if self._answer == Code.UPSTREAM_UNAVAILABLE:
                raise FileRefused(Code.UPSTREAM_UNAVAILABLE, "nobody could say whether you may have it")
            if self._answer:
                raise FileRefused(Code.INVALID_PAYLOAD, UNKNOWN)
        if self._offset > file.size:
            raise FileRefused(Code.INVALID_PAYLOAD, f"it has {file.size} bytes")

    async def _pump(self, reader: FileReader, most: int, send: Callable[[int, bytes], Awaitable[None]]) -> None:
        """Send from where the client wants it to its end, at most so many bytes at a time."""
        offset, size = self._offset, reader.file.size
        while True:
            block = await reader.read(offset, min(BLOCK, size - offset)) if offset < size else b""
            if not block and offset < size:
                raise StoreBroken("the file has become shorter")
            for start in range(0, len(block) or 1, most):
                part = block[start : start + most]
                with self._patience():
                    await send(offset + start, part)
                self._files.metrics.file_bytes_sent += len(part)
                await trio.sleep(self._files.spend(self.user_id, len(part)))
            offset += len(block)
            if offset >= size:
                return

    async def _chunks(self, reader: FileReader) -> None:
        """One at a time, each when nothing else waits for this connection."""
        connection, size = self.connection, reader.file.size

        async def send(offset: int, data: bytes) -> None:
            await connection.wait_quiet()
            chunk = FileChunk(file_id=self.reference, offset=offset, data=data, last=offset + len(data) == size)
            connection.reply(chunk_frame(chunk, seq=self._seq, timestamp=self._files.hub.wall_ms()))

        await self._pump(reader, CHUNK, send)

    async def _stream(self, reader: FileReader, link: LanedLink) -> None:
        file = reader.file
        offer = FileOffer(
            file_id=self.reference, to_user=file.to_user, group_id=file.group_id, name=file.name, size=file.size,
            sha256=file.sha256, content_type=file.content_type,
        )  # fmt: skip
        try:
            stream = link.open_stream()
        except LinkClosed:
            raise FileRefused(Code.TOO_MANY_STREAMS, "you allow no further stream") from None
        done = False
        try:
            with self._patience():
                await stream.send(encode(offer, seq=self._seq, timestamp=self._files.hub.wall_ms()))
            await self._pump(reader, STREAM_PART, lambda _, data: stream.send(data))
            stream.finish()
            done = True
        finally:
            if not done:
                stream.reset(Code.SLOW_CONSUMER)

    @contextmanager
    def _patience(self) -> Iterator[None]:
        """What takes longer than the settings' patience is given up: the client does not read."""
        try:
            with trio.fail_after(self._files.settings.patience):
                yield
        except trio.TooSlowError:
            raise FileRefused(Code.SLOW_CONSUMER, "it is not being read") from None
