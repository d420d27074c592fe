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
    parse_downstream,
    parse_upstream,
)
from gateway.logic.backlog import Backlog
from gateway.logic.routing import Origin, Router
from gateway.logic.settings import LogicSettings
from gateway.logic.store import INT64_MAX, Post, Receipt
from gateway.protocol.codes import Code
from gateway.protocol.envelopes import Undelivered
from gateway.protocol.messages import ErrorMessage, Signal, SyncRequest, SyncResponse, decode, packet
from gateway.protocol.types import AckStatus, Action, MsgType

log = logging.getLogger("gateway.logic")

T = TypeVar("T")

KIND_LIMIT = 64
"""Most characters of a Signal's kind."""


class Job(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """Something to be done for a connection; `size` is what it holds in bytes."""

    origin: Origin
    work: T
    size: int


class Again(msgspec.Struct, frozen=True, gc=False):
    """A delivery came to a node that the user had left: for their connections newer than `conn_id`."""

    user_id: int
    conn_id: int
    packet: bytes
    size: int


class Intake:
    """The bus handlers of Logic, and what they have put up to wait."""

    def __init__(self, router: Router, settings: LogicSettings) -> None:
        self._router = router
        self._settings = settings
        self.writes: Backlog[Job[Post | Receipt]] = Backlog(settings.max_waiting, settings.max_waiting_bytes)
        self.syncs: Backlog[Job[SyncRequest]] = Backlog(settings.max_syncs)
        self.signals: Backlog[Job[Signal]] = Backlog(settings.max_signals)
        self.again: Backlog[Again] = Backlog(settings.max_signals, settings.max_waiting_bytes)
        self.malformed = 0
        """Envelopes that are none, or that no access node may send."""
        self.rejected = 0
        """Messages Rejected without being tried: not valid, or too many wait."""
        self.dropped = 0
        """Receipts and Signals that were not valid or found no room."""

    def receive(self, subject: str, payload: bytes) -> None:
        """Handle one Upstream."""
        try:
            up = parse_upstream(payload)
        except FrameError as error:
            self.malformed += 1
            log.warning("malformed_upstream", extra={"subject": subject, "error": str(error)})
            return
        frame = up.frame
        origin = Origin(up.node_id, up.conn_id, up.user_id, frame.seq)
        if origin.user_id <= 0 or origin.conn_id <= 0:
            self.malformed += 1
        elif isinstance(frame, ChatFrame):
            self._message(origin, frame, up, len(payload))
        elif isinstance(frame, AckFrame):
            self._receipt(origin, frame, len(payload))
        elif isinstance(frame, SignalFrame):
            self._signal(origin, frame)
        elif up.msg_type == MsgType.SYNC:
            self._sync(origin, up)
        elif origin.seq:
            error_ = ErrorMessage(code=Code.UNKNOWN_TYPE, message=f"nothing here handles type {up.msg_type}")
            self._router.answer_nowait(origin, MsgType.ERROR, packet(error_, seq=origin.seq, timestamp=up.received_at))

    def undelivered(self, subject: str, payload: bytes) -> None:
        """Handle one Undelivered: a message is tried once more where its user has logged in since."""
        try:
            down = parse_downstream(Undelivered.decode(payload).downstream)
        except FrameError as error:
            self.malformed += 1
            log.warning("malformed_undelivered", extra={"subject": subject, "error": str(error)})
            return
        if down.action == Action.DELIVER and down.msg_type == MsgType.MESSAGE and down.user_id > 0 and down.conn_ids:
            again = Again(down.user_id, max(down.conn_ids), down.packet, len(payload))
            self.dropped += not self.again.offer(again, again.size)

    def _message(self, origin: Origin, frame: ChatFrame, up: Upstream, size: int) -> None:
        if (
            not frame.valid
            or frame.from_user not in (0, origin.user_id)
            or not _fits(frame.content, self._settings.content_bytes)
        ):
            self._reject(origin, frame, Code.INVALID_PAYLOAD, up.received_at)
            return
        post = Post(
            origin.user_id, frame.msg_id, frame.to_user, frame.group_id, frame.content, frame.content_type,
            min(frame.sent_at or up.received_at, INT64_MAX),
        )  # fmt: skip
        if not self.writes.offer(Job(origin, post, size), size):
            self._reject(origin, frame, Code.UPSTREAM_UNAVAILABLE, up.received_at)

    def _reject(self, origin: Origin, frame: ChatFrame, code: Code, at: int) -> None:
        self.rejected += 1
        msg_id = frame.msg_id if len(frame.msg_id) <= 64 else ""
        ack = build_ack(origin.seq, at, msg_id, AckStatus.REJECTED, code, 0, at)
        self._router.answer_nowait(origin, MsgType.MESSAGE_ACK, ack[HEADER:])

    def _receipt(self, origin: Origin, frame: AckFrame, size: int) -> None:
        status = frame.status
        if not frame.valid or status not in (AckStatus.DELIVERED, AckStatus.READ) or frame.server_seq > INT64_MAX:
            self.dropped += 1
            return
        receipt = Receipt(origin.user_id, frame.server_seq, frame.msg_id, AckStatus(status))
        self.dropped += not self.writes.offer(Job(origin, receipt, size), size)

    def _signal(self, origin: Origin, frame: SignalFrame) -> None:
        signal = Signal(
            to_user=frame.to_user, from_user=origin.user_id, group_id=frame.group_id, kind=frame.kind, data=frame.data
        )
        wrong = (
            frame.from_user not in (0, origin.user_id)
            or (signal.to_user > 0) == (signal.group_id > 0)
            or min(signal.to_user, signal.group_id) < 0
            or len(signal.kind) > KIND_LIMIT
            or len(signal.data) > self._settings.signal_bytes
        )
        self.dropped += wrong or not self.signals.offer(Job(origin, signal, 0))

    def _sync(self, origin: Origin, up: Upstream) -> None:
        request = decode(up.frame)
        assert isinstance(request, SyncRequest)
        if not self.syncs.offer(Job(origin, request, 0)):
            refusal = SyncResponse(code=Code.UPSTREAM_UNAVAILABLE, next_cursor=request.cursor)
            body = packet(refusal, seq=origin.seq, timestamp=up.received_at)
            self._router.answer_nowait(origin, MsgType.SYNC_ACK, body)


def _fits(text: str, limit: int) -> bool:
    """Whether `text` has at most `limit` bytes in UTF-8; encoded only where its length leaves that open."""
    return len(text) * 4 <= limit or (len(text) <= limit and (text.isascii() or len(text.encode()) <= limit))
