"""What comes before the handshake is complete (0-RTT) and may be a replay: protocol section 4's rules for it.

Without a session bound to the TLS ticket that the client resumed by, everything waits: heartbeats until the handshake
is complete, the rest until login. With one, Heartbeat and Sync are answered, and a Message passes once. Auth is
refused either way. Which ticket belongs to which session is `bindings`' to know.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

from gateway._framing import ChatFrame, DispatchTable, Frame, build_ack
from gateway.core import dispatcher
from gateway.core.bindings import Binding
from gateway.core.link import Lane
from gateway.core.ports import StoreUnavailable
from gateway.core.session import Session
from gateway.protocol.codes import Code
from gateway.protocol.types import AckStatus, MsgType

if TYPE_CHECKING:
    from gateway.core.hub import Hub
    from gateway.core.lanes import LanedConnection

DEDUP_TIMEOUT = 1.0
"""Seconds that asking whether an early Message came before may take; then the client is told to try again."""


def bound_table() -> DispatchTable:
    """Early, by the right of a session."""
    table = _table()
    table.echo(MsgType.HEARTBEAT)
    table.on(MsgType.SYNC, sync)
    table.on(MsgType.MESSAGE, message)
    return table


def unbound_table() -> DispatchTable:
    """Early, by nobody's right."""
    table = _table()
    table.on(MsgType.HEARTBEAT, heartbeat)
    return table


def _table() -> DispatchTable:
    table = DispatchTable(dispatcher.refuse)
    for kind in MsgType:
        if kind not in (MsgType.AUTH, MsgType.HEARTBEAT):
            table.on(kind, postponed)
    table.forbid(MsgType.AUTH, Code.EARLY_DATA_REFUSED)
    return table


def postponed(connection: LanedConnection, frame: Frame) -> None:
    """Until login."""
    connection.hub.metrics.early_held += 1
    connection.postpone(frame)


def heartbeat(connection: LanedConnection, frame: Frame) -> None:
    """Until the handshake is complete: `Early.settle` feeds it again."""
    connection.hub.metrics.early_held += 1
    connection.postpone(frame, until_login=False)


def sync(connection: LanedConnection, frame: Frame) -> bytes | None:
    """Reading is harmless, and only whoever has the session's keys can read the answer."""
    session = connection.provisional
    assert session is not None
    connection.hub.metrics.early_accepted += 1
    return dispatcher.passed_up(connection, frame, dispatcher.SYNC_COST, session)


def message(connection: LanedConnection, frame: ChatFrame) -> None:
    """Whether it came before has to be asked for: the reader task does it."""
    connection.asking = True
    connection.hold(frame)


async def relay(hub: Hub, connection: LanedConnection, frame: ChatFrame) -> None:
    """Publish an early Message once, and acknowledge it however often it comes."""
    session = connection.provisional
    assert session is not None
    if frame.from_user not in (0, session.user_id) or not frame.valid:
        answer = dispatcher.not_relayed(connection, frame, Code.INVALID_PAYLOAD)
    elif await _passes(hub, connection, session, frame):
        now_ms = hub.wall_ms()
        answer = build_ack(frame.seq, now_ms, frame.msg_id, AckStatus.ACCEPTED, 0, 0, now_ms)
    else:
        answer = dispatcher.not_relayed(connection, frame, Code.UPSTREAM_UNAVAILABLE)
    connection.asking = False
    if answer is not None and not connection.closing:
        connection.answer_held(answer)


async def _passes(hub: Hub, connection: LanedConnection, session: Session, frame: ChatFrame) -> bool:
    """Hand it to the bus unless that was done before; False when either cannot be."""
    began = trio.current_time()
    if hub.dedup is None:
        return False
    try:
        with trio.fail_after(DEDUP_TIMEOUT):
            first = await hub.dedup.first(session.user_id, frame.msg_id)
    except (StoreUnavailable, trio.TooSlowError):
        return False
    if not first:
        hub.metrics.early_repeated += 1
        return True
    session.bucket.spend(trio.current_time(), 1.0)
    if hub.uplink is not None:
        passed = await hub.uplink.keep(connection, session, frame)
    else:
        passed = dispatcher.publish(connection, session, frame, hub.wall_ms())
    if not passed:
        await hub.dedup.forget(session.user_id, frame.msg_id)
        return False
    hub.metrics.early_accepted += 1
    hub.metrics.handed_over(trio.current_time() - began, 1)
    return True


class Early:
    """One connection's time before its handshake is complete."""

    __slots__ = ("_confirmed", "_connection", "_late", "heartbeats", "session", "table")

    def __init__(self, connection: LanedConnection, binding: Binding | None) -> None:
        hub = connection.hub
        self._connection = connection
        self._late: list[tuple[int, bytes]] = []
        self._confirmed = False
        self.heartbeats = b""
        """Those that are answered when the handshake is complete."""
        self.session: Session | None = None
        """Whose right early frames have; it never becomes the connection's own session."""
        if binding is not None:
            bucket = hub.registry.bucket(binding.user_id, hub.limits.message_rate, hub.limits.message_burst, hub.now())
            self.session = Session(
                "", binding.user_id, binding.device_id, binding.platform, int(time.time()), binding.expires, bucket
            )
        self.table = hub.early_unbound if self.session is None else hub.early_bound

    def admits(self, lane: int, data: bytes) -> bool:
        """Whether bytes are to be handled now; those behind early ones that still wait are kept for `settle`."""
        if not self._confirmed or not data:
            return True
        self._late.append((lane, data))  # few: the link is paused, so no more is granted
        return False

    def confirm(self) -> None:
        """The handshake is complete."""
        self._confirmed = True
        if not self._connection.holding:
            self.settle()

    def settle(self) -> None:
        """Go over to the ordinary rules, if the handshake is complete; all that came early is handled."""
        if not self._confirmed:
            return
        connection = self._connection
        connection.heard_early()
        if self.heartbeats:
            connection.feed(Lane.CONTROL, self.heartbeats)
        for lane, data in self._late:
            connection.feed(lane, data)
