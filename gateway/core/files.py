"""Files that clients send and fetch on this node: who may, how many at once, and the frames that it is done with.

The bytes are taken in by `files_in`, sent by `files_out`, and kept by a `file_store`. Frame handlers are synchronous;
what has to wait for the disk is a task of its own, so that a file delays nothing else of its connection.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

import trio

from gateway._framing import DispatchTable, Frame, TokenBucket, build_upstream, parse_frame
from gateway.core import dispatcher
from gateway.core.file_store import FileStore, StoreBroken, StoredFile
from gateway.core.files_in import FileRefused, FileSink, Upload
from gateway.core.files_out import Fetch
from gateway.core.link import IncomingStream, Lane, StreamSink, has_lanes
from gateway.core.settings_files import FileSettings
from gateway.protocol.chunks import read_chunk
from gateway.protocol.codes import Code
from gateway.protocol.files import CHUNK, offer_problem, parse_reference
from gateway.protocol.messages import FileAck, FileOffer, Message, decode, encode, packet, type_of
from gateway.protocol.types import MsgType

if TYPE_CHECKING:
    from gateway.core.connection import Connection
    from gateway.core.hub import Hub

log = logging.getLogger("gateway.files")

OFFER_COST = 5.0
"""Messages' worth of rate that an offer or a fetch takes: each asks the disk, and perhaps Logic."""
LATE_COST = 0.05
"""Messages' worth of rate that a chunk takes which nobody waits for (any more), or the end of a fetch. Other chunks
have a budget of their own, in bytes: who is over it waits for acknowledgement or credit, and their messages pass."""
BUDGETS = 4096
"""Users whose budgets are remembered, so that another file does not refill one."""
SWEEP = 600.0
"""Seconds between two looks for files that are too old."""
REMEMBERED = 16
"""Uploads of a connection that have ended, whose chunks may still be on the way."""

Transfer = Upload | Fetch


class _Desk:
    """What one connection sends and fetches now."""

    __slots__ = ("ended", "fetches", "uploads")

    def __init__(self) -> None:
        self.uploads: dict[str, Upload] = {}
        self.fetches: dict[str, Fetch] = {}
        self.ended: deque[str] = deque(maxlen=REMEMBERED)

    def transfers(self) -> Iterable[Transfer]:
        """All of them."""
        return (*self.uploads.values(), *self.fetches.values())


class Files:
    """All transfers of a node. `run` it beside the connections."""

    def __init__(self, hub: Hub, store: FileStore, settings: FileSettings) -> None:
        self.hub = hub
        self.store = store
        self.settings = settings
        self.metrics = hub.metrics
        self._desks: dict[int, _Desk] = {}
        self._per_user: Counter[int] = Counter()
        self._budgets: dict[int, TokenBucket] = {}
        self._nursery: trio.Nursery | None = None

    def register(self, table: DispatchTable) -> None:
        """Handle the frames of files, after Auth."""
        table.on(MsgType.FILE_OFFER, self._on_offer)
        table.on(MsgType.FILE_CHUNK, self._on_chunk)
        table.on(MsgType.FILE_ACK, self._on_ack)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry transfers, and remove what is too old, until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                while True:
                    await self._sweep()
                    await trio.sleep(SWEEP)
        finally:
            self._nursery = None

    async def _sweep(self) -> None:
        try:
            removed = await self.store.expire(whole=self.settings.keep, partial=self.settings.keep_partial)
        except StoreBroken as broken:
            log.error("file_store_failed", extra={"error": str(broken)})
        except Exception:
            log.exception("file_sweep_failed")
        else:
            self.metrics.files_expired += removed

    @property
    def open(self) -> int:
        """Transfers under way."""
        return self.metrics.files_sending + self.metrics.files_fetching

    def statistics(self) -> dict[str, int]:
        """Sizes of what is kept; all of them return to zero when clients leave."""
        return {"connections": len(self._desks), "users": len(self._per_user), "open": self.open}

    # -- what connections tell -----------------------------------------------------------------------------

    def incoming(self, connection: Connection, stream: IncomingStream) -> StreamSink | None:
        """An ephemeral stream of a client with a session; None when there is no room for one more."""
        session = connection.session
        if session is None or self._room(session.user_id) is not Code.OK:
            return None
        return FileSink(self, connection, stream)

    def gone(self, connection: Connection) -> None:
        """A connection has ended, and with it what it sent and fetched."""
        desk = self._desks.pop(connection.id, None)
        if desk is not None:
            for upload in desk.uploads.values():
                upload.lost()
            for fetch in desk.fetches.values():
                fetch.cancel()

    def answered(self, connection: Connection, frame: Frame) -> bool:
        """Logic's word on a fetch, in a Downstream; False when nobody waits for one."""
        ack = decode(frame)
        assert isinstance(ack, FileAck)
        desk = self._desks.get(connection.id)
        fetch = desk.fetches.get(ack.file_id) if desk is not None else None
        if fetch is None:
            return False
        fetch.answer(ack.code)
        return True

    # -- frames --------------------------------------------------------------------------------------------

    def _on_offer(self, connection: Connection, frame: Frame) -> bytes | None:
        """A file is about to come in chunks; or, where there are streams, how much of it is here already."""
        session = connection.session
        assert session is not None
        if connection.lane == Lane.MESSAGE:
            return dispatcher.refuse(connection, Code.INVALID_PAYLOAD, MsgType.FILE_OFFER, frame.seq)
        offer = decode(frame)
        assert isinstance(offer, FileOffer)
        problem = offer_problem(offer)
        if problem:
            dispatcher.count_error(connection, Code.INVALID_PAYLOAD)
            return self._ack(offer.file_id[:64], Code.INVALID_PAYLOAD, problem, frame.seq)
        self.metrics.file_frames += 1
        dispatcher.spend(connection, session, OFFER_COST)
        running = self._running(connection, offer)
        if running is not None:
            running.asked_again(frame.seq)
            return None
        upload = Upload(self, connection, session.user_id, offer, frame.seq)
        code = self._begin(upload)
        if not code:
            return None
        self._desks.setdefault(connection.id, _Desk()).ended.append(offer.file_id)
        return self._ack(offer.file_id, code, code.label, frame.seq)

    def _on_chunk(self, connection: Connection, frame: Frame) -> bytes | None:
        """Bytes of a file that was offered on this connection."""
        session = connection.session
        assert session is not None
        chunk = read_chunk(frame)
        desk = self._desks.get(connection.id)
        upload = desk.uploads.get(chunk.file_id) if desk is not None else None
        late = desk is not None and chunk.file_id in desk.ended
        if has_lanes(connection.link) or len(chunk.data) > CHUNK or (upload is None and not late):
            return dispatcher.refuse(connection, Code.INVALID_PAYLOAD, MsgType.FILE_CHUNK, frame.seq)
        self.metrics.file_frames += 1
        if upload is None:
            dispatcher.spend(connection, session, LATE_COST)
            return None
        upload.feed(chunk.offset, chunk.data)
        if chunk.last:
            upload.end()
        return None

    def _on_ack(self, connection: Connection, frame: Frame) -> bytes | None:
        """A client wants a file from byte `received`, or with a code, no more of it."""
        session = connection.session
        assert session is not None
        ask = decode(frame)
        assert isinstance(ask, FileAck)
        found = parse_reference(ask.file_id)
        if found is None or connection.lane == Lane.MESSAGE:
            return dispatcher.refuse(connection, Code.INVALID_PAYLOAD, MsgType.FILE_ACK, frame.seq)
        self.metrics.file_frames += 1
        dispatcher.spend(connection, session, LATE_COST if ask.code else OFFER_COST)
        desk = self._desks.get(connection.id)
        running = desk.fetches.get(ask.file_id) if desk is not None else None
        if ask.code:
            if running is not None:
                running.cancel()
            return None
        self.metrics.fetches_asked += 1
        fetch = Fetch(self, connection, session.user_id, ask, frame.seq)
        code = Code.TOO_MANY_STREAMS if running is not None else self._enter(fetch)
        if code is Code.OK:
            assert self._nursery is not None
            self._nursery.start_soon(fetch.run, *found)
            return None
        self.metrics.fetches_refused[code] += 1
        return self._ack(ask.file_id, code, code.label, frame.seq)

    def begin_stream(self, connection: Connection, stream: IncomingStream, offer: FileOffer, seq: int) -> Upload | Code:
        """An offer stands before a stream: its bytes go on where the same offer on the control lane was told to go
        on, else they begin with the first."""
        session = connection.session
        if session is None or connection.closing:
            return Code.GOING_AWAY
        if offer_problem(offer):
            return Code.INVALID_PAYLOAD
        running = self._running(connection, offer)
        if running is not None:
            running.stream = stream
            return running
        if not session.bucket.spend(self.hub.now(), OFFER_COST):
            return Code.RATE_LIMITED
        upload = Upload(self, connection, session.user_id, offer, seq)
        upload.stream, upload.restart = stream, True
        return self._begin(upload) or upload

    def _running(self, connection: Connection, offer: FileOffer) -> Upload | None:
        """The upload that the same offer began on this connection and that has no stream."""
        desk = self._desks.get(connection.id)
        upload = desk.uploads.get(offer.file_id) if desk is not None else None
        return upload if upload is not None and upload.stream is None and upload.offer == offer else None

    def _begin(self, upload: Upload) -> Code:
        self.metrics.files_offered += 1
        code = self._enter(upload)
        if code is Code.OK:
            assert self._nursery is not None
            self._nursery.start_soon(upload.run)
        else:
            self.metrics.files_refused[code] += 1
        return code

    # -- bounds --------------------------------------------------------------------------------------------

    def _room(self, user_id: int) -> Code:
        """Whether this user may begin one more transfer."""
        if self._nursery is None:
            return Code.GOING_AWAY
        if self._per_user.get(user_id, 0) >= self.settings.max_open_per_user:
            return Code.TOO_MANY_STREAMS
        return Code.NODE_FULL if self.open >= self.settings.max_open else Code.OK

    def _enter(self, transfer: Transfer) -> Code:
        code = self._room(transfer.user_id)
        if code is not Code.OK:
            return code
        desk = self._desks.setdefault(transfer.connection.id, _Desk())
        if isinstance(transfer, Fetch):
            desk.fetches[transfer.reference] = transfer
            self.metrics.files_fetching += 1
        elif transfer.offer.file_id in desk.uploads:
            return Code.TOO_MANY_STREAMS
        else:
            desk.uploads[transfer.offer.file_id] = transfer
            self.metrics.files_sending += 1
        self._per_user[transfer.user_id] += 1
        return Code.OK

    def left(self, transfer: Transfer) -> None:
        """A transfer has ended, however it did."""
        self._per_user[transfer.user_id] -= 1
        if not self._per_user[transfer.user_id]:
            del self._per_user[transfer.user_id]
        desk = self._desks.get(transfer.connection.id) or _Desk()
        if isinstance(transfer, Fetch):
            self.metrics.files_fetching -= 1
            desk.fetches.pop(transfer.reference, None)
        else:
            self.metrics.files_sending -= 1
            desk.uploads.pop(transfer.offer.file_id, None)
            desk.ended.append(transfer.offer.file_id)

    def spend(self, user_id: int, count: int) -> float:
        """So many bytes of this user's moved; seconds until more may."""
        now = self.hub.now()
        budget = self._budgets.get(user_id)
        if budget is None:
            rate = float(self.settings.bytes_per_second)
            budget = self._budgets[user_id] = TokenBucket(rate, rate, now)
            if len(self._budgets) > BUDGETS:
                del self._budgets[next(iter(self._budgets))]
        return 0.0 if budget.spend(now, float(count)) else budget.wait(now, 0.0)

    async def check_room(self, file: StoredFile, upload: Upload) -> None:
        """Whether the store may take this file of its owner's.

        Raises:
            FileRefused: it is too large, or the owner's files take too much with it.
            StoreBroken
        """
        settings = self.settings
        if file.size > settings.max_size:
            raise FileRefused(Code.FRAME_TOO_LARGE, f"a file may have {settings.max_size} bytes")
        usage = await self.store.usage(file.owner, but=file.key)
        coming = sum(each.offer.size - each.received for each in self._uploads_of(file.owner) if each is not upload)
        if usage.files >= settings.max_files_per_user:
            raise FileRefused(Code.RATE_LIMITED, f"{settings.max_files_per_user} files of yours are kept already")
        if usage.bytes + coming + file.size > settings.max_bytes_per_user:
            raise FileRefused(Code.RATE_LIMITED, f"your files may take {settings.max_bytes_per_user} bytes together")

    def _uploads_of(self, user_id: int) -> Iterable[Upload]:
        for connection in self.hub.registry.of_user(user_id):
            desk = self._desks.get(connection.id)
            if desk is not None:
                yield from desk.uploads.values()

    # -- what is sent --------------------------------------------------------------------------------------

    def tell(self, connection: Connection, ack: FileAck, seq: int) -> None:
        """Answer a client, unless its connection is ending."""
        if not connection.closing:
            connection.reply(encode(ack, seq=seq, timestamp=self.hub.wall_ms()))

    def _ack(self, file_id: str, code: int, message: str, seq: int) -> bytes:
        ack = FileAck(file_id=file_id, code=code, message=message)
        return encode(ack, seq=seq, timestamp=self.hub.wall_ms())

    def announce(self, connection: Connection, user_id: int, offer: FileOffer, reference: str, seq: int) -> bool:
        """Let Logic tell whom the file is for; False when the bus does not take it."""
        offer = FileOffer(
            file_id=reference, to_user=offer.to_user, group_id=offer.group_id, name=offer.name, size=offer.size,
            sha256=offer.sha256, content_type=offer.content_type,
        )  # fmt: skip
        return self._publish(connection, user_id, offer, seq)

    def ask_logic(self, connection: Connection, user_id: int, ask: FileAck) -> bool:
        """Ask Logic whether this user may fetch a group's file; False when the bus does not take it."""
        return self._publish(connection, user_id, ask, 0)

    def _publish(self, connection: Connection, user_id: int, message: Message, seq: int) -> bool:
        session = connection.session
        assert session is not None
        now_ms = self.hub.wall_ms()
        kind = type_of(message)
        frame = parse_frame(kind, packet(message, seq=seq, timestamp=now_ms))
        envelope = build_upstream(
            self.hub.node_id, connection.id, user_id, session.device_id, session.platform, now_ms, frame
        )
        published = self.hub.bus.publish(self.hub.upstream, envelope)
        self.hub.metrics.upstreams_beside += published
        return published
