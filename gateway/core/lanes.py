"""A Connection over a link of several streams: QUIC and WebTransport (protocol section 4).

Each lane has its own decoder, its own order and its own room, so that what stands still in one delays nothing in the
other. Here is only what differs from a Connection of one lane, which is its control lane; files are `files`, what
comes before the handshake is complete is `early`.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import TYPE_CHECKING, Protocol

from gateway._framing import HEADER, Frame, FrameDecoder, TokenBucket, join_frames
from gateway.core.connection import Connection
from gateway.core.early import Early
from gateway.core.link import IncomingStream, Lane, LanedLink, StreamSink
from gateway.core.outbox import Item, Outbox, SignalKey, Verdict
from gateway.protocol.codes import Code
from gateway.protocol.types import MsgType

if TYPE_CHECKING:
    from gateway.core.hub import Hub
    from gateway.core.session import Session

ON_MESSAGE_LANE = frozenset({MsgType.MESSAGE, MsgType.MESSAGE_ACK, MsgType.EVENT})
"""What the server sends on the message lane while it is open; all else goes by control."""
IN_DATAGRAMS = frozenset({MsgType.HEARTBEAT, MsgType.SIGNAL})
KEPT_BEFORE_LOGIN = 65_536
"""Bytes of the message lane that wait for a login; a client that sends more without one is closed."""
SLICE = 16 * 1024
"""Bytes joined for the message lane at once: its outbox stays where Signals conflate and a close can discard."""
DATAGRAM = -1
"""Not a lane: what a datagram asks is answered by one."""


class IncomingFiles(Protocol):
    """Who takes ephemeral streams."""

    def incoming(self, connection: LanedConnection, stream: IncomingStream) -> StreamSink | None:
        """A seated client opened one; None refuses it. Synchronous, never raises."""


class LanedConnection(Connection):
    """A Connection whose control lane is its own, with a message lane and datagrams beside it."""

    __slots__ = (
        "_binding",
        "_control",
        "_crowded",
        "_datagram_budget",
        "_datagrams",
        "_early",
        "_held_lane",
        "_lane",
        "_messages",
        "_messages_in",
        "_postponed",
        "_signals",
        "asking",
        "lanes",
    )

    def __init__(self, hub: Hub, link: LanedLink, conn_id: int, now: float) -> None:
        super().__init__(hub, link, conn_id, now)
        self.lanes = link
        self._control = self.decoder
        self._lane: int = Lane.CONTROL
        self._held_lane: int = Lane.CONTROL
        self.asking = False
        """Whether an early Message is with the reader task."""
        self._messages_in: FrameDecoder | None = None
        self._messages: Outbox | None = None
        self._crowded = False
        self._signals: Outbox | None = None
        self._datagrams: FrameDecoder | None = None
        self._datagram_budget: TokenBucket | None = None
        self._postponed = b""
        self._early: Early | None = None
        self._binding = hub.bindings.redeem(link.ticket, now) if link.ticket else None
        if link.early:
            self._early = Early(self, self._binding)
            self._control.table = self._early.table
            self.provisional = self._early.session

    # -- bytes in ------------------------------------------------------------------------------------------

    def feed(self, lane: int, data: bytes) -> None:
        """Receiver: bytes of one lane. The lanes know nothing of each other's order."""
        early = self._early
        if early is not None and not early.admits(lane, data):
            return
        if lane != Lane.MESSAGE:
            super().feed(lane, data)
            return
        decoder = self._messages_in
        if decoder is None or self.deaf:
            return
        if decoder.paused and decoder.pending + len(data) > KEPT_BEFORE_LOGIN and self.session is None:
            self.close(Code.OUT_OF_ORDER, "messages before Auth")
            return
        self.decoder, self._lane = decoder, Lane.MESSAGE
        try:
            super().feed(lane, data)
        finally:
            self.decoder, self._lane = self._control, Lane.CONTROL

    def datagram(self, data: bytes) -> None:
        """Receiver: one datagram. Whatever is wrong with it, it is dropped and counted, and nothing else happens."""
        metrics = self.hub.metrics
        if self.deaf:
            return
        if self._datagram_budget is None:
            limits = self.hub.limits
            self._datagram_budget = TokenBucket(limits.datagram_rate, limits.datagram_burst, self.hub.now())
        # the budget first: a flood costs one comparison each; a budget that is overdrawn is not drawn on further
        if self._datagram_budget.wait(self.hub.now()) > 0.0 or not _one_frame(data) or self._early is not None:
            metrics.datagrams_dropped += 1
            return
        self._datagram_budget.spend(self.hub.now())
        decoder = self._datagrams
        if decoder is None:
            decoder = self._datagrams = FrameDecoder(self.hub.datagrams, self.hub.limits.max_frame)
        metrics.datagrams += 1
        self.decoder, self._lane = decoder, DATAGRAM
        try:
            super().feed(Lane.CONTROL, data)
        finally:
            self.decoder, self._lane = self._control, Lane.CONTROL
        if decoder.closed:  # malformed: the next one starts anew
            metrics.frames += decoder.frames
            self._datagrams = None

    def incoming(self, stream: IncomingStream) -> StreamSink | None:
        """Receiver: an ephemeral stream."""
        files = self.hub.files
        if files is None or self.session is None or self.closing:
            return None
        return files.incoming(self, stream)

    def lane_opened(self, lane: int) -> None:
        """Receiver: the client has a message lane from now on."""
        if lane != Lane.MESSAGE or self.closing:
            return
        hub, early = self.hub, self._early
        self._messages = Outbox(hub.limits.outbox_bytes)
        if early is not None and early.session is not None:
            self._messages_in = FrameDecoder(early.table, hub.limits.max_frame_before_auth)
            return
        self._messages_in = FrameDecoder(hub.seated, hub.limits.max_frame)
        self._messages_in.paused = self.session is None or self._control.paused

    def lane_closed(self, lane: int) -> None:
        """Receiver: it has ended; what waits for it goes by control."""
        if lane != Lane.MESSAGE:
            return
        self._forget_message_decoder()
        waiting, self._messages, self._crowded = self._messages, None, False
        if waiting is None or self.closing:
            if waiting is not None:
                self.hub.metrics.discarded += len(waiting)
            return
        for item in waiting.take(waiting.waiting) if waiting.waiting else ():
            if self.outbox.push(item, self.link.unsent) is Verdict.OVERFLOW:
                self.hub.metrics.discarded += 1
                self.close(Code.SLOW_CONSUMER, "messages are not being read")
        if not self._stuck:
            self.flush()

    def confirmed(self) -> None:
        """Receiver: the handshake is complete, what comes from now on is nobody's replay."""
        if self._early is not None:
            self._early.confirm()

    def postpone(self, frame: Frame, *, until_login: bool = True) -> None:
        """Keep a frame that came early for later; a client that says much without a right to is closed."""
        early = self._early
        assert early is not None
        if len(self._postponed) + len(early.heartbeats) > KEPT_BEFORE_LOGIN:
            self.close(Code.EARLY_DATA_REFUSED, "too much early data")
        elif until_login:
            self._postponed += frame.encode()
        else:
            early.heartbeats += frame.encode()

    @property
    def holding(self) -> bool:
        """Whether the reader task has a frame, and what is behind it waits."""
        return self._control.paused

    def heard_early(self) -> None:
        """What came early is dealt with: from now on the ordinary rules."""
        self._early = None
        self._control.table = self.hub.greeting
        if self._messages_in is not None:
            self._messages_in.table, self._messages_in.limit = self.hub.seated, self.hub.limits.max_frame
            self._messages_in.paused = True

    def hold(self, frame: Frame) -> None:
        """Nothing of either lane is handled before the held frame is."""
        self._held_lane = self._lane
        super().hold(frame)
        self._pause()

    def throttle(self, now: float, wait: float) -> None:
        """The rate is the user's, not a lane's."""
        if self._lane == DATAGRAM:
            return  # a datagram over the rate is dropped, and nothing waits for it
        super().throttle(now, wait)
        self._pause()

    def _pause(self) -> None:
        self._control.paused = True
        if self._messages_in is not None:
            self._messages_in.paused = True

    def _go_on(self) -> None:
        if self._code is not None or self._held is not None or self._resume_at is not None:
            return
        self._control.paused = False
        if self._postponed and self.session is not None:
            postponed, self._postponed = self._postponed, b""
            self.feed(Lane.CONTROL, postponed)
            # what is retained behind it came later; a pause in between keeps that order
        if self._may_go_on(self._control):
            self.feed(Lane.CONTROL, b"")
        decoder = self._messages_in
        if decoder is not None and self._hears_messages() and self._may_go_on(self._control):
            decoder.paused = False
            self.feed(Lane.MESSAGE, b"")
            if not self._may_go_on(decoder):
                return
        if self._early is not None and self._may_go_on(self._control):
            self._early.settle()
        if self._may_go_on(self._control):
            self.link.resume()

    def _may_go_on(self, decoder: FrameDecoder) -> bool:
        return self._code is None and not decoder.paused

    def _hears_messages(self) -> bool:
        """Whether frames of the message lane are handled: after login, or early by a session's right."""
        return self.session is not None or (self._early is not None and self._early.session is not None)

    # -- frames out ----------------------------------------------------------------------------------------

    def answer_held(self, frames: bytes) -> None:
        """Answer a held frame, from the reader task, on the lane that it came by."""
        self._lane = self._held_lane
        try:
            self.reply(frames)
        finally:
            self._lane = Lane.CONTROL

    def reply(self, frames: bytes) -> None:
        """Answer on the lane that asked."""
        if self._lane == DATAGRAM:
            if not self.lanes.send_datagram(frames):
                self.hub.metrics.datagrams_unsent += 1
            return
        outbox = self._messages
        if self._lane != Lane.MESSAGE or outbox is None:
            super().reply(frames)
            return
        if self._crowded or outbox.waiting:
            if outbox.push(frames, self.lanes.unsent_on(Lane.MESSAGE)) is Verdict.OVERFLOW:
                self.close(Code.SLOW_CONSUMER, "replies are not being read")
                return
            self.hub.metrics.replies_queued += 1
            self._flush_messages()
        elif not self.lanes.send_on(Lane.MESSAGE, frames):
            self._crowded = True

    def push(self, item: Item, key: SignalKey | None = None) -> Verdict:
        """Queue one frame for its lane, or as a datagram."""
        if key is not None and len(item) <= self.lanes.max_datagram:
            return self._push_datagram(item, key)
        outbox = self._messages
        if outbox is None or (key is None and _type(item) not in ON_MESSAGE_LANE):
            return super().push(item, key)
        if self._code is not None:
            return Verdict.DROPPED
        unsent = self.lanes.unsent_on(Lane.MESSAGE) if self._crowded else 0
        verdict = outbox.push_signal(key, item, unsent) if key is not None else outbox.push(item, unsent)
        if verdict is Verdict.OVERFLOW:
            self.close(Code.SLOW_CONSUMER, "messages are not being read")
        elif not self._crowded:
            self._mark()
        return verdict

    def _push_datagram(self, item: Item, key: SignalKey) -> Verdict:
        if self._code is not None:
            return Verdict.DROPPED
        if self._signals is None:
            self._signals = Outbox(self.hub.limits.outbox_bytes)
        verdict = self._signals.push_signal(key, item)
        self._mark()
        return verdict

    def _mark(self) -> None:
        if not self._marked:
            self._marked = True
            self.hub.flusher.mark(self)

    def writable(self, lane: int) -> None:
        """Receiver: the peer has taken enough of the message lane."""
        if lane == Lane.MESSAGE and self._crowded:
            self._crowded = False
            self._flush_messages()

    def flush(self) -> None:
        """Write what waits on every lane, each until it is full."""
        super().flush()
        self._flush_messages()
        self._flush_signals()

    def _flush_messages(self) -> None:
        outbox = self._messages
        while outbox is not None and outbox.waiting and (not self._crowded or self._code is not None):
            items = outbox.take(SLICE)
            self.hub.metrics.written += len(items)
            data, self._seq = join_frames(items, self._seq, None)
            if not self.lanes.send_on(Lane.MESSAGE, data):
                self._crowded = True

    def _flush_signals(self) -> None:
        signals = self._signals
        if signals is None or not signals.waiting:
            return
        for item in signals.take(signals.waiting):
            data, self._seq = join_frames([item], self._seq, None)
            if self.lanes.send_datagram(data):
                self.hub.metrics.written += 1
            else:
                self.hub.metrics.discarded += 1

    # -- resumption ----------------------------------------------------------------------------------------

    def resume_ticket(self, session: Session) -> str:
        """Bind the TLS tickets of this connection to its session, so that the next may say something early."""
        return self.hub.bindings.bind(self.lanes.tickets(), session)

    def resumes(self, user_id: int, device_id: str, resume_ticket: str) -> bool:
        """Whether a login fits the session that the TLS ticket stood for; without one, any does."""
        binding = self._binding
        if binding is None:
            return True
        ticket = resume_ticket or binding.resume_ticket  # not presenting it claims nothing
        return (binding.user_id, binding.device_id) == (user_id, device_id) and compare_digest(
            ticket.encode(), binding.resume_ticket.encode()
        )

    async def run(self) -> None:
        """As Connection.run; whoever is turned out has no right left to speak early."""
        try:
            await super().run()
        finally:
            self.hub.metrics.early_dropped += self.asking
            if 4100 <= self.code < 4300:
                self.hub.bindings.forget(self.lanes.tickets())

    # -- the way out, and counting -------------------------------------------------------------------------

    @property
    def lane(self) -> int:
        """By which lane the frame came that is being handled."""
        return self._lane

    @property
    def frames(self) -> int:
        """Whole frames received on all lanes."""
        beside = (self._messages_in, self._datagrams)
        return self._control.frames + sum(each.frames for each in beside if each is not None)

    @property
    def queued(self) -> int:
        """Items that wait to be written, on all lanes."""
        beside = (self._messages, self._signals)
        return super().queued + sum(len(each) for each in beside if each is not None)

    def close(self, code: int, reason: str = "", *, told: bool = False) -> None:
        """End the connection, saying `code` on the control lane and in the transport's own words."""
        if self._code is not None:
            return
        super().close(code, reason, told=told)
        self.lanes.parting = code, reason
        self._control.close()
        if self._messages_in is not None:
            self._messages_in.close()
        self._early = None

    def _discard(self) -> None:
        super()._discard()
        for outbox in (self._messages, self._signals):
            if outbox is not None:
                self.hub.metrics.discarded += len(outbox)
                outbox.clear()

    def _forget_message_decoder(self) -> None:
        if self._messages_in is not None:
            self.hub.metrics.frames += self._messages_in.frames
            self._messages_in.close()
            self._messages_in = None


def _one_frame(data: bytes) -> bool:
    """A datagram holds exactly one frame, of a kind that may be lost."""
    if len(data) < HEADER or int.from_bytes(data[:4], "big") != len(data) - HEADER:
        return False
    return int.from_bytes(data[4:HEADER], "big") in IN_DATAGRAMS


def _type(item: Item) -> int:
    return int.from_bytes(item[4:HEADER], "big") if isinstance(item, bytes) else item.type
