"""Which stream is which lane (protocol section 4), for raw QUIC and for WebTransport alike. No QUIC packet, no frame.

Streams are told apart by their QUIC ids, whose second bit says the direction; WebTransport hands in the same ids with
its own header already taken off. What is refused, and how:

| what the peer does | answer |
|---|---|
| an unknown lane byte | the stream is refused with 4002 |
| a lane on a stream of the wrong direction | refused with 4003 |
| a stream that ends before its lane byte | refused with 4000 |
| a second control or message stream while the first is open, more ephemeral ones than may be | refused with 4304 |
| more than `REFUSALS` refused streams in a minute | the connection is closed with 4304 |
| control ends, is reset or stopped | the connection ends, with what waits for the peer flushed first |
"""

from __future__ import annotations

from typing import Final

import trio

from gateway.core.limits import ErrorBudget
from gateway.core.link import Lane, LanedReceiver, LinkClosed, OutgoingStream
from gateway.protocol.codes import Code
from gateway.transports.quic.ephemeral import HIGH, LOW, Ephemeral, Incoming, Outgoing, Streams

REFUSALS: Final = 60
"""Streams refused in a minute until the connection is closed: each costs two frames and a line of state."""
INCOMING: Final = 4
"""Ephemeral streams taken from one peer at a time. Their credit comes out of the connection's, and what they hold must
leave enough for control and messages: `quic.receive_window` is at least this many `quic.stream_window`, and two."""
OUTGOING: Final = 8
"""Ephemeral streams towards one peer that are open or not all acknowledged, however many it would allow: each may hold
`HIGH` bytes and a chunk."""


class LaneStreams:
    """All streams of one connection. Told by the transport what arrived; tells a Connection by lane."""

    __slots__ = ("_changed", "_ended", "_in", "_lanes", "_out", "_paused", "_receiver", "_refused", "_streams")

    def __init__(self, streams: Streams, receiver: LanedReceiver) -> None:
        self._streams = streams
        self._receiver = receiver
        self._in: dict[int, Incoming] = {}
        self._out: dict[int, Outgoing] = {}
        self._lanes: dict[int, _LaneStream] = {}
        """Control and message, by lane."""
        self._paused = False
        self._ended = False
        self._refused = ErrorBudget()
        self._changed: trio.Event | None = None

    # -- from the transport --------------------------------------------------------------------------------

    def received(self, stream_id: int, data: bytes, end: bool) -> None:
        """The next bytes of a stream, in order."""
        if self._ended:
            return
        stream = self._in.get(stream_id)
        if stream is None:
            stream = self._in[stream_id] = self._assigned(stream_id, data)
            data = data[1:]
        if data:
            stream.feed(data)
        if end:
            self._in.pop(stream_id, None)
            stream.end()

    def was_reset(self, stream_id: int, code: int) -> None:
        """The peer gave up sending on a stream."""
        stream = self._in.pop(stream_id, None)
        if stream is not None and not self._ended:
            stream.reset(code)

    def was_stopped(self, stream_id: int, code: int) -> None:
        """The peer takes no more on a stream; QUIC has dropped what waited there."""
        if self._ended:
            return
        outgoing = self._out.pop(stream_id, None)
        if outgoing is not None:
            outgoing.gone(f"the peer stopped the stream with {code}")
        for each in [*self._lanes.values()]:
            if each.stream_id == stream_id:
                each.stopped()

    def pumped(self) -> None:
        """What arrived has been told: see who has room again."""
        for each in [*self._lanes.values()]:
            if each.crowded and self._streams.unsent(each.stream_id) <= LOW:
                each.crowded = False
                self._receiver.writable(each.lane)
        for outgoing in [*self._out.values()]:
            outgoing.look()
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def end(self) -> None:
        """The connection is gone: whoever waits or takes a stream is told. Idempotent."""
        if self._ended:
            return
        self._ended = True
        incoming, self._in = self._in, {}
        for stream in incoming.values():
            stream.lost()
        for each in [*self._out.values()]:
            each.gone("the link is gone")
        self._lanes.clear()
        if self._changed is not None:
            self._changed.set()

    # -- for the Connection --------------------------------------------------------------------------------

    def send_on(self, lane: int, data: bytes) -> bool:
        """Queue bytes on a lane; False when it is full. Before the peer has opened the lane there is none: dropped."""
        stream = self._lanes.get(lane)
        if stream is None or not self._streams.send(stream.stream_id, data):
            return True
        if self._streams.unsent(stream.stream_id) > HIGH:
            stream.crowded = True
        return not stream.crowded

    def unsent_on(self, lane: int) -> int:
        """Bytes of a lane that the peer has not acknowledged."""
        stream = self._lanes.get(lane)
        return self._streams.unsent(stream.stream_id) if stream is not None else 0

    async def room(self, lane: int) -> None:
        """Wait until `send_on` may be called again.

        Raises:
            LinkClosed: the connection is gone.
        """
        await trio.lowlevel.checkpoint()
        while self.unsent_on(lane) > LOW:
            await self._change()
        if self._ended:
            raise LinkClosed("closed")

    async def drained(self) -> None:
        """Wait until the peer has acknowledged everything on both lanes, or is gone."""
        while self.unsent_on(Lane.CONTROL) or self.unsent_on(Lane.MESSAGE):
            await self._change()

    def pause(self) -> None:
        """No more credit for control and message; what was granted before may still come."""
        self._paused = True

    def resume(self) -> None:
        """Grant what was withheld, and go on."""
        if self._paused:
            self._paused = False
            for each in self._lanes.values():
                each.settle()

    def open_stream(self) -> OutgoingStream:
        """Open an ephemeral stream to the peer.

        Raises:
            LinkClosed: the link is gone, or no further stream may be opened now.
        """
        if self._ended:
            raise LinkClosed("closed")
        if len(self._out) >= OUTGOING:
            raise LinkClosed("too many streams are open")
        stream_id = self._streams.open_stream(True)
        if not self._streams.send(stream_id, bytes((Lane.EPHEMERAL,))):
            raise LinkClosed("closed")
        outgoing = self._out[stream_id] = Outgoing(self._streams, stream_id, self._out)
        return outgoing

    def statistics(self) -> dict[str, int]:
        """Streams that are kept, each way."""
        return {"incoming": len(self._in), "outgoing": len(self._out), "lanes": len(self._lanes)}

    async def _change(self) -> None:
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()

    # -- assignment ----------------------------------------------------------------------------------------

    def _assigned(self, stream_id: int, data: bytes) -> Incoming:
        unidirectional = bool(stream_id & 2)
        if not data:
            return self._refuse(stream_id, Code.MALFORMED_FRAME)
        lane = data[0]
        if lane not in (Lane.CONTROL, Lane.MESSAGE, Lane.EPHEMERAL):
            return self._refuse(stream_id, Code.UNKNOWN_TYPE)
        if unidirectional is not (lane == Lane.EPHEMERAL):
            return self._refuse(stream_id, Code.TYPE_MISMATCH)
        self._streams.manual(stream_id)
        self._streams.grant(stream_id, 1)
        if lane == Lane.EPHEMERAL:
            return self._ephemeral(stream_id) or self._refuse(stream_id, Code.TOO_MANY_STREAMS)
        if lane in self._lanes:
            return self._refuse(stream_id, Code.TOO_MANY_STREAMS)
        stream = self._lanes[lane] = _LaneStream(self, stream_id, lane)
        if lane == Lane.MESSAGE:
            self._receiver.lane_opened(lane)
        return stream

    def _ephemeral(self, stream_id: int) -> Incoming | None:
        if sum(isinstance(each, Ephemeral) and each.sink is not None for each in self._in.values()) >= INCOMING:
            return None
        stream = Ephemeral(self._streams, stream_id)
        stream.sink = self._receiver.incoming(stream)
        return stream if stream.sink is not None else None

    def _refuse(self, stream_id: int, code: Code) -> Incoming:
        self._streams.stop(stream_id, code)
        if not stream_id & 2:
            self._streams.reset(stream_id, code)
        if not self._refused.spend(trio.current_time(), REFUSALS):
            self._receiver.close(Code.TOO_MANY_STREAMS, "too many streams were refused")
        return Incoming()

    def _taken(self, stream: _LaneStream, data: bytes) -> None:
        self._receiver.feed(stream.lane, data)
        stream.owed += len(data)
        if not self._paused:
            stream.settle()

    def _closed(self, stream: _LaneStream, *, stopped: bool = False) -> None:
        """Control ends the connection; the message lane alone may come and go."""
        if self._lanes.get(stream.lane) is not stream:
            return
        if stream.lane == Lane.CONTROL:
            if stopped:
                del self._lanes[stream.lane]
            self._receiver.close(Code.OK, "closed by the peer")
            return
        del self._lanes[stream.lane]
        stream.settle()  # also while paused: it can send no more
        self._streams.send(stream.stream_id, b"", True)
        self._receiver.lane_closed(stream.lane)


class _LaneStream(Incoming):
    """The stream of control or of messages: both directions."""

    __slots__ = ("_all", "crowded", "lane", "owed", "stream_id")

    def __init__(self, streams: LaneStreams, stream_id: int, lane: int) -> None:
        self._all = streams
        self.stream_id = stream_id
        self.lane = lane
        self.owed = 0
        """Bytes fed and not granted yet."""
        self.crowded = False

    def settle(self) -> None:
        """Grant what is owed."""
        owed, self.owed = self.owed, 0
        if owed:
            self._all._streams.grant(self.stream_id, owed)

    def feed(self, data: bytes) -> None:
        self._all._taken(self, data)

    def end(self) -> None:
        self._all._closed(self)

    def reset(self, code: int) -> None:
        self._all._closed(self)

    def stopped(self) -> None:
        """The peer reads no more here, and what waited for it is gone."""
        if self.lane == Lane.MESSAGE:
            self._all._streams.stop(self.stream_id, Code.OK)
            self._all._in[self.stream_id] = Incoming()
        self._all._closed(self, stopped=True)
