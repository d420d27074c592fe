"""From a Downstream to the outboxes of the connections it means. Encoded once, shared by all of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway._framing import (
    Downstream,
    FrameError,
    SharedFrame,
    SignalFrame,
    build_downstream,
    encode_frame,
    parse_downstream,
)
from gateway.core.outbox import Item, SignalKey, Verdict
from gateway.core.ports import Location
from gateway.protocol.codes import Code
from gateway.protocol.envelopes import Undelivered
from gateway.protocol.types import Action, MsgType

if TYPE_CHECKING:
    from gateway.core.connection import Connection
    from gateway.core.hub import Hub

log = logging.getLogger("gateway.delivery")


class Delivery:
    """The bus handler of a node's own subject and of the broadcast subject."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def receive(self, subject: str, payload: bytes) -> None:
        """Handle one Downstream; one that is not valid is logged, counted and dropped."""
        metrics = self._hub.metrics
        metrics.downstreams += 1
        try:
            down = parse_downstream(payload)
        except FrameError as error:
            metrics.malformed_downstream += 1
            log.warning("malformed_downstream", extra={"subject": subject, "error": str(error)})
            return
        if down.expires_at and down.expires_at < self._hub.wall_ms():
            metrics.expired += 1
        elif down.action == Action.KICK:
            metrics.kicks += 1
            self._kick(down)
        elif self._deliver(down):
            metrics.delivered += 1
        elif down.user_id or down.conn_ids:
            self._undelivered(down, payload)
        else:
            metrics.unheard += 1

    def push(self, targets: Sequence[Connection], item: Item, key: SignalKey | None = None) -> int:
        """Give one frame to each of these connections and count what became of it; how many queued it."""
        queued = conflated = dropped = overflowed = 0
        for connection in targets:
            verdict = connection.push(item, key)
            if verdict is Verdict.QUEUED:
                queued += 1
            elif verdict is Verdict.CONFLATED:
                conflated += 1
            elif verdict is Verdict.DROPPED:
                dropped += 1
            else:
                overflowed += 1
        metrics = self._hub.metrics
        metrics.copies += len(targets)
        metrics.copies_queued += queued
        metrics.signals_conflated += conflated
        metrics.copies_dropped += dropped
        metrics.copies_overflowed += overflowed
        if key is not None:
            metrics.signals_dropped += dropped
        return queued

    def displace(self, location: Location, code: Code) -> None:
        """Close the connection behind an entry that a login displaced, wherever it is."""
        if location.access_node == self._hub.node_id:
            connection = self._hub.registry.connection(location.conn_id)
            if connection is not None:
                connection.close(code, code.label)
            return
        kick = build_downstream(location.user_id, (location.conn_id,), "", "", 0, Action.KICK, code, 0, b"", 0)
        published = self._hub.bus.publish(self._hub.subjects.downstream(location.access_node), kick)
        self._hub.metrics.kicks_sent += published
        if not published:
            self._hub.metrics.kicks_refused += 1
            log.warning("kick_not_sent", extra={"node": location.access_node, "conn": location.conn_id})

    def _kick(self, down: Downstream) -> None:
        code = down.code or Code.KICKED_BY_ADMIN
        reason = Code(code).label if code in Code.__members__.values() else "kicked"
        registry = self._hub.registry
        if down.conn_ids:
            # a login under way has no session yet, but can be displaced already
            targets = [each for each in map(registry.connection, down.conn_ids) if each is not None]
        else:
            targets = list(registry.targets(down))
        for connection in targets:
            connection.close(code, reason)

    def _deliver(self, down: Downstream) -> bool:
        """Push to every target; False when there is none."""
        hub = self._hub
        frame = down.frame
        encoded = encode_frame(down.msg_type, down.packet)
        item: Item = encoded if frame.seq else SharedFrame(encoded)
        key: SignalKey | None = (frame.from_user, frame.kind) if isinstance(frame, SignalFrame) else None
        targets = hub.registry.targets(down)
        heard = bool(targets)
        if down.msg_type == MsgType.FILE_ACK and hub.files is not None:
            targets = [each for each in targets if not hub.files.answered(each, frame)]
        queued = self.push(targets, item, key)
        if down.msg_type == MsgType.MESSAGE:
            hub.metrics.messages_sent += queued
        return heard

    def _undelivered(self, down: Downstream, payload: bytes) -> None:
        """Say that the target is not here (any more), once; a Signal or a reply is not worth that."""
        hub = self._hub
        hub.metrics.undelivered += 1
        if down.msg_type != MsgType.MESSAGE:
            hub.metrics.reports_not_due += 1
            return
        report = Undelivered(
            node_id=hub.node_id,
            user_id=down.user_id,
            conn_id=down.conn_ids[0] if down.conn_ids else 0,
            reason="no such connection",
            downstream=payload,
        )
        published = hub.bus.publish(hub.subjects.undelivered, report.encode())
        hub.metrics.reports_sent += published
        hub.metrics.reports_refused += not published
