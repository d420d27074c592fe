"""User events (protocol section 5): what this node tells of its sessions, and what others tell the users here.

Paid for by logins and ends, never by frames. One subscription to the events of all users serves the node: an event
of a user who is not here costs it one look at the subject (`benchmarks/events.py` says how much that is).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gateway._framing import FrameError, SharedFrame
from gateway.core.outbox import Item
from gateway.protocol.codes import Code
from gateway.protocol.envelopes import EventKind, UserEvent
from gateway.protocol.messages import Event, encode

if TYPE_CHECKING:
    from gateway.core.connection import Connection
    from gateway.core.hub import Hub
    from gateway.core.session import Session

log = logging.getLogger("gateway.events")

KICKED = frozenset({Code.REPLACED_BY_SAME_DEVICE, Code.KICKED_BY_POLICY, Code.KICKED_BY_ADMIN})
"""Ends that somebody else decided."""
_PRESENCE = frozenset(EventKind)


class Events:
    """Publishes online, kicked and offline for each session; delivers every other kind to the user's connections."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    # -- out -----------------------------------------------------------------------------------------------

    def online(self, connection: Connection, session: Session) -> None:
        """A session was seated."""
        self._publish(EventKind.ONLINE, connection, session)

    def ended(self, connection: Connection, session: Session) -> None:
        """A session is released: `kicked` first when somebody else ended it, its code as `data`; then `offline`."""
        if connection.code in KICKED:
            self._publish(EventKind.KICKED, connection, session, b"%d" % connection.code)
        self._publish(EventKind.OFFLINE, connection, session)

    def _publish(self, kind: EventKind, connection: Connection, session: Session, data: bytes = b"") -> None:
        """Never fails the login or the end it tells of: an event may be lost, locations are the truth."""
        hub = self._hub
        event = UserEvent(
            kind=kind,
            user_id=session.user_id,
            node_id=hub.node_id,
            conn_id=connection.id,
            device_id=session.device_id,
            platform=session.platform,
            at=hub.wall_ms(),
            data=data,
        )
        try:
            published = hub.bus.publish(hub.subjects.user_event(session.user_id), event.encode())
        except ValueError as error:  # an authenticator that gives out ids which are none
            log.warning("event_refused", extra={"conn": connection.id, "error": str(error)})
            published = False
        hub.metrics.events_published += published
        hub.metrics.events_refused += not published

    # -- in ------------------------------------------------------------------------------------------------

    def receive(self, subject: str, payload: bytes) -> None:
        """Handle one UserEvent; one that is not valid is logged, counted and dropped."""
        hub = self._hub
        metrics = hub.metrics
        metrics.events_received += 1
        try:
            user_id = hub.subjects.user_of(subject)
            connections = hub.registry.of_user(user_id)
            if not connections:
                metrics.events_elsewhere += 1
                return
            event = _checked(payload, user_id, hub.limits.max_frame)
        except (FrameError, ValueError) as error:
            metrics.events_malformed += 1
            log.warning("malformed_event", extra={"subject": subject[:80], "error": str(error)})
            return
        if event.kind in _PRESENCE:  # a node's own words, for services; a user's devices ask Logic
            metrics.events_presence += 1
            return
        frame = encode(Event(kind=event.kind, data=event.data), timestamp=event.at or hub.wall_ms())
        item: Item = SharedFrame(frame)
        hub.delivery.push(connections, item)
        metrics.events_delivered += 1


def _checked(payload: bytes, user_id: int, most: int) -> UserEvent:
    """The event, if it may be shown to this user.

    Raises:
        ValueError: it is about somebody else, says no kind, or is larger than a frame may be.
        FrameError: it is no UserEvent.
    """
    if len(payload) > most:
        raise ValueError(f"an event of {len(payload)} bytes; at most {most}")
    event = UserEvent.decode(payload)
    if event.user_id not in (0, user_id):
        raise ValueError("an event on the subject of another user")
    if not event.kind:
        raise ValueError("an event without a kind")
    return event
