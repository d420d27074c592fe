"""One stream of a connection that carries a file, either way; and what streams stand on. No lane is assigned here."""

from __future__ import annotations

from typing import Final, Protocol

import trio

from gateway.core.link import LinkClosed, StreamSink
from gateway.protocol.codes import Code

HIGH: Final = 262_144
"""Bytes of a stream that the peer has not acknowledged, from which on it takes no more: 100 ms at 20 Mbit/s."""
LOW: Final = 65_536
"""Bytes at which it takes more again: enough that the wire does not run dry meanwhile."""


class Streams(Protocol):
    """What the lanes stand on: a `QuicPeer`, or one session of WebTransport. Nothing of it raises but `open_stream`."""

    def send(self, stream_id: int, data: bytes, fin: bool = False) -> bool:
        """Queue bytes; False when the peer stopped the stream or it is gone."""

    def reset(self, stream_id: int, code: int) -> None:
        """Give up sending on it."""

    def stop(self, stream_id: int, code: int) -> None:
        """Ask the peer to send no more on it."""

    def manual(self, stream_id: int) -> None:
        """From now on the peer gets credit on it by `grant` alone."""

    def grant(self, stream_id: int, count: int) -> None:
        """So many bytes were consumed."""

    def unsent(self, stream_id: int) -> int:
        """Bytes queued and not acknowledged; 0 for a stream that is gone."""

    def open_stream(self, unidirectional: bool) -> int:
        """The id of a new stream.

        Raises:
            LinkClosed: the peer allows none now, or the connection is gone.
        """


class Incoming:
    """What the peer sends on one stream; by itself, one that was refused: whatever still comes is dropped."""

    __slots__ = ()

    def feed(self, data: bytes) -> None:
        """The next bytes."""

    def end(self) -> None:
        """There are no more."""

    def reset(self, code: int) -> None:
        """The peer gave up."""

    def lost(self) -> None:
        """The connection is gone."""


class Ephemeral(Incoming):
    """A stream that a sink takes; an `IncomingStream`."""

    __slots__ = ("_stream_id", "_streams", "sink")

    def __init__(self, streams: Streams, stream_id: int) -> None:
        self._streams = streams
        self._stream_id = stream_id
        self.sink: StreamSink | None = None

    def grant(self, count: int) -> None:
        """So many bytes were dealt with; also behind the end, until all of them were: they count as held till then."""
        self._streams.grant(self._stream_id, count)

    def stop(self, code: int) -> None:
        """Read no more of it."""
        if self.sink is not None:
            self.sink = None
            self._streams.stop(self._stream_id, code)

    def feed(self, data: bytes) -> None:
        if self.sink is not None:
            self.sink.feed(data)

    def end(self) -> None:
        sink, self.sink = self.sink, None
        if sink is not None:
            sink.end()

    def reset(self, code: int) -> None:
        sink, self.sink = self.sink, None
        if sink is not None:
            sink.reset(code)

    def lost(self) -> None:
        self.reset(Code.OK)


class Outgoing:
    """An ephemeral stream towards the peer: an `OutgoingStream`, whose `send` waits for room."""

    __slots__ = ("_among", "_gone", "_room", "_stream_id", "_streams")

    def __init__(self, streams: Streams, stream_id: int, among: dict[int, Outgoing]) -> None:
        self._streams = streams
        self._stream_id = stream_id
        self._among = among
        self._gone = ""
        self._room: trio.Event | None = None

    async def send(self, data: bytes) -> None:
        """Hand over bytes and wait until there is room for more.

        Raises:
            LinkClosed: the link is gone, or the peer stopped this stream.
        """
        await trio.lowlevel.checkpoint()
        if not self._gone and not self._streams.send(self._stream_id, data):
            self.gone("the stream is gone")
        while not self._gone and self._streams.unsent(self._stream_id) > HIGH:
            self._room = trio.Event()
            await self._room.wait()
        if self._gone:
            raise LinkClosed(self._gone)

    def finish(self) -> None:
        """That was all of it."""
        if not self._gone:
            self._streams.send(self._stream_id, b"", True)
            self._gone = "finished"  # it counts among the open ones until the peer has all of it

    def reset(self, code: int) -> None:
        """Give up; idempotent."""
        if not self._gone:
            self._streams.reset(self._stream_id, code)
            self.gone("reset")

    def look(self) -> None:
        """Let `send` go on when there is room, and forget what is finished when the peer has all of it."""
        if self._room is not None and self._streams.unsent(self._stream_id) <= LOW:
            self._room.set()
            self._room = None
        elif self._gone and not self._streams.unsent(self._stream_id):
            self._among.pop(self._stream_id, None)

    def gone(self, reason: str) -> None:
        """Nothing can be sent any more."""
        self._gone = reason
        self._among.pop(self._stream_id, None)
        if self._room is not None:
            self._room.set()
            self._room = None
