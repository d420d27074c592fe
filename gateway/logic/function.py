"""Logic made of one function: for a Trio program that embeds a node and handles its users' messages itself.

Speaks to the gateway through the Bus and the LocationStore, like the reference Logic; stores nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

import msgspec
import trio

from gateway._framing import ChatFrame, FrameError, Upstream, build_downstream, parse_upstream
from gateway.core.ports import Bus, LocationStore
from gateway.protocol.codes import Code
from gateway.protocol.messages import ChatMessage, Message, MessageAck, SyncResponse, decode, packet, type_of
from gateway.protocol.subjects import LOGIC_QUEUE, Subjects
from gateway.protocol.types import AckStatus, Action, MsgType

log = logging.getLogger("gateway.function")

LANES = 32
"""Users are spread over so many lanes: one user's messages are handled in order, others' meanwhile."""
LANE_BOUND = 256
"""Messages that wait in one lane; one more is Rejected with 4402."""


class Incoming(msgspec.Struct, frozen=True, kw_only=True):
    """One message from an authenticated client. `message.from_user` is the session's user."""

    user_id: int
    device_id: str
    platform: str
    node_id: str
    conn_id: int
    message: ChatMessage


class Refused(Exception):
    """Raised by a handler: the sender gets Rejected with `code` of the table."""

    def __init__(self, code: int = Code.INVALID_PAYLOAD) -> None:
        super().__init__(code)
        self.code = code


OnMessage = Callable[[Incoming], Awaitable[None]]


class Push:
    """Sends to users, wherever they are connected."""

    def __init__(self, bus: Bus, locations: LocationStore, subjects: Subjects) -> None:
        self._bus = bus
        self._locations = locations
        self._subjects = subjects

    async def __call__(self, user_id: int, message: Message, *, device_id: str = "", platform: str = "") -> int:
        """Send one message to a user's connections, or to one device or platform of theirs.

        Returns:
            How many connections it was sent to; 0 when the user is not online or the bus is full.
        """
        body = packet(message, timestamp=_now_ms())
        sent = 0
        for location in (await self._locations.lookup([user_id])).get(user_id, []):
            if device_id not in ("", location.device_id) or platform not in ("", location.platform):
                continue
            sent += self.to_connection(location.access_node, user_id, location.conn_id, type_of(message), body)
        return sent

    def to_connection(self, node_id: str, user_id: int, conn_id: int, msg_type: int, body: bytes) -> bool:
        """Send one packet to one connection; False when the bus is full."""
        down = build_downstream(user_id, (conn_id,), "", "", 0, Action.DELIVER, 0, msg_type, body, 0)
        return self._bus.publish(self._subjects.downstream(node_id), down)


class FunctionLogic:
    """Subscribes upstream and calls `on_message` for each Message. Returning from it says Stored to the sender."""

    def __init__(self, bus: Bus, push: Push, subjects: Subjects, on_message: OnMessage) -> None:
        self._bus = bus
        self._push = push
        self._subjects = subjects
        self._on_message = on_message
        self._handling = 0
        self._idle = trio.Event()
        self._lanes = [trio.open_memory_channel[Upstream](LANE_BOUND) for _ in range(LANES)]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Handle messages until cancelled."""
        subscription = self._bus.subscribe(self._subjects.upstream, self._receive, queue=LOGIC_QUEUE)
        try:
            async with trio.open_nursery() as nursery:
                for _, lane in self._lanes:
                    nursery.start_soon(self._handle_lane, lane)
                task_status.started()
        finally:
            subscription.close()
            for send, receive in self._lanes:
                send.close()
                receive.close()

    async def drain(self) -> None:
        """Return when no message waits or is being handled."""
        while self._handling or any(lane.statistics().current_buffer_used for _, lane in self._lanes):
            self._idle = trio.Event()
            await self._idle.wait()

    def _receive(self, subject: str, payload: bytes) -> None:
        try:
            up = parse_upstream(payload)
        except FrameError as error:
            log.warning("malformed_upstream", extra={"subject": subject, "error": str(error)})
            return
        if up.msg_type == MsgType.SYNC:
            self._answer(up, MsgType.SYNC_ACK, packet(SyncResponse(), seq=up.frame.seq, timestamp=_now_ms()))
        elif up.msg_type == MsgType.MESSAGE:
            try:
                self._lanes[up.user_id % LANES][0].send_nowait(up)
            except trio.WouldBlock:
                self._acknowledge(up, AckStatus.REJECTED, Code.UPSTREAM_UNAVAILABLE)

    async def _handle_lane(self, lane: trio.MemoryReceiveChannel[Upstream]) -> None:
        async for up in lane:
            self._handling += 1
            try:
                await self._handle(up)
            finally:
                self._handling -= 1
                self._idle.set()

    async def _handle(self, up: Upstream) -> None:
        message = decode(up.frame)
        assert isinstance(message, ChatMessage)
        incoming = Incoming(
            user_id=up.user_id,
            device_id=up.device_id,
            platform=up.platform,
            node_id=up.node_id,
            conn_id=up.conn_id,
            message=msgspec.structs.replace(message, from_user=up.user_id),
        )
        try:
            await self._on_message(incoming)
        except Refused as refused:
            self._acknowledge(up, AckStatus.REJECTED, refused.code)
        except Exception:
            log.exception("on_message_failed", extra={"conn": up.conn_id})
            self._acknowledge(up, AckStatus.REJECTED, Code.INTERNAL_ERROR)
        else:
            self._acknowledge(up, AckStatus.STORED, Code.OK)

    def _acknowledge(self, up: Upstream, status: AckStatus, code: int) -> None:
        assert isinstance(up.frame, ChatFrame)
        now = _now_ms()
        ack = MessageAck(msg_id=up.frame.msg_id, status=status, code=code, timestamp=now)
        self._answer(up, MsgType.MESSAGE_ACK, packet(ack, seq=up.frame.seq, timestamp=now))

    def _answer(self, up: Upstream, msg_type: int, body: bytes) -> None:
        if not self._push.to_connection(up.node_id, up.user_id, up.conn_id, msg_type, body):
            log.warning("answer_not_sent", extra={"conn": up.conn_id})


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
