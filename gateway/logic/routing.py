"""From what is stored to Downstreams: who is where, one packet per user, one envelope per node.

Nothing is stored or decided about a message here. What cannot be sent is left to the client's Sync.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
import trio

from gateway._framing import HEADER, build_ack, build_chat, build_downstream
from gateway.core.ports import Bus, Location, LocationStore, StoreUnavailable
from gateway.logic.settings import LogicSettings
from gateway.logic.statistics import downstreams
from gateway.logic.store import Post, Posted, Raised
from gateway.protocol.messages import FileOffer, packet
from gateway.protocol.subjects import Subjects
from gateway.protocol.types import AckStatus, Action, MsgType

log = logging.getLogger("gateway.logic")

LOOKUP_BATCH: Final = 500
"""Users asked for in one lookup: a remote store takes about so many keys at once without holding up others."""
SLICE: Final = 200
"""Envelopes sent without giving way to other tasks."""
RETRY: Final = 0.01
"""Seconds until a full bus is asked again."""
NEVER: Final = float("-inf")

Places = Mapping[int, Sequence[Location]]


class Origin(msgspec.Struct, frozen=True, gc=False):
    """The connection that a request came from, and the request's seq."""

    node_id: str
    conn_id: int
    user_id: int
    seq: int


class Router:
    """Sends to connections and to users. One per service; its counters only grow."""

    def __init__(self, bus: Bus, locations: LocationStore, subjects: Subjects, settings: LogicSettings) -> None:
        self._bus = bus
        self._locations = locations
        self._subjects = subjects
        self._settings = settings
        self._in_slice = 0
        self._patience_until = NEVER
        self.downstreams = downstreams()
        self.trying = 0
        """Downstreams that wait for a full bus."""
        self.lookups_failed = 0

    async def locate(self, users: Iterable[int]) -> Places:
        """Where each is; who is offline or could not be asked for is absent."""
        asked = list(dict.fromkeys(users))
        found: dict[int, list[Location]] = {}
        for start in range(0, len(asked), LOOKUP_BATCH):
            try:
                with trio.fail_after(self._settings.lookup_timeout):
                    found.update(await self._locations.lookup(asked[start : start + LOOKUP_BATCH]))
            except Exception as error:
                self.lookups_failed += 1
                log.warning("lookup_failed", extra={"users": len(asked), "error": repr(error)})
                if not isinstance(error, StoreUnavailable) or not error.found:
                    break
                found.update(error.found)  # a part of the store is away, the rest is not
        return found

    async def reply(self, origin: Origin, msg_type: MsgType, packet: bytes) -> bool:
        """Send a packet to the connection that asked; False when the bus stayed full."""
        return await self._send(self._envelope(origin.node_id, origin.user_id, (origin.conn_id,), msg_type, packet))

    async def acknowledge(
        self, origin: Origin, msg_id: str, status: AckStatus, code: int, server_seq: int, at: int
    ) -> None:
        """Answer a Message."""
        frame = build_ack(origin.seq, at, msg_id, status, code, server_seq, at)
        await self.reply(origin, MsgType.MESSAGE_ACK, frame[HEADER:])

    async def reject(self, origin: Origin, msg_id: str, code: int, at: int) -> None:
        """Answer a Message that is not stored."""
        await self.acknowledge(origin, msg_id, AckStatus.REJECTED, code, 0, at)

    async def deliver(self, origin: Origin, post: Post, posted: Posted, places: Places) -> None:
        """Acknowledge a stored message; send it to its recipients and to the sender's other connections."""
        at = posted.stored_at
        await self.acknowledge(origin, post.msg_id, AckStatus.STORED, 0, posted.server_seq, at)
        if posted.repeated:
            return
        await self._deliver_to(post.sender, post, posted.server_seq, at, places, exclude=origin.conn_id)
        for user_id, server_seq in posted.recipients:
            await self._deliver_to(user_id, post, server_seq, at, places)

    async def offer(self, origin: Origin, offer: FileOffer, posted: Posted, places: Places) -> None:
        """Beside the message that announces a file: the offer, to its recipients and the sender's other connections."""
        body = packet(offer, timestamp=posted.stored_at)
        await self.send_to_user(origin.user_id, MsgType.FILE_OFFER, body, places, exclude=origin.conn_id)
        for user_id, _ in posted.recipients:
            await self.send_to_user(user_id, MsgType.FILE_OFFER, body, places)

    async def notify(self, raised: Raised, at: int, places: Places) -> bool:
        """Tell a sender's connections how far a message has come; False when there was none to tell."""
        frame = build_ack(0, at, raised.msg_id, raised.status, 0, raised.server_seq, at)
        return await self.send_to_user(raised.sender, MsgType.MESSAGE_ACK, frame[HEADER:], places)

    async def send_to_user(
        self, user_id: int, msg_type: MsgType, packet: bytes, places: Places, *, exclude: int = 0
    ) -> bool:
        """Send one packet to all connections of a user but `exclude`, one envelope per node; True if any was sent."""
        sent = False
        for node_id, conn_ids in _by_node(places.get(user_id, ()), exclude):
            sent |= await self._send(self._envelope(node_id, user_id, conn_ids, msg_type, packet, exclude))
        return sent

    def send_or_drop(
        self, user_id: int, msg_type: MsgType, packet: bytes, places: Places, exclude: int, until: int
    ) -> int:
        """Like `send_to_user` for what is not worth waiting for; returns to how many nodes it was sent."""
        sent = 0
        for node_id, conn_ids in _by_node(places.get(user_id, ()), exclude):
            sent += self._send_now(self._envelope(node_id, user_id, conn_ids, msg_type, packet, exclude, until))
        return sent

    def answer_nowait(self, origin: Origin, msg_type: MsgType, packet: bytes) -> bool:
        """Like `reply`, from where nothing can wait."""
        return self._send_now(self._envelope(origin.node_id, origin.user_id, (origin.conn_id,), msg_type, packet))

    async def _deliver_to(
        self, user_id: int, post: Post, server_seq: int, at: int, places: Places, *, exclude: int = 0
    ) -> None:
        if user_id in places:
            frame = build_chat(
                0, at, post.msg_id, post.sender, post.to_user, post.content, post.content_type, post.sent_at,
                post.group_id, server_seq,
            )  # fmt: skip
            await self.send_to_user(user_id, MsgType.MESSAGE, frame[HEADER:], places, exclude=exclude)

    def _envelope(
        self, node_id: str, user_id: int, conn_ids: Sequence[int], msg_type: MsgType, packet: bytes,
        exclude: int = 0, until: int = 0,
    ) -> tuple[str, bytes]:  # fmt: skip
        payload = build_downstream(user_id, conn_ids, "", "", exclude, Action.DELIVER, 0, msg_type, packet, until)
        return node_id, payload

    async def _send(self, envelope: tuple[str, bytes]) -> bool:
        """Publish; while the bus is full try again, up to the patience that all waiting ones share."""
        self.downstreams.came += 1
        if not self._publish(envelope) and not await self._send_later(envelope):
            return False
        self._patience_until = NEVER
        self._in_slice += 1
        if self._in_slice >= SLICE:
            self._in_slice = 0
            await trio.lowlevel.checkpoint()
        return True

    async def _send_later(self, envelope: tuple[str, bytes]) -> bool:
        patience = self._settings.send_patience
        published = False
        self.trying += 1
        try:
            while not published:
                now = trio.current_time()
                if now - self._patience_until > patience:  # the first in a while to find it full
                    self._patience_until = now + patience
                if now >= self._patience_until:
                    break
                await trio.sleep(RETRY)
                published = self._publish(envelope)
        finally:
            self.trying -= 1
            if not published:  # or cancelled
                self.downstreams.add("given_up")
        return published

    def _send_now(self, envelope: tuple[str, bytes]) -> bool:
        self.downstreams.came += 1
        published = self._publish(envelope)
        if not published:
            self.downstreams.add("dropped")
        return published

    def _publish(self, envelope: tuple[str, bytes]) -> bool:
        """Hand it to the bus; False when that is full. What the bus can never carry is refused, and dealt with."""
        node_id, payload = envelope
        try:
            published = self._bus.publish(self._subjects.downstream(node_id), payload)
        except ValueError as error:  # a node id that is none, more than the bus carries: trying again is no use
            log.warning("downstream_refused", extra={"error": str(error)})
            self.downstreams.add("refused")
            return True
        if published:
            self.downstreams.add("sent")
        return published


def _by_node(places: Sequence[Location], exclude: int) -> Iterable[tuple[str, list[int]]]:
    nodes: dict[str, list[int]] = {}
    for place in places:
        if place.conn_id != exclude:
            nodes.setdefault(place.access_node, []).append(place.conn_id)
    return nodes.items()
