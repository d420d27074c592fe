"""From an Upstream to something that waits for one of Logic's tasks, or to a refusal at once.

Runs inside the bus's task: synchronous, never raises, never waits. Only `Upstream.user_id` says who is asking.
"""

from __future__ import annotations

import logging
from typing import Generic, TypeVar

import msgspec

from gateway._framing import (
    HEADER,
    AckFrame,
    ChatFrame,
    FrameError,
    SignalFrame,
    Upstream,
    build_ack,
    parse_upstream,
)
from gateway.core.ports import StreamItem
from gateway.logic import statistics
from gateway.logic.backlog import Backlog
from gateway.logic.rerouting import Again, again
from gateway.logic.routing import Origin, Router
from gateway.logic.settings import LogicSettings
from gateway.logic.store import INT64_MAX, Post, Receipt
from gateway.protocol.codes import Code
from gateway.protocol.files import FILE_CONTENT, announcement, offer_problem, parse_reference
from gateway.protocol.messages import (
    ErrorMessage,
    FileAck,
    FileOffer,
    Signal,
    SyncRequest,
    SyncResponse,
    decode,
    packet,
)
from gateway.protocol.types import AckStatus, MsgType

log = logging.getLogger("gateway.logic")

T = TypeVar("T")

KIND_LIMIT = 64
"""Most characters of a Signal's kind."""


class Job(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """Something to be done for a connection; `size` is what it holds in bytes."""

    origin: Origin
    work: T
    size: int
    item: StreamItem | None = None
    """Where it came from, if that was a stream: settled when it is done."""
    offer: FileOffer | None = None
    """The file that the message announces, if it does."""


class Intake:
    """The bus handlers of Logic, and what they have put up to wait."""

    def __init__(self, router: Router, settings: LogicSettings) -> None:
        self._router = router
        self._settings = settings
        self.patient = False
        """With a durable uplink what comes over the bus is a repeat, its first copy is in the stream, and nobody is
        told that it is refused for now. Who hears nothing asks again."""
        self.writes: Backlog[Job[Post | Receipt]] = Backlog(settings.max_waiting, settings.max_waiting_bytes)
        self.syncs: Backlog[Job[SyncRequest]] = Backlog(settings.max_syncs)
        self.signals: Backlog[Job[Signal]] = Backlog(settings.max_signals)
        self.fetches: Backlog[Job[FileAck]] = Backlog(settings.max_syncs)
        self.again: Backlog[Again] = Backlog(settings.max_signals, settings.max_waiting_bytes)
        self.upstreams = statistics.upstreams()
        self.reports = statistics.reports()

    def receive(self, subject: str, payload: bytes) -> None:
        """Handle one Upstream."""
        self.upstreams.came += 1
        try:
            up = parse_upstream(payload)
        except FrameError as error:
            self.upstreams.add("malformed")
            log.warning("malformed_upstream", extra={"subject": subject, "error": str(error)})
            return
        outcome = self._sort(up, len(payload))
        if outcome:
            self.upstreams.add(outcome)

    def take(self, item: StreamItem) -> None:
        """Handle one item of the durable uplink: a Message. Its room is the stream's: it is never turned away here."""
        self.upstreams.came += 1
        outcome = "malformed"
        try:
            up = parse_upstream(item.payload)
            if isinstance(up.frame, ChatFrame):
                outcome = self._sort(up, len(item.payload), item)
        except FrameError as error:
            log.warning("malformed_upstream", extra={"error": str(error)})
        if outcome:
            self.upstreams.add(outcome)
            item.settle()

    def undelivered(self, subject: str, payload: bytes) -> None:
        """Handle one Undelivered: a message is tried once more where its user has logged in since."""
        self.reports.came += 1
        try:
            found = again(payload)
        except FrameError as error:
            self.reports.add("malformed")
            log.warning("malformed_undelivered", extra={"subject": subject, "error": str(error)})
            return
        if found is None:
            self.reports.add("not_asked")
        elif not self.again.offer(found, found.size):
            self.reports.add("full")

    # -- each kind: what has become of it, or "" for what waits now ------------------------------------------

    def _sort(self, up: Upstream, size: int, item: StreamItem | None = None) -> str:
        frame = up.frame
        origin = Origin(up.node_id, up.conn_id, up.user_id, frame.seq)
        if origin.user_id <= 0 or origin.conn_id <= 0:
            return "malformed"
        if isinstance(frame, ChatFrame):
            return self._message(origin, frame, up, size, item)
        if isinstance(frame, AckFrame):
            return self._receipt(origin, frame, size)
        if isinstance(frame, SignalFrame):
            return self._signal(origin, frame)
        if up.msg_type == MsgType.SYNC:
            return self._sync(origin, up)
        if up.msg_type == MsgType.FILE_OFFER:
            return self._offer(origin, up, size)
        if up.msg_type == MsgType.FILE_ACK:
            return self._fetch(origin, up)
        if origin.seq:
            error = ErrorMessage(code=Code.UNKNOWN_TYPE, message=f"nothing here handles type {up.msg_type}")
            self._router.answer_nowait(origin, MsgType.ERROR, packet(error, seq=origin.seq, timestamp=up.received_at))
        return "unknown"

    def _message(self, origin: Origin, frame: ChatFrame, up: Upstream, size: int, item: StreamItem | None) -> str:
        if (
            not frame.valid
            or frame.from_user not in (0, origin.user_id)
            or not _fits(frame.content, self._settings.content_bytes)
        ):
            return self._reject(origin, frame.msg_id, Code.INVALID_PAYLOAD, up.received_at)
        post = Post(
            origin.user_id, frame.msg_id, frame.to_user, frame.group_id, frame.content, frame.content_type,
            min(frame.sent_at or up.received_at, INT64_MAX),
        )  # fmt: skip
        if item is not None:
            self.writes.add(Job(origin, post, size, item), size)
            return ""
        if self.writes.offer(Job(origin, post, size), size):
            return ""
        if self.patient:
            return f"rejected_{Code.UPSTREAM_UNAVAILABLE:d}"
        return self._reject(origin, frame.msg_id, Code.UPSTREAM_UNAVAILABLE, up.received_at)

    def _offer(self, origin: Origin, up: Upstream, size: int) -> str:
        """A node has a file of this user's: it becomes a message under the file's reference."""
        offer = decode(up.frame)
        assert isinstance(offer, FileOffer)
        named = parse_reference(offer.file_id)
        if named is None or named[0] != origin.user_id or offer_problem(offer):
            return self._reject(origin, offer.file_id, Code.INVALID_PAYLOAD, up.received_at)
        post = Post(
            origin.user_id, offer.file_id, offer.to_user, offer.group_id, announcement(offer), FILE_CONTENT,
            min(up.received_at, INT64_MAX),
        )  # fmt: skip
        if self.writes.offer(Job(origin, post, size, offer=offer), size):
            return ""
        return self._reject(origin, offer.file_id, Code.UPSTREAM_UNAVAILABLE, up.received_at)

    def _fetch(self, origin: Origin, up: Upstream) -> str:
        """A node asks whether this user may have a group's file."""
        ask = decode(up.frame)
        assert isinstance(ask, FileAck)
        if self.fetches.offer(Job(origin, ask, 0)):
            return ""
        refusal = FileAck(file_id=ask.file_id, code=Code.UPSTREAM_UNAVAILABLE)
        body = packet(refusal, seq=origin.seq, timestamp=up.received_at)
        self._router.answer_nowait(origin, MsgType.FILE_ACK, body)
        return "fetches_refused"

    def _reject(self, origin: Origin, msg_id: str, code: Code, at: int) -> str:
        msg_id = msg_id if len(msg_id) <= 64 else ""
        ack = build_ack(origin.seq, at, msg_id, AckStatus.REJECTED, code, 0, at)
        self._router.answer_nowait(origin, MsgType.MESSAGE_ACK, ack[HEADER:])
        return f"rejected_{code:d}"

    def _receipt(self, origin: Origin, frame: AckFrame, size: int) -> str:
        status = frame.status
        if not frame.valid or status not in (AckStatus.DELIVERED, AckStatus.READ) or frame.server_seq > INT64_MAX:
            return "dropped_invalid"
        receipt = Receipt(origin.user_id, frame.server_seq, frame.msg_id, AckStatus(status))
        return "" if self.writes.offer(Job(origin, receipt, size), size) else "dropped_full"

    def _signal(self, origin: Origin, frame: SignalFrame) -> str:
        signal = Signal(
            to_user=frame.to_user, from_user=origin.user_id, group_id=frame.group_id, kind=frame.kind, data=frame.data
        )
        if (
            frame.from_user not in (0, origin.user_id)
            or (signal.to_user > 0) == (signal.group_id > 0)
            or min(signal.to_user, signal.group_id) < 0
            or len(signal.kind) > KIND_LIMIT
            or len(signal.data) > self._settings.signal_bytes
        ):
            return "dropped_invalid"
        return "" if self.signals.offer(Job(origin, signal, 0)) else "dropped_full"

    def _sync(self, origin: Origin, up: Upstream) -> str:
        request = decode(up.frame)
        assert isinstance(request, SyncRequest)
        if self.syncs.offer(Job(origin, request, 0)):
            return ""
        refusal = SyncResponse(code=Code.UPSTREAM_UNAVAILABLE, next_cursor=request.cursor)
        body = packet(refusal, seq=origin.seq, timestamp=up.received_at)
        self._router.answer_nowait(origin, MsgType.SYNC_ACK, body)
        return "syncs_refused"


def _fits(text: str, limit: int) -> bool:
    """Whether `text` has at most `limit` bytes in UTF-8; encoded only where its length leaves that open."""
    return len(text) * 4 <= limit or (len(text) <= limit and (text.isascii() or len(text.encode()) <= limit))
