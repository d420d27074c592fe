"""Files on their way, to and from the server: what the connection tells them, and what it asks of them.

No disk and no waiting for one here: `file_sending` and `file_fetching` do that, a file at a time, over reconnections.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

from gateway._framing import HEADER, FrameError, parse_frame
from gateway.client.bell import Bell
from gateway.client.errors import FileFailed, describe
from gateway.client.messages import Delivery, OfferedFile, Receipt
from gateway.client.transport import IncomingStream
from gateway.protocol.chunks import chunk_frame
from gateway.protocol.codes import Code, Reconnect, reconnect_after
from gateway.protocol.files import FILE_CONTENT, offer_problem, parse_announcement, parse_reference
from gateway.protocol.messages import FileAck, FileChunk, FileOffer, decode
from gateway.protocol.types import AckStatus, MsgType

if TYPE_CHECKING:
    from gateway.client.connection import Connection

MOST_WAITING: Final = 4_194_304
"""Bytes of a fetched file that wait for the disk; with more by chunks the server is asked to stop, and asked again."""
LONGEST_OFFER: Final = 8_192


class Lost(Exception):
    """The connection, or this transfer on it, is over; the next one goes on."""


class Transfer:
    """One file under way. Whoever drives it waits in `until`; everybody else rings."""

    def __init__(self, patience: float) -> None:
        self.connection: Connection | None = None
        """The connection of this attempt."""
        self._patience = patience
        self._bell = Bell()
        self._error: FileFailed | None = None
        self._scope = trio.CancelScope()

    @contextmanager
    def patiently(self, what: str) -> Iterator[None]:
        """Give up the block when nothing moves for too long; reconnections included.

        Raises:
            FileFailed
        """
        self.moved()
        with self._scope:
            yield
        if self._scope.cancelled_caught:
            raise FileFailed(f"{what}: nothing moved for {self._patience:g} s")

    def moved(self) -> None:
        """Some more of it is done."""
        self._scope.deadline = trio.current_time() + self._patience
        self._bell.ring()

    def ring(self) -> None:
        """Something that the driver may wait for has changed."""
        self._bell.ring()

    def begin(self, connection: Connection) -> None:
        """A new attempt."""
        self.connection = connection
        self._error = None

    def failed(self, code: int, reason: str) -> None:
        """The server will not have it so."""
        self._error = FileFailed(describe(code, reason), code=code, reason=reason)
        self._bell.ring()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for it.

        Raises:
            Lost: the connection has ended.
            FileFailed: the server refused.
        """
        await trio.lowlevel.checkpoint()
        while not condition():
            if self._error is not None:
                raise self._error
            if self.connection is None or not self.connection.online:
                raise Lost
            await self._bell.wait()


class Sending(Transfer):
    """A file of ours."""

    def __init__(self, offer: FileOffer, patience: float) -> None:
        super().__init__(patience)
        self.offer = offer
        self.answered = False
        """Whether the server has said, on this connection, how much of it is there."""
        self.received = 0
        self.reference = ""
        """Its name for others, once it is stored."""
        self.receipt: Receipt | None = None
        """That it was announced."""
        self.chunks: deque[tuple[int, bytes]] = deque()

    def begin(self, connection: Connection) -> None:
        super().begin(connection)
        self.answered = False
        self.chunks.clear()

    def acknowledged(self, ack: FileAck) -> None:
        """The server says how far it is."""
        if ack.code:
            self.failed(ack.code, ack.message)
            return
        self.answered, self.received = True, ack.received
        if ack.message:
            self.reference = ack.message
        self.moved()

    def next_chunk(self) -> FileChunk | None:
        """The next one to write."""
        if not self.chunks:
            return None
        offset, data = self.chunks.popleft()
        return FileChunk(
            file_id=self.offer.file_id, offset=offset, data=data, last=offset + len(data) == self.offer.size
        )


class Fetching(Transfer):
    """A file for us."""

    def __init__(self, file: OfferedFile, patience: float) -> None:
        super().__init__(patience)
        self.file = file
        self.position = 0
        """The byte that is to come next."""
        self.ended = False
        self.overflowed = False
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0

    def begin_at(self, connection: Connection, position: int) -> None:
        """A new attempt, from this byte."""
        self.begin(connection)
        self.position = position
        self.ended = self.overflowed = False
        self._waiting, self._waiting_bytes = [], 0

    def chunk(self, chunk: FileChunk) -> None:
        """Bytes came in a frame; those that were not asked for are ignored."""
        if chunk.offset != self.position or self.overflowed:
            return
        if self._waiting_bytes > MOST_WAITING:
            self.overflowed = True
        else:
            self._came(chunk.data)
            self.ended = chunk.last
        self.ring()

    def _came(self, data: bytes) -> None:
        self.position += len(data)
        self._waiting.append(data)
        self._waiting_bytes += len(data)

    async def stream(self, first: bytes, stream: IncomingStream) -> None:
        """Bytes come on a stream, as fast as they are taken."""
        try:
            data = first
            while True:
                self._came(data)
                self.ring()
                await self.until(lambda: self._waiting_bytes < MOST_WAITING)
                data = await stream.receive_some()
                if not data:
                    self.ended = True
                    return
        finally:
            if not self.ended:
                self.overflowed = True  # this attempt is over
            self.ring()

    def take(self) -> bytes:
        """What waits to be written."""
        data = b"".join(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        self.ring()
        return data

    @property
    def has_news(self) -> bool:
        """Whether there is something to write, or nothing more will come."""
        return bool(self._waiting) or self.ended or self.overflowed


class Files:
    """All transfers of a client. The connection of the moment tells them what comes, and asks them for chunks."""

    def __init__(self) -> None:
        self._sending: dict[str, Sending] = {}
        self._fetching: dict[str, Fetching] = {}

    @contextmanager
    def sending(self, each: Sending) -> Iterator[None]:
        """Known for as long as the block runs. ValueError: this file_id is under way already."""
        file_id = each.offer.file_id
        if file_id in self._sending:
            raise ValueError(f"file {file_id} is under way already")
        self._sending[file_id] = each
        try:
            yield
        finally:
            del self._sending[file_id]

    @contextmanager
    def fetching(self, each: Fetching) -> Iterator[None]:
        """Known for as long as the block runs. ValueError: this file is being fetched already."""
        reference = each.file.reference
        if reference in self._fetching:
            raise ValueError(f"file {reference} is being fetched already")
        self._fetching[reference] = each
        try:
            yield
        finally:
            del self._fetching[reference]

    def ring(self) -> None:
        """The state of the connection has changed."""
        for each in (*self._sending.values(), *self._fetching.values()):
            each.ring()

    def acknowledged(self, ack: FileAck) -> None:
        """A FileAck: of ours, by our own name; of others', by its reference, and then it is a refusal."""
        sending, fetching = self._sending.get(ack.file_id), self._fetching.get(ack.file_id)
        if sending is not None:
            sending.acknowledged(ack)
        elif fetching is not None and ack.code:
            fetching.failed(ack.code, ack.message)

    def receipt(self, receipt: Receipt) -> None:
        """A MessageAck: perhaps of the message that announces a file."""
        for each in self._sending.values():
            if each.reference == receipt.msg_id:
                if receipt.status is AckStatus.REJECTED:
                    each.failed(receipt.code, receipt.reason)
                elif receipt.status >= AckStatus.STORED:
                    each.receipt = receipt
                    each.moved()

    def chunk(self, connection: Connection, chunk: FileChunk) -> None:
        """A FileChunk."""
        fetching = self._fetching.get(chunk.file_id)
        if fetching is not None and fetching.connection is connection:
            fetching.chunk(chunk)

    def next_frame(self, connection: Connection, seq: int, now_ms: int) -> bytes | None:
        """One chunk, when nothing else is to be written."""
        for each in self._sending.values():
            if each.connection is connection:
                chunk = each.next_chunk()
                if chunk is not None:
                    return chunk_frame(chunk, seq=seq, timestamp=now_ms)
        return None

    async def take_stream(self, stream: IncomingStream) -> None:
        """An ephemeral stream of the server: an offer, and the bytes of a file that somebody waits for."""
        head = b""
        while len(head) < HEADER or len(head) < HEADER + int.from_bytes(head[:4], "big"):
            data = await stream.receive_some()
            if not data or len(head) > LONGEST_OFFER:
                return
            head += data
        end = HEADER + int.from_bytes(head[:4], "big")
        if int.from_bytes(head[4:HEADER], "big") != MsgType.FILE_OFFER:
            return
        try:
            offer = decode(parse_frame(MsgType.FILE_OFFER, head[HEADER:end]))
        except FrameError:
            return
        assert isinstance(offer, FileOffer)
        fetching = self._fetching.get(offer.file_id)
        if fetching is not None:
            try:
                await fetching.stream(head[end:], stream)
            except (Lost, FileFailed):
                return


def offered(offer: FileOffer) -> OfferedFile | None:
    """What a FileOffer of the server says; None when it is not one."""
    named = parse_reference(offer.file_id)
    if named is None or offer_problem(offer):
        return None
    return OfferedFile(
        reference=offer.file_id,
        from_user=named[0],
        to_user=offer.to_user,
        group_id=offer.group_id,
        name=offer.name,
        size=offer.size,
        sha256=offer.sha256,
        content_type=offer.content_type,
    )


def file_of(delivery: Delivery) -> OfferedFile | None:
    """The file that a delivery announces; None when it is an ordinary one, or not what its sender claims."""
    if delivery.content_type != FILE_CONTENT:
        return None
    said = parse_announcement(delivery.content)
    named = parse_reference(said.file_id) if said is not None else None
    if said is None or named is None or named[0] != delivery.from_user:
        return None
    return OfferedFile(
        reference=said.file_id,
        from_user=delivery.from_user,
        to_user=delivery.to_user,
        group_id=delivery.group_id,
        name=said.name,
        size=said.size,
        sha256=bytes.fromhex(said.sha256),
        content_type=said.content_type,
    )


def worth_another_try(failure: FileFailed) -> bool:
    """Whether the same may succeed soon. The user's own quota is not soon."""
    return reconnect_after(failure.code) is Reconnect.WITH_BACKOFF and failure.code not in (0, Code.RATE_LIMITED)
