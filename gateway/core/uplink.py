"""A Message where the uplink is durable: Accepted means that a stream has it (docs/cluster.md says what that promises).

The answer comes later than the frame, when the stream has spoken; its connection may have gone by then. Receipts,
Signals and Syncs do not come here: they go over the bus as ever.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

import trio

from gateway._framing import ChatFrame, build_ack, build_upstream
from gateway.core import dispatcher
from gateway.core.outbox import Verdict
from gateway.core.ports import Bus, Confirmation, DurableBus
from gateway.core.session import Session
from gateway.protocol.codes import Code
from gateway.protocol.types import AckStatus

if TYPE_CHECKING:
    from gateway.core.connection import Connection
    from gateway.core.hub import Hub


class DurableUplink:
    """The handler of Message, in place of `Relay`. Called by `DispatchTable`."""

    def __init__(self, hub: Hub, bus: Bus) -> None:
        """Raises TypeError for a bus that keeps no streams."""
        self._hub = hub
        self._bus = durable(bus)

    def __call__(self, connection: Connection, frame: ChatFrame) -> bytes | None:
        """Check, spend, and ask the stream; answers now only what is refused now."""
        session = connection.session
        assert session is not None
        if not frame.valid or frame.from_user not in (0, session.user_id):
            return dispatcher.not_relayed(connection, frame, Code.INVALID_PAYLOAD)
        dispatcher.spend(connection, session, 1.0)
        envelope = self._envelope(connection, session, frame, connection.wall_ms)
        done = partial(self._answer, connection, frame.seq, frame.msg_id, envelope)
        try:
            taken = self._bus.publish_durable(self._hub.subjects.durable, envelope, _key(session, frame), done)
        except ValueError:  # more than the bus carries
            return dispatcher.not_relayed(connection, frame, Code.INVALID_PAYLOAD)
        if not taken:
            return dispatcher.not_relayed(connection, frame, Code.UPSTREAM_UNAVAILABLE)
        self._asked()
        assert connection.sender is not None
        connection.sender.handed_over += 1
        return None

    async def keep(self, connection: Connection, session: Session, frame: ChatFrame) -> bool:
        """The same for a task that can wait: whether the stream has it now."""
        spoken = trio.Event()
        word = Confirmation.UNKNOWN
        envelope = self._envelope(connection, session, frame, self._hub.wall_ms())

        def done(became: Confirmation) -> None:
            nonlocal word
            word = became
            self._count(became, envelope)
            spoken.set()

        try:
            if not self._bus.publish_durable(self._hub.subjects.durable, envelope, _key(session, frame), done):
                return False
        except ValueError:  # more than the bus carries
            return False
        self._asked()
        await spoken.wait()  # the bus holds a deadline
        return word in (Confirmation.CONFIRMED, Confirmation.REPEATED)

    def _envelope(self, connection: Connection, session: Session, frame: ChatFrame, now_ms: int) -> bytes:
        return build_upstream(
            self._hub.node_id, connection.id, session.user_id, session.device_id, session.platform, now_ms, frame
        )

    def _answer(self, connection: Connection, seq: int, msg_id: str, envelope: bytes, became: Confirmation) -> None:
        """The stream has spoken: tell whoever is still there."""
        self._count(became, envelope)
        if connection.closing:
            return
        kept = became in (Confirmation.CONFIRMED, Confirmation.REPEATED)
        status, code = (AckStatus.ACCEPTED, Code.OK) if kept else (AckStatus.REJECTED, Code.UPSTREAM_UNAVAILABLE)
        now_ms = self._hub.wall_ms()
        if connection.push(build_ack(seq, now_ms, msg_id, status, code, 0, now_ms)) is Verdict.QUEUED:
            self._hub.metrics.replies_queued += 1

    def _asked(self) -> None:
        self._hub.metrics.uplink_asked += 1
        self._hub.metrics.uplink_waiting += 1

    def _count(self, became: Confirmation, envelope: bytes) -> None:
        metrics = self._hub.metrics
        metrics.uplink_waiting -= 1
        if became is Confirmation.CONFIRMED:
            metrics.uplink_confirmed += 1
        elif became is Confirmation.REPEATED:
            metrics.uplink_repeated += 1
            # The stream keeps no second copy, and Logic may be done with the first, its answer lost: it is asked
            # over the bus, and answers whoever asks now. If nobody hears, the client will ask again.
            metrics.upstreams_beside += self._hub.bus.publish(self._hub.upstream, envelope)
        elif became is Confirmation.REFUSED:
            metrics.uplink_refused += 1
        else:
            metrics.uplink_unknown += 1


def durable(bus: Bus) -> DurableBus:
    """The bus as one that keeps streams. Raises TypeError if it does not."""
    if not hasattr(bus, "publish_durable") or not hasattr(bus, "consume"):
        raise TypeError(f"a durable uplink needs a DurableBus; {type(bus).__name__} keeps no streams")
    return cast(DurableBus, bus)


def _key(session: Session, frame: ChatFrame) -> str:
    """A message's name in the stream: the same however often and from wherever it is sent."""
    return f"{session.user_id}.{frame.msg_id}"
