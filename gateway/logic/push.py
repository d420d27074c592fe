"""Sending from a Logic to users, devices, connections and everyone. Nothing is received or kept here.

Nothing here waits for the bus: what it has no room for is not sent, and the result says so.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec

from gateway._framing import build_downstream
from gateway.core.books import Account
from gateway.core.ports import Bus, Location, LocationStore, StoreUnavailable
from gateway.logic.rerouting import Again, newer
from gateway.logic.statistics import Tally, downstreams
from gateway.protocol.codes import Code
from gateway.protocol.envelopes import EventKind, UserEvent
from gateway.protocol.messages import ChatMessage, Message, MessageAck, packet, type_of
from gateway.protocol.subjects import Subjects
from gateway.protocol.types import Action, MsgType

_NODES_OWN = frozenset(EventKind)


class Push:
    """Sends to users, wherever they are connected: `await push(user_id, message)`, and narrower and wider."""

    def __init__(self, bus: Bus, locations: LocationStore, subjects: Subjects) -> None:
        self._bus = bus
        self._locations = locations
        self._subjects = subjects
        self._downstreams = downstreams()
        self._broadcasts = downstreams()
        self._events = downstreams()

    async def __call__(self, user_id: int, message: Message, *, device_id: str = "", platform: str = "") -> int:
        """Send one message to a user's connections, or to one device or platform of theirs.

        Returns:
            How many connections it was sent to; 0 when the user is not online or the bus is full.

        Raises:
            gateway.core.ports.StoreUnavailable: nobody could say where the user is.
            ValueError: a message that the schema cannot hold or the bus cannot carry.
        """
        places = await self._places(user_id, device_id, platform)
        return self._to_places(user_id, places, Action.DELIVER, 0, type_of(message), _built(message))

    async def kick(
        self, user_id: int, code: int = Code.KICKED_BY_ADMIN, *, device_id: str = "", platform: str = ""
    ) -> int:
        """Close a user's connections with `code`; they are told it, and do not come back by themselves (42xx).

        Returns:
            How many connections it was sent to. Raises as pushing does.
        """
        return self._to_places(user_id, await self._places(user_id, device_id, platform), Action.KICK, code, 0, b"")

    def connection(self, node_id: str, conn_id: int, message: Message, *, user_id: int = 0) -> bool:
        """Send one message to one connection. With `user_id`, a Logic can send it again if that is gone.

        Raises:
            ValueError: a node id that is no name, or a message that the schema cannot hold.
        """
        return self.to_connection(node_id, user_id, conn_id, type_of(message), _built(message))

    def everyone(self, message: Message) -> bool:
        """Send one message to every authenticated connection of every node. ValueError as above."""
        down = build_downstream(0, (), "", "", 0, Action.DELIVER, 0, type_of(message), _built(message), 0)
        return self._counted(self._broadcasts, self._subjects.broadcast, down)

    def event(self, user_id: int, kind: str, data: bytes = b"") -> bool:
        """Send an Event to all connections of a user, without asking where they are.

        Raises:
            ValueError: no user id, an empty `kind`, or one of the nodes' own (`EventKind`).
        """
        if not kind or kind in _NODES_OWN:
            raise ValueError(f"an event of your own needs a kind other than {', '.join(EventKind)}, not {kind[:80]!r}")
        event = UserEvent(kind=kind, user_id=user_id, at=now_ms(), data=data)
        return self._counted(self._events, self._subjects.user_event(user_id), event.encode())

    async def again(self, each: Again) -> str:
        """Send a delivery that came too late for its connection to the user's newer ones, if there are any.

        Returns:
            `rerouted`, `offline` (there are none), or `not_sent` (the bus is full, or nobody could say).
        """
        try:
            places = newer(each, await self._places(each.user_id, "", ""))
        except StoreUnavailable:
            return "not_sent"
        if not places:
            return "offline"
        sent = self._to_places(each.user_id, places, Action.DELIVER, 0, MsgType.MESSAGE, each.packet)
        return "rerouted" if sent else "not_sent"

    def books(self) -> list[Account]:
        """What was to be sent, and what became of it: sent, or dropped because the bus was full or cannot carry it."""
        return [
            self._downstreams.account("pushed", 0),
            self._broadcasts.account("pushed_to_everyone", 0),
            self._events.account("pushed_events", 0),
        ]

    def to_connection(self, node_id: str, user_id: int, conn_id: int, msg_type: int, body: bytes) -> bool:
        """Send one packet, already built, to one connection; False when the bus is full."""
        return self._publish(node_id, user_id, (conn_id,), Action.DELIVER, 0, msg_type, body)

    async def _places(self, user_id: int, device_id: str, platform: str) -> list[Location]:
        found = (await self._locations.lookup([user_id])).get(user_id, [])
        return [each for each in found if device_id in ("", each.device_id) and platform in ("", each.platform)]

    def _to_places(
        self, user_id: int, places: Iterable[Location], action: Action, code: int, msg_type: int, body: bytes
    ) -> int:
        """One envelope for each node; how many connections it was sent to."""
        nodes: dict[str, list[int]] = {}
        for place in places:
            nodes.setdefault(place.access_node, []).append(place.conn_id)
        sent = 0
        for node_id, conn_ids in nodes.items():
            if self._publish(node_id, user_id, conn_ids, action, code, msg_type, body):
                sent += len(conn_ids)
        return sent

    def _publish(
        self, node_id: str, user_id: int, conn_ids: Iterable[int], action: Action, code: int, msg_type: int, body: bytes
    ) -> bool:
        subject = self._subjects.downstream(node_id)
        down = build_downstream(user_id, conn_ids, "", "", 0, action, code, msg_type, body, 0)
        return self._counted(self._downstreams, subject, down)

    def _counted(self, tally: Tally, subject: str, payload: bytes) -> bool:
        tally.came += 1
        outcome = "refused"
        try:
            published = self._bus.publish(subject, payload)
            outcome = "sent" if published else "dropped"
        finally:
            tally.add(outcome)
        return published


def _built(message: Message) -> bytes:
    """The packet; what says no time of its own (0) is said now, or clients would show it as of 1970."""
    now = now_ms()
    if isinstance(message, ChatMessage | MessageAck) and not message.timestamp:
        message = msgspec.structs.replace(message, timestamp=now)
    return packet(message, timestamp=now)


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000
