"""Logic made of functions: for a Trio program that handles its users' messages itself.

Runs inside a node (`open_node(on_message=...)`) and in a process of its own (`gateway.backend`). Speaks to the
gateway through the Bus and the LocationStore, like the reference Logic; stores nothing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import trio

from gateway._framing import ChatFrame, FrameError, Upstream, parse_upstream
from gateway.core.books import Account
from gateway.core.ports import Bus, Consumption, StreamItem, Subscription
from gateway.core.uplink import durable as durable_bus
from gateway.logic.backlog import Backlog
from gateway.logic.push import Push, now_ms
from gateway.logic.rerouting import Again, again
from gateway.logic.statistics import reports
from gateway.protocol.codes import Code
from gateway.protocol.messages import (
    ChatMessage,
    FileAck,
    FileOffer,
    Message,
    MessageAck,
    SyncRequest,
    SyncResponse,
    decode,
    packet,
    type_of,
)
from gateway.protocol.subjects import LOGIC_QUEUE, Subjects
from gateway.protocol.types import AckStatus, MsgType

log = logging.getLogger("gateway.function")

LANES = 32
"""Users are spread over so many lanes: one user's frames are handled in order, others' meanwhile."""
LANE_BOUND = 256
"""Frames that wait in one lane; one more is refused with 4402."""
BYTES_BOUND = 64 * 1024 * 1024
"""Bytes of frames that wait in all lanes together; beyond them everything is refused with 4402."""
AGAIN_BOUND = 4_096
"""Messages that wait to be sent once more; further ones are left to the client's Sync."""


class Sender(msgspec.Struct, frozen=True, kw_only=True):
    """Which authenticated connection something came from."""

    user_id: int
    device_id: str
    platform: str
    node_id: str
    conn_id: int


class Incoming(Sender, frozen=True, kw_only=True):
    """One message from an authenticated client. `message.from_user` is the session's user."""

    message: ChatMessage


class Arrival(Sender, frozen=True, kw_only=True):
    """Anything else that a client sends up: a SyncRequest, a Signal, or a MessageAck that says Delivered or Read;
    a FileOffer, when a file of theirs is there (None: they are told Stored); or a FileAck, when they want a group's
    file (`message` is the group; return it as it is to permit that, or with a code).

    What `message` says of who sent it is the client's claim: `user_id` counts.
    """

    message: Message


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """The message is yours, durably as far as you promise that; its sender is told Stored."""

    server_seq: int = 0
    """Its place in the sender's timeline, if you keep such a thing."""


class Rejected(msgspec.Struct, frozen=True):
    """The sender is told Rejected, with a code of the table."""

    code: int = Code.INVALID_PAYLOAD


class Refused(Exception):
    """Raised by a handler instead of returning `Rejected(code)`."""

    def __init__(self, code: int = Code.INVALID_PAYLOAD) -> None:
        super().__init__(code)
        self.code = code


OnMessage = Callable[[Incoming], Awaitable[Stored | Rejected | None]]
"""Handles a message; None says Stored. What it raises, but Refused, is logged and Rejected with 4401."""
OnOther = Callable[[Arrival], Awaitable[Message | None]]
"""Handles the rest; what it returns is the reply to the request. A Sync that it fails on is answered with 4401."""


Work = tuple[Upstream, int, StreamItem | None]
"""A frame, its size, and where it came from if that was a stream."""


class FunctionStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a FunctionLogic has done since the start; `received` is the sum of the next six."""

    received: int
    """Upstream envelopes."""
    malformed: int
    stored: int
    rejected: int
    """Messages refused by the function, failed, or over the bounds."""
    others: int
    """Syncs, receipts and signals that were handled."""
    ignored: int
    """Receipts and signals that nobody wanted, or that found no room."""
    waiting: int
    """In the lanes, or being handled."""
    not_answered: int
    """Answers that the bus had no room for."""
    rerouted: int
    """Messages whose node could not place them, sent once more to where their user is now."""


class FunctionLogic:
    """Subscribes upstream and calls a function for each frame: each user's in order, different users' side by side."""

    def __init__(
        self,
        bus: Bus,
        push: Push,
        subjects: Subjects,
        on_message: OnMessage,
        on_other: OnOther | None = None,
        *,
        durable: bool = False,
    ) -> None:
        """
        Args:
            bus: where the nodes are.
            push: how answers are sent.
            subjects: of the nodes' prefix.
            on_message: handles messages.
            on_other: handles the rest; without it, Syncs are answered by an empty page.
            durable: take Messages from the stream too; the bus is a DurableBus then.
        """
        self._bus = bus
        self._push = push
        self._subjects = subjects
        self._on_message = on_message
        self._on_other = on_other
        self._stream = durable_bus(bus) if durable else None
        self._consumption: Consumption | None = None
        self._subscriptions: list[Subscription] = []
        self._waiting = self._waiting_bytes = 0
        self._idle = trio.Event()
        self._lanes = [trio.open_memory_channel[Work](math.inf) for _ in range(LANES)]  # bounded in `_enqueue`
        self._received = self._malformed = self._stored = self._rejected = self._others = self._ignored = 0
        self._not_answered = 0
        self._again: Backlog[Again] = Backlog(AGAIN_BOUND, BYTES_BOUND)
        self._reports = reports()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Handle what comes until cancelled; what was not answered then, clients send again."""
        self._subscriptions = [
            self._bus.subscribe(self._subjects.upstream, self._receive, queue=LOGIC_QUEUE),
            self._bus.subscribe(self._subjects.undelivered, self._undelivered, queue=LOGIC_QUEUE),
        ]
        if self._stream is not None:
            self._consumption = self._stream.consume(self._subjects.durable, self._take, group=LOGIC_QUEUE)
        try:
            async with trio.open_nursery() as nursery:
                for _, lane in self._lanes:
                    nursery.start_soon(self._handle_lane, lane)
                nursery.start_soon(self._reroute)
                task_status.started()
        finally:
            self.part()
            if self._consumption is not None:
                self._consumption.abandon()
            for send, receive in self._lanes:
                send.close()
                receive.close()

    def part(self) -> None:
        """Take nothing new; the others of the queue group do. What was received is finished: see `drain`."""
        if self._consumption is not None:
            self._consumption.close()
        while self._subscriptions:
            self._subscriptions.pop().close()

    async def drain(self) -> None:
        """Return when nothing waits or is being handled. The caller holds a deadline."""
        while self._waiting:
            self._idle = trio.Event()
            await self._idle.wait()
        await self._again.wait_idle()

    def statistics(self) -> FunctionStatistics:
        """Counters since the start, and what waits now."""
        return FunctionStatistics(
            received=self._received,
            malformed=self._malformed,
            stored=self._stored,
            rejected=self._rejected,
            others=self._others,
            ignored=self._ignored,
            waiting=self._waiting,
            not_answered=self._not_answered,
            rerouted=self._reports.became["rerouted"],
        )

    def books(self) -> list[Account]:
        """What came from nodes, and what became of each. Exact at any time for a caller."""
        became = {
            "stored": self._stored,
            "rejected": self._rejected,
            "others": self._others,
            "ignored": self._ignored,
            "malformed": self._malformed,
            "waiting": self._waiting,
        }
        return [
            Account("logic_upstreams", self._received, became),
            self._reports.account("logic_undelivered", self._again.held),
        ]

    # -- in ------------------------------------------------------------------------------------------------

    def _receive(self, subject: str, payload: bytes) -> None:
        self._received += 1
        try:
            up = parse_upstream(payload)
        except FrameError as error:
            self._malformed += 1
            log.warning("malformed_upstream", extra={"subject": subject, "error": str(error)})
            return
        if up.msg_type in (MsgType.MESSAGE, MsgType.FILE_OFFER) or self._on_other is not None:
            self._enqueue(up, len(payload))
        elif up.msg_type == MsgType.FILE_ACK:
            self._turn_away(up, Code.INVALID_PAYLOAD)  # who is in a group nobody here knows
        elif up.msg_type == MsgType.SYNC:
            self._others += 1
            self._answer(up, SyncResponse())
        else:
            self._ignored += 1

    def _take(self, item: StreamItem) -> None:
        """One of the durable uplink. Its room is the stream's: it is never turned away here."""
        self._received += 1
        try:
            up = parse_upstream(item.payload)
        except FrameError as error:
            self._malformed += 1
            log.warning("malformed_upstream", extra={"error": str(error)})
            item.settle()
        else:
            self._enqueue(up, len(item.payload), item)

    def _enqueue(self, up: Upstream, size: int, item: StreamItem | None = None) -> None:
        lane = self._lanes[up.user_id % LANES][0]
        full = lane.statistics().current_buffer_used >= LANE_BOUND or self._waiting_bytes + size > BYTES_BOUND
        if full and item is None:
            self._turn_away(up, Code.UPSTREAM_UNAVAILABLE)
        else:
            lane.send_nowait((up, size, item))
            self._waiting += 1
            self._waiting_bytes += size

    async def _handle_lane(self, lane: trio.MemoryReceiveChannel[Work]) -> None:
        async for up, size, item in lane:
            try:
                await self._handle(up)
                if item is not None:
                    item.settle()  # not when cancelled: then it comes again, to another
            finally:
                self._waiting -= 1
                self._waiting_bytes -= size
                self._idle.set()

    async def _handle(self, up: Upstream) -> None:
        try:
            message = decode(up.frame)
            if isinstance(message, ChatMessage):
                await self._handle_message(up, message)
            elif isinstance(message, FileOffer):
                await self._handle_offer(up, message)
            elif self._on_other is not None:
                reply = await self._on_other(_from(up, Arrival, message))
                self._others += 1
                if reply is not None:
                    self._answer(up, reply)
        except Refused as refused:
            self._turn_away(up, refused.code)
        except Exception:
            log.exception("on_message_failed", extra={"conn": up.conn_id})
            self._turn_away(up, Code.INTERNAL_ERROR)

    async def _handle_message(self, up: Upstream, message: ChatMessage) -> None:
        owned = msgspec.structs.replace(message, from_user=up.user_id)
        result = await self._on_message(_from(up, Incoming, owned))
        if isinstance(result, Rejected):
            self._turn_away(up, result.code)
        else:
            self._acknowledge(up, AckStatus.STORED, Code.OK, result.server_seq if result is not None else 0)
            self._stored += 1

    async def _handle_offer(self, up: Upstream, offer: FileOffer) -> None:
        """A file of this user's is there: without a function for it, its recipient is told if they are connected."""
        reply: Message | None = None
        if self._on_other is not None:
            reply = await self._on_other(_from(up, Arrival, offer))
        elif offer.to_user > 0:
            await self._push(offer.to_user, offer)
        else:
            raise Refused
        self._others += 1
        self._answer(up, reply or MessageAck(msg_id=offer.file_id, status=AckStatus.STORED, timestamp=now_ms()))

    # -- what found its connection gone --------------------------------------------------------------------

    def _undelivered(self, subject: str, payload: bytes) -> None:
        self._reports.came += 1
        try:
            found = again(payload)
        except FrameError as error:
            self._reports.add("malformed")
            log.warning("malformed_undelivered", extra={"subject": subject, "error": str(error)})
            return
        if found is None:
            self._reports.add("not_asked")
        elif not self._again.offer(found, found.size):
            self._reports.add("full")

    async def _reroute(self) -> None:
        while True:
            for each in await self._again.take(AGAIN_BOUND):
                outcome = "not_sent"  # also when cancelled
                try:
                    outcome = await self._push.again(each)
                except Exception:
                    log.exception("reroute_failed")
                finally:
                    self._reports.add(outcome)
                    self._again.finish(1, each.size)

    # -- answers -------------------------------------------------------------------------------------------

    def _turn_away(self, up: Upstream, code: int) -> None:
        """Not stored, not answered as it should be; receipts and signals are answered by nothing."""
        if up.msg_type == MsgType.MESSAGE:
            self._rejected += 1
            self._acknowledge(up, AckStatus.REJECTED, code, 0)
        elif up.msg_type == MsgType.SYNC:
            self._others += 1
            request = decode(up.frame)
            assert isinstance(request, SyncRequest)
            self._answer(up, SyncResponse(code=code, next_cursor=request.cursor))
        elif up.msg_type in (MsgType.FILE_OFFER, MsgType.FILE_ACK):
            self._others += 1
            refused = decode(up.frame)
            if isinstance(refused, FileAck):
                self._answer(up, FileAck(file_id=refused.file_id, code=code))
            elif isinstance(refused, FileOffer):
                self._answer(up, MessageAck(msg_id=refused.file_id[:64], status=AckStatus.REJECTED, code=code))
        else:
            self._ignored += 1

    def _acknowledge(self, up: Upstream, status: AckStatus, code: int, server_seq: int) -> None:
        assert isinstance(up.frame, ChatFrame)
        ack = MessageAck(msg_id=up.frame.msg_id, status=status, code=code, server_seq=server_seq, timestamp=now_ms())
        self._answer(up, ack)

    def _answer(self, up: Upstream, reply: Message) -> None:
        """To the connection that asked, with the seq that it asked with."""
        try:
            body = packet(reply, seq=up.frame.seq, timestamp=now_ms())
            answered = self._push.to_connection(up.node_id, up.user_id, up.conn_id, type_of(reply), body)
            error = "the bus is full"
        except (ValueError, OverflowError) as invalid:  # not in the schema, too large, a node id that is none
            answered, error = False, str(invalid)
        if not answered:
            self._not_answered += 1
            log.warning("answer_not_sent", extra={"conn": up.conn_id, "error": error})


def _from(up: Upstream, kind: Callable[..., Incoming | Arrival], message: Message) -> Any:
    return kind(
        user_id=up.user_id,
        device_id=up.device_id,
        platform=up.platform,
        node_id=up.node_id,
        conn_id=up.conn_id,
        message=message,
    )
