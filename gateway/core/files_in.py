"""One file on its way from a client into the store. Where it comes by (a stream, FileChunks) differs only in `feed`.

The client is held back by what is written, not by what arrives: a stream gets credit, and a sender of chunks is told
`received`, when the bytes are in the store; who sends on regardless is not read.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

import trio

from gateway._framing import HEADER, FrameError, parse_frame
from gateway.core.file_store import FileWriter, StoreBroken, StoreBusy, StoredFile, StoreFull
from gateway.core.link import IncomingStream
from gateway.core.wake import Wake
from gateway.protocol.codes import Code
from gateway.protocol.files import CHUNK, WINDOW, file_key, file_reference
from gateway.protocol.messages import FileAck, FileOffer, decode
from gateway.protocol.types import MsgType

if TYPE_CHECKING:
    from gateway.core.connection import Connection
    from gateway.core.files import Files

log = logging.getLogger("gateway.files")

BLOCK = 262_144
"""Bytes joined into one write to the store."""
MOST_WAITING = 2 * WINDOW
"""Bytes of chunks that wait for the store before their connection is not read any more."""
LONGEST_OFFER = 8_192
"""Bytes of the body of an offer in front of a stream."""
ON_STREAM = -1
"""Instead of a chunk's offset: it goes where the last bytes ended."""


class FileRefused(Exception):
    """This transfer ends with `code`; the message may be shown to the client."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class Interrupted(Exception):
    """The sender is gone. What came stays for another try."""


class Upload:
    """Begun by an offer. `feed`, `end` and `lost` are told by the connection; `run` is its task."""

    def __init__(self, files: Files, connection: Connection, user_id: int, offer: FileOffer, seq: int) -> None:
        self.connection = connection
        self.user_id = user_id
        self.offer = offer
        self.stream: IncomingStream | None = None
        """Where its bytes come from; None: from chunks."""
        self.restart = False
        """Whether it begins with the first byte, whatever is in the store."""
        self.received = 0
        """Bytes in the store."""
        self._files = files
        self._seq = seq
        self._file = StoredFile(
            owner=user_id,
            key=file_key(offer.file_id),
            to_user=offer.to_user,
            group_id=offer.group_id,
            name=offer.name,
            size=offer.size,
            sha256=offer.sha256,
            content_type=offer.content_type,
        )
        self._told = 0
        self._position = 0
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._waiting_bytes = 0
        self._braked = False
        self._opened = False
        self._ended = False
        self._lost = False
        self._wake = Wake()

    # -- told by the connection ----------------------------------------------------------------------------

    def feed(self, offset: int, data: bytes) -> None:
        """Bytes came: of a chunk with its offset, or ON_STREAM."""
        self._waiting.append((offset, data))
        self._waiting_bytes += len(data)
        if offset != ON_STREAM and self._waiting_bytes > MOST_WAITING and not self._braked:
            self._braked = True
            self.connection.brake()
        self._wake.wake()

    def end(self) -> None:
        """The sender says that this was all."""
        self._ended = True
        self._wake.wake()

    def asked_again(self, seq: int) -> None:
        """The same offer once more: how much is there?"""
        self._seq = seq
        if self._opened:
            self._tell(Code.OK)

    def lost(self) -> None:
        """The sender is gone, or gave up."""
        self._lost = True
        self._wake.wake()

    # -- its task ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Receive it to its end. Raises nothing but trio.Cancelled."""
        code, message = Code.INTERNAL_ERROR, "internal error"
        try:
            message = await self._receive()
            code = Code.OK
        except FileRefused as refused:
            code, message = refused.code, str(refused)
        except (Interrupted, trio.Cancelled) as ended:
            self._files.metrics.files_interrupted += 1
            if isinstance(ended, trio.Cancelled):
                raise
            return
        except StoreBusy as busy:
            code, message = Code.TOO_MANY_STREAMS, str(busy)
        except StoreFull as full:
            code, message = Code.NODE_FULL, "there is no room for it"
            log.error("file_store_full", extra={"error": str(full)})
        except StoreBroken as broken:
            code, message = Code.UPSTREAM_UNAVAILABLE, "the file store cannot take it now"
            log.error("file_store_failed", extra={"error": str(broken)})
        except Exception:
            log.exception("file_fault", extra={"conn": self.connection.id})
        finally:
            self._files.left(self)
            self._release()
        self._finish(code, message)

    def _finish(self, code: Code, message: str) -> None:
        if code:
            self._files.metrics.files_refused[code] += 1
        self._tell(code, message)
        if self.stream is not None:
            self.stream.stop(code)

    async def _receive(self) -> str:
        """Returns the reference, when the file is stored and announced."""
        await self._files.check_room(self._file, self)
        found = await self._files.store.write(self._file, restart=self.restart)
        if isinstance(found, StoredFile):
            if found != self._file:
                raise FileRefused(Code.INVALID_PAYLOAD, "this file_id is another file's already")
        else:
            await self._fill_and_close(found)
        self.received = self._file.size
        reference = file_reference(self.user_id, self.offer.file_id)
        if not self._files.announce(self.connection, self.user_id, self.offer, reference, self._seq):
            raise FileRefused(Code.UPSTREAM_UNAVAILABLE, "it is here; offer it again to have it announced")
        if isinstance(found, StoredFile):
            self._files.metrics.files_repeated += 1
        else:
            self._files.metrics.files_received += 1
        return reference

    async def _fill_and_close(self, writer: FileWriter) -> None:
        try:
            self.received = self._position = writer.received
            self._opened = True
            self._tell(Code.OK)
            await self._fill(writer)
            if not await writer.finish():
                raise FileRefused(Code.INVALID_PAYLOAD, "its bytes are not what its sha256 says")
        except FileRefused as refused:
            if refused.code == Code.INVALID_PAYLOAD:
                await writer.discard()
            raise
        finally:
            await writer.close()

    async def _fill(self, writer: FileWriter) -> None:
        size, patience = self._file.size, self._files.settings.patience
        while True:
            while self._waiting:
                await self._write(writer)
            if self.received == size and (self.stream is None or self._ended):
                return
            if self._lost:
                raise Interrupted
            if self._ended:
                raise FileRefused(Code.INVALID_PAYLOAD, "it is shorter than its offer said")
            with trio.move_on_after(patience) as scope:
                await self._wake.wait()
            if scope.cancelled_caught:
                raise FileRefused(Code.HEARTBEAT_TIMEOUT, "nothing more of it came")

    async def _write(self, writer: FileWriter) -> None:
        """Write what waits, up to a block, and let as much more come."""
        parts: list[bytes] = []
        taken = cost = 0
        while self._waiting and taken < BLOCK:
            offset, data = self._waiting.popleft()
            taken += len(data)
            cost += len(data) if offset == ON_STREAM else CHUNK
            parts.append(self._new_of(offset, data))
        await writer.write(parts[0] if len(parts) == 1 else b"".join(parts))
        self._files.metrics.file_bytes_received += writer.received - self.received
        self.received = writer.received
        self._waiting_bytes -= taken
        await self._pace(cost)
        if self.stream is not None:
            self.stream.grant(taken)
            return
        if self._waiting_bytes <= WINDOW:
            self._release()
        if self.received < self._file.size and (not self._waiting or self.received - self._told >= WINDOW // 4):
            self._tell(Code.OK)  # whoever waits for each hears of each; who runs ahead, of some

    async def _pace(self, cost: int) -> None:
        """Over the user's budget: no acknowledgement, no credit, until it is paid."""
        delay = self._files.spend(self.user_id, cost)
        if delay > 0.0:
            with trio.move_on_after(delay):
                while not self._lost:
                    await self._wake.wait()

    def _new_of(self, offset: int, data: bytes) -> bytes:
        """What of these bytes was not there yet."""
        if offset > self._position:
            raise FileRefused(Code.INVALID_PAYLOAD, f"bytes are missing from {self._position}")
        if offset != ON_STREAM:
            data = data[self._position - offset :]
        self._position += len(data)
        if self._position > self._file.size:
            raise FileRefused(Code.INVALID_PAYLOAD, "it is longer than its offer said")
        return data

    def _release(self) -> None:
        if self._braked:
            self._braked = False
            self.connection.release()

    def _tell(self, code: Code, message: str = "") -> None:
        self._told = self.received
        ack = FileAck(file_id=self.offer.file_id, code=code, message=message, received=self.received)
        self._files.tell(self.connection, ack, self._seq)


class FileSink:
    """A StreamSink: cuts the offer off the front of a stream, then feeds the upload that it begins."""

    def __init__(self, files: Files, connection: Connection, stream: IncomingStream) -> None:
        self._files = files
        self._connection = connection
        self._stream = stream
        self._head = b""
        self._upload: Upload | None = None
        self._refused = False

    def feed(self, data: bytes) -> None:
        """Receiver: the next bytes."""
        if self._refused:
            return
        if self._upload is not None:
            self._upload.feed(ON_STREAM, data)
            return
        self._head += data
        try:
            code = self._begin()
        except Exception:
            log.exception("file_fault", extra={"conn": self._connection.id})
            code = Code.INTERNAL_ERROR
        if code:
            self._refused = True
            self._stream.stop(code)

    def _begin(self) -> int:
        """Once the offer is whole; returns why it cannot be."""
        head = self._head
        if len(head) < HEADER:
            return Code.OK
        length, kind = int.from_bytes(head[:4], "big"), int.from_bytes(head[4:HEADER], "big")
        if kind != MsgType.FILE_OFFER or length > LONGEST_OFFER:
            return Code.FRAME_TOO_LARGE if kind == MsgType.FILE_OFFER else Code.OUT_OF_ORDER
        if len(head) < HEADER + length:
            return Code.OK
        try:
            frame = parse_frame(kind, head[HEADER : HEADER + length])
        except FrameError as error:
            return error.code
        offer = decode(frame)
        assert isinstance(offer, FileOffer)
        upload = self._files.begin_stream(self._connection, self._stream, offer, frame.seq)
        if isinstance(upload, Code):
            return upload
        self._upload = upload
        self._stream.grant(HEADER + length)
        rest, self._head = head[HEADER + length :], b""
        if rest:
            upload.feed(ON_STREAM, rest)
        return Code.OK

    def end(self) -> None:
        """Receiver: the client sent all of it."""
        if self._upload is not None:
            self._upload.end()

    def reset(self, code: int) -> None:
        """Receiver: the client gave up."""
        if self._upload is not None:
            self._upload.lost()
