"""The lanes of a QUIC or WebTransport link: which stream is which, what waits to be taken, and how much may be sent.

What arrives waits here until it is taken, and only what was taken is granted anew: a server cannot fill our memory
beyond one window. Knows streams and bytes, no frame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
import trio
from aioquic.quic.events import DatagramFrameReceived, QuicEvent, StopSendingReceived, StreamDataReceived, StreamReset

from gateway.client.bell import Bell
from gateway.client.quic_pump import Pump
from gateway.client.transport import StreamRefused, TransportFailed
from gateway.protocol.codes import Code
from gateway.protocol.types import Lane

HIGH: Final = 131_072
"""Bytes of one lane or stream that may be under way before its sender waits."""
DATAGRAMS: Final = 256
"""Datagrams that wait to be taken; what comes beyond is dropped, as any may be."""
WAITING: Final = 16
"""Ephemeral streams that wait to be accepted. Short ones are over before they are, so QUIC's limit is none."""


def same(code: int) -> int:
    """QUIC carries our codes as they are."""
    return code


class Framing(msgspec.Struct, frozen=True):
    """What a carrier puts in front of our streams and datagrams, and how it writes codes of streams. QUIC: nothing."""

    bidirectional: bytes = b""
    unidirectional: bytes = b""
    datagram: bytes = b""
    to_wire: Callable[[int], int] = same
    from_wire: Callable[[int], int] = same


class Lanes:
    """Both lanes, ephemeral streams and datagrams of one link."""

    def __init__(self, pump: Pump, framing: Framing) -> None:
        self.framing = framing
        """Set before anything is opened."""
        self._pump = pump
        self._engine = pump.engine
        self._ids: dict[int, int] = {}
        """Our stream for each lane."""
        self._lane_of: dict[int, int] = {}
        self._inbox: deque[tuple[int, int, bytes]] = deque()
        self._datagrams = 0
        self._arrived = Bell()
        self._incoming: dict[int, Incoming] = {}
        self._to_accept: deque[Incoming] = deque()
        self._outgoing: dict[int, Outgoing] = {}

    # -- what the pump tells -------------------------------------------------------------------------------

    def handle(self, event: QuicEvent) -> None:
        """One event of a stream or a datagram of ours."""
        if isinstance(event, StreamDataReceived):
            self.received(event.stream_id, event.data, event.end_stream)
        elif isinstance(event, DatagramFrameReceived):
            self.datagram(event.data)
        elif isinstance(event, StreamReset):
            self.was_reset(event.stream_id, self.framing.from_wire(event.error_code))
        elif isinstance(event, StopSendingReceived):
            self.was_stopped(event.stream_id, self.framing.from_wire(event.error_code))

    def received(self, stream_id: int, data: bytes, ended: bool) -> None:
        """Bytes of one stream, in order, without what the carrier puts in front."""
        lane = self._lane_of.get(stream_id)
        if lane is not None:
            if data:
                self._inbox.append((lane, stream_id, data))
                self._arrived.ring()
            if ended:
                self._broken("the server closed a lane")
            return
        stream = self._incoming.get(stream_id) or self._begun(stream_id)
        stream.received(data, ended)

    def datagram(self, data: bytes) -> None:
        """One datagram, without what the carrier puts in front."""
        if self._datagrams < DATAGRAMS:
            self._datagrams += 1
            self._inbox.append((Lane.EPHEMERAL, -1, data))
            self._arrived.ring()

    def was_reset(self, stream_id: int, code: int) -> None:
        """The server gave up sending on it."""
        if stream_id in self._lane_of:
            self._broken("the server reset a lane")
        elif (stream := self._incoming.get(stream_id)) is not None:
            stream.was_reset(code)

    def was_stopped(self, stream_id: int, code: int) -> None:
        """The server reads no more of it."""
        if stream_id in self._lane_of:
            self._broken("the server stopped a lane")
        elif (stream := self._outgoing.get(stream_id)) is not None:
            stream.was_stopped(code)

    def ended(self) -> None:
        """The link is over: whoever waits looks up."""
        self._arrived.ring()
        for stream in tuple(self._incoming.values()):
            stream.lost()

    def _broken(self, reason: str) -> None:
        if self._pump.engine.over is None:  # else the reason is in the close that came with it
            self._pump.end(TransportFailed(reason))

    def _begun(self, stream_id: int) -> Incoming:
        self._engine.credit.take_over(stream_id)
        stream = self._incoming[stream_id] = Incoming(self, stream_id)
        return stream

    # -- opening -------------------------------------------------------------------------------------------

    @property
    def opened(self) -> bool:
        """Whether the lanes are open."""
        return bool(self._ids)

    def open(self) -> None:
        """Open control and message lane: the first streams of the link."""
        for lane in (Lane.CONTROL, Lane.MESSAGE):
            stream_id = self._engine.get_next_available_stream_id()
            self._ids[lane] = stream_id
            self._lane_of[stream_id] = lane
            self._engine.send_stream_data(stream_id, self.framing.bidirectional + bytes((lane,)))
            self._engine.credit.take_over(stream_id)
        self._pump.touch()

    def write(self, lane: int, data: bytes) -> None:
        """Queue bytes without waiting: what goes out early.

        Raises:
            TransportFailed: the link is gone.
        """
        self.send_stream(self._ids[lane], data)

    # -- a LanedTransport's ----------------------------------------------------------------------------------

    async def send_on(self, lane: int, data: bytes) -> None:
        """Send on a lane; waits while too much of it is under way."""
        await trio.lowlevel.checkpoint()
        stream_id = self._ids[lane]
        self.send_stream(stream_id, data)
        await self.room(stream_id)

    async def receive_from(self) -> tuple[int, bytes]:
        """The next bytes of a lane, or a datagram."""
        await trio.lowlevel.checkpoint()
        while not self._inbox:
            self.check()
            await self._arrived.wait()
        lane, stream_id, data = self._inbox.popleft()
        if stream_id < 0:
            self._datagrams -= 1
        else:
            self.taken(stream_id, len(data))
        return lane, data

    def unacknowledged(self, lane: int) -> int:
        """Bytes of a lane that the server's transport has not confirmed."""
        return self._engine.unacknowledged(self._ids[lane]) if lane in self._ids else 0

    @property
    def max_datagram(self) -> int:
        """The longest frame that travels as a datagram."""
        return max(0, self._engine.datagram_room - len(self.framing.datagram))

    def send_datagram(self, frame: bytes) -> bool:
        """Queue one datagram."""
        if self._pump.failure is not None or not self._engine.offer_datagram(self.framing.datagram + frame):
            return False
        self._pump.touch()
        return True

    def open_stream(self) -> Outgoing:
        """A new ephemeral stream."""
        self.check()
        if not self._engine.may_open():
            raise StreamRefused("the server allows no further stream now", code=Code.TOO_MANY_STREAMS)
        stream_id = self._engine.get_next_available_stream_id(is_unidirectional=True)
        self._engine.send_stream_data(stream_id, self.framing.unidirectional + bytes((Lane.EPHEMERAL,)))
        stream = self._outgoing[stream_id] = Outgoing(self, stream_id)
        self._pump.touch()
        return stream

    async def accept_stream(self) -> Incoming:
        """The next ephemeral stream that the server opened."""
        await trio.lowlevel.checkpoint()
        while not self._to_accept:
            self.check()
            await self._arrived.wait()
        return self._to_accept.popleft()

    async def drained(self) -> None:
        """Wait until the server has confirmed whatever was written and finished, or the link is gone."""
        while self._pump.failure is None and self._unconfirmed():
            await self._pump.changed.wait()

    def _unconfirmed(self) -> bool:
        lanes: Iterable[int] = self._ids.values()
        return any(map(self._engine.unacknowledged, lanes)) or any(
            stream.finishing and not self._engine.finished(stream_id) for stream_id, stream in self._outgoing.items()
        )

    # -- for the streams -----------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises what ended the link, if anything did."""
        if self._pump.failure is not None:
            raise self._pump.failure.again()

    def send_stream(self, stream_id: int, data: bytes, *, end: bool = False) -> None:
        """Queue bytes of a stream, or its end.

        Raises:
            TransportFailed: the link is gone.
            StreamRefused: this stream takes no more.
        """
        self.check()
        try:
            self._engine.send_stream_data(stream_id, data, end)
        except (RuntimeError, ValueError) as error:  # stopped by the server a moment ago
            raise StreamRefused(str(error)) from None
        self._pump.touch()

    async def room(self, stream_id: int) -> None:
        """Wait until not too much of a stream is under way."""
        while self._engine.unacknowledged(stream_id) > HIGH:
            await self.turn()

    async def turn(self) -> None:
        """Wait until something has come or gone. Raises TransportFailed."""
        self.check()
        await self._pump.changed.wait()
        self.check()

    def taken(self, stream_id: int, count: int) -> None:
        """So many bytes left for the program: as many may follow."""
        if self._engine.grant(stream_id, count):
            self._pump.touch()

    def offered(self, stream: Incoming) -> None:
        """It is one of ours: somebody may accept it. Nobody does so for long: it is refused."""
        if len(self._to_accept) >= WAITING:
            stream.stop(Code.TOO_MANY_STREAMS)
            return
        self._to_accept.append(stream)
        self._arrived.ring()

    def stop(self, stream_id: int, code: int) -> None:
        """Tell the server to send no more of a stream."""
        if self._pump.failure is None:
            self._engine.abandon_reading(stream_id, self.framing.to_wire(code))
            self._pump.touch()

    def reset(self, stream_id: int, code: int) -> None:
        """Tell the server that there will be no more of a stream."""
        if self._pump.failure is None:
            self._engine.abandon_sending(stream_id, self.framing.to_wire(code))
            self._pump.touch()

    def finished(self, stream_id: int) -> bool:
        """Whether the server has confirmed all of a stream."""
        return self._engine.finished(stream_id)

    def forget(self, stream_id: int) -> None:
        """A stream is over for us, one way or the other."""
        self._incoming.pop(stream_id, None)
        self._outgoing.pop(stream_id, None)


class Outgoing:
    """An ephemeral stream of ours: an `OutgoingStream`."""

    def __init__(self, lanes: Lanes, stream_id: int) -> None:
        self._lanes = lanes
        self._stream_id = stream_id
        self._refused: StreamRefused | None = None
        self.finishing = False

    async def send_all(self, data: bytes) -> None:
        """Hand over bytes and wait for room."""
        await trio.lowlevel.checkpoint()
        self._check()
        self._lanes.send_stream(self._stream_id, data)
        await self._lanes.room(self._stream_id)
        self._check()

    async def finish(self) -> None:
        """End it and wait until the server's transport has all of it."""
        await trio.lowlevel.checkpoint()
        self._check()
        if not self.finishing:
            self._lanes.send_stream(self._stream_id, b"", end=True)
            self.finishing = True
        while not self._lanes.finished(self._stream_id):
            await self._lanes.turn()
            self._check()
        self._check()
        self._lanes.forget(self._stream_id)

    def reset(self, code: int) -> None:
        """Give up."""
        if self._refused is None and not self.finishing:
            self._refused = StreamRefused("given up by us", code=code)
            self._lanes.reset(self._stream_id, code)
            self._lanes.forget(self._stream_id)

    def was_stopped(self, code: int) -> None:
        """The server wants no more."""
        self._refused = self._refused or StreamRefused("the server stopped the stream", code=code)
        self._lanes.forget(self._stream_id)

    def _check(self) -> None:
        if self._refused is not None:
            raise StreamRefused(str(self._refused), code=self._refused.code)


class Incoming:
    """An ephemeral stream of the server: an `IncomingStream`. It is offered once its lane byte has come."""

    def __init__(self, lanes: Lanes, stream_id: int) -> None:
        self._lanes = lanes
        self._stream_id = stream_id
        self._parts: deque[bytes] = deque()
        self._offered = False
        self._stopped = False
        self._ended = False
        self._refused: StreamRefused | None = None
        self._more = Bell()

    async def receive_some(self) -> bytes:
        """The next bytes."""
        await trio.lowlevel.checkpoint()
        while not self._parts:
            if self._refused is not None:
                raise StreamRefused(str(self._refused), code=self._refused.code)
            if self._ended or self._stopped:
                return b""
            self._lanes.check()
            await self._more.wait()
        part = self._parts.popleft()
        self._lanes.taken(self._stream_id, len(part))
        return part

    def stop(self, code: int) -> None:
        """Read no more of it."""
        if not self._stopped:
            self._stopped = True
            waiting = sum(map(len, self._parts))
            self._parts.clear()
            self._lanes.taken(self._stream_id, waiting)
            if not self._ended and self._refused is None:
                self._lanes.stop(self._stream_id, code)
            else:
                self._lanes.forget(self._stream_id)
            self._more.ring()

    def received(self, data: bytes, ended: bool) -> None:
        """The next bytes from the server."""
        if not self._offered and data:
            self._offered = True
            self._lanes.taken(self._stream_id, 1)
            if data[0] != Lane.EPHEMERAL:
                self.stop(Code.UNKNOWN_TYPE)
            else:
                self._lanes.offered(self)
            data = data[1:]
        if self._stopped:
            self._lanes.taken(self._stream_id, len(data))
        elif data:
            self._parts.append(data)
        if ended:
            self._ended = True
            self._lanes.forget(self._stream_id)
        self._more.ring()

    def was_reset(self, code: int) -> None:
        """The server gave up."""
        self._refused = StreamRefused("the server gave up the stream", code=code)
        self._parts.clear()
        self._lanes.forget(self._stream_id)
        self._more.ring()

    def lost(self) -> None:
        """The link is gone."""
        self._more.ring()
