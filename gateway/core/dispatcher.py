"""From frame type to what is done: the tables for before and after Auth, and the handlers of the hot types.

Adding a frame kind touches this file and one row of a table here. Handlers are synchronous: they check,
publish, and return the reply.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gateway._framing import (
    AckFrame,
    ChatFrame,
    DispatchTable,
    Frame,
    Relay,
    SignalFrame,
    build_ack,
    build_error,
    build_upstream,
)
from gateway.core.connection import Connection
from gateway.core.limits import ErrorBudget
from gateway.core.session import Session
from gateway.protocol.codes import ANSWERED, Code
from gateway.protocol.types import AckStatus, MsgType

if TYPE_CHECKING:
    from gateway.core.hub import Hub

SYNC_COST = 5.0
"""Messages' worth of rate that one Sync takes: Logic reads up to a hundred messages for it."""
RECEIPT_COST = 0.05
"""Messages' worth of rate that a receipt or a Signal takes: a reader of busy groups owes one per message."""
THROTTLE_TOKENS = 4.0
"""Reading goes on when so many messages may pass: fewer timers than one by one."""
RECEIPTS = (AckStatus.DELIVERED, AckStatus.READ)


def greeting_table() -> DispatchTable:
    """Before Auth: Heartbeat is answered, Auth is held for the reader, all else is out of order."""
    table = DispatchTable(refuse)
    table.echo(MsgType.HEARTBEAT)
    table.on(MsgType.AUTH, auth)
    for kind in MsgType:
        if kind not in (MsgType.HEARTBEAT, MsgType.AUTH):
            table.forbid(kind, Code.OUT_OF_ORDER)
    return table


def seated_table(hub: Hub) -> DispatchTable:
    """After Auth. A Message is checked, published and acknowledged in C; only what it cannot settle comes here. With a
    durable uplink it is that one's."""
    table = DispatchTable(refuse)
    table.echo(MsgType.HEARTBEAT)
    table.forbid(MsgType.AUTH, Code.OUT_OF_ORDER)
    table.on(MsgType.MESSAGE, hub.uplink or Relay(hub.bus, hub.upstream, hub.node_id, not_relayed, overdrawn))
    table.on(MsgType.MESSAGE_ACK, receipt)
    table.on(MsgType.SIGNAL, signal)
    table.on(MsgType.SYNC, sync)
    return table


def datagram_table() -> DispatchTable:
    """What comes by datagram: Heartbeat and Signal, nothing else gets here. What is wrong is counted and forgotten."""
    table = DispatchTable(lost_datagram)
    table.echo(MsgType.HEARTBEAT)
    table.on(MsgType.SIGNAL, datagram_signal)
    return table


def auth(connection: Connection, frame: Frame) -> None:
    """Auth has to wait for the authenticator: the reader task does it."""
    connection.hub.metrics.auth_requests += 1
    connection.hold(frame)


def not_relayed(connection: Connection, frame: ChatFrame, code: int) -> bytes | None:
    """A Message that breaks the rules on its fields (4004), or that the bus did not take (4402)."""
    count_error(connection, code)
    now_ms = connection.wall_ms
    msg_id = frame.msg_id if len(frame.msg_id) <= 64 else ""
    return build_ack(frame.seq, now_ms, msg_id, AckStatus.REJECTED, code, 0, now_ms)


def overdrawn(connection: Connection) -> None:
    """A user is over the rate: what was received still passes, but no more is read for a while."""
    session = connection.session or connection.provisional
    assert session is not None
    connection.throttle(connection.seen, session.bucket.wait(connection.seen, THROTTLE_TOKENS))


def receipt(connection: Connection, frame: AckFrame) -> bytes | None:
    """Delivered or Read, passed upstream; nothing is answered."""
    if not frame.valid or frame.status not in RECEIPTS:
        return refuse(connection, Code.INVALID_PAYLOAD, MsgType.MESSAGE_ACK, frame.seq)
    return passed_up(connection, frame, RECEIPT_COST)


def signal(connection: Connection, frame: SignalFrame) -> bytes | None:
    """Passed upstream or dropped; never answered but when it is wrong."""
    session = connection.session
    assert session is not None
    if frame.from_user not in (0, session.user_id) or (frame.to_user > 0) == (frame.group_id > 0):
        return refuse(connection, Code.INVALID_PAYLOAD, MsgType.SIGNAL, frame.seq)
    if spend(connection, session, RECEIPT_COST) and publish(connection, session, frame, _wall_ms()):
        connection.hub.metrics.passed_up += 1
    else:
        connection.hub.metrics.signals_held_back += 1
        connection.hub.metrics.signals_dropped += 1
    return None


def datagram_signal(connection: Connection, frame: SignalFrame) -> None:
    """As `signal`, but over the rate it is dropped, so it never makes anything wait."""
    session, metrics = connection.session, connection.hub.metrics
    if session is None or frame.from_user not in (0, session.user_id) or (frame.to_user > 0) == (frame.group_id > 0):
        metrics.datagrams_refused += 1
    elif session.bucket.wait(connection.seen, RECEIPT_COST) > 0.0:
        metrics.signals_held_back += 1
        metrics.signals_dropped += 1
    else:
        signal(connection, frame)


def lost_datagram(connection: Connection, code: int, msg_type: int, seq: int) -> None:
    """A datagram that is no valid frame."""
    connection.hub.metrics.datagrams_refused += 1


def sync(connection: Connection, frame: Frame) -> bytes | None:
    """Logic answers it."""
    return passed_up(connection, frame, SYNC_COST)


def passed_up(connection: Connection, frame: Frame, cost: float, session: Session | None = None) -> bytes | None:
    """Spend, publish, and answer only when the bus says no."""
    session = session or connection.session
    assert session is not None
    spend(connection, session, cost)
    if publish(connection, session, frame, _wall_ms()):
        connection.hub.metrics.passed_up += 1
        return None
    return refuse(connection, Code.UPSTREAM_UNAVAILABLE, frame.type, frame.seq)


def publish(connection: Connection, session: Session, frame: Frame, now_ms: int) -> bool:
    """Hand the client's packet to the bus, unchanged, in its envelope."""
    hub = connection.hub
    envelope = build_upstream(
        hub.node_id, connection.id, session.user_id, session.device_id, session.platform, now_ms, frame
    )
    return hub.bus.publish(hub.upstream, envelope)


def spend(connection: Connection, session: Session, cost: float) -> bool:
    """Take from the user's budget. Overdrawn: this frame still passes, but no more is read for a while."""
    if session.bucket.spend(connection.seen, cost):
        return True
    overdrawn(connection)
    return False


def refuse(connection: Connection, code: int, msg_type: int, seq: int) -> bytes | None:
    """What may not pass: answered by Error; all but the codes of ANSWERED close the link."""
    reason = f"{Code(code).label} (type {msg_type})"
    reply = build_error(seq, _wall_ms(), code, reason)
    if code in ANSWERED:
        count_error(connection, code)
    else:
        connection.hub.metrics.refused[code] += 1
        connection.close(code, reason, told=True)
    return reply


def count_error(connection: Connection, code: int) -> None:
    """Count an answered error; the client's own mistakes are bounded a minute, then close the link."""
    hub = connection.hub
    hub.metrics.refused[code] += 1
    if code == Code.UPSTREAM_UNAVAILABLE:
        return
    if connection.errors is None:
        connection.errors = ErrorBudget()
    if not connection.errors.spend(connection.seen, hub.limits.protocol_errors_per_minute):
        connection.close(code, "too many protocol errors")


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
