"""A QUIC connection and a Connection above it that only remember: links are tested between the two."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, cast

import trio

from gateway.core.link import IncomingStream, LinkClosed, StreamSink
from gateway.transports.quic.peer import QuicPeer


class FakePeer:
    """What `QuicPeer` promises, in memory. What is sent stays unacknowledged until `take`."""

    def __init__(self) -> None:
        self.address = "192.0.2.7"
        self.ticket = ""
        self.max_datagram = 1200
        self.sent: dict[int, bytes] = defaultdict(bytes)
        self.finished: set[int] = set()
        self.resets: dict[int, int] = {}
        self.stops: dict[int, int] = {}
        self.granted: dict[int, int] = {}
        """By manual stream."""
        self.waiting: dict[int, int] = defaultdict(int)
        """Bytes of each stream that are not acknowledged."""
        self.datagrams: list[bytes] = []
        self.closed: tuple[int, str] | None = None
        self.gone = trio.Event()
        self.opened = 0
        self.allowed = 100

    def real(self) -> QuicPeer:
        return cast(QuicPeer, self)

    def tickets(self) -> tuple[str, ...]:
        return ("one",)

    def send(self, stream_id: int, data: bytes, fin: bool = False) -> bool:
        if self.closed or stream_id in self.resets or stream_id in self.finished:
            return False
        self.sent[stream_id] += data
        self.waiting[stream_id] += len(data)
        if fin:
            self.finished.add(stream_id)
        return True

    def take(self, stream_id: int) -> None:
        """The peer acknowledges all of a stream."""
        self.waiting[stream_id] = 0

    def unsent(self, stream_id: int) -> int:
        return self.waiting[stream_id]

    def reset(self, stream_id: int, code: int) -> None:
        self.resets.setdefault(stream_id, code)

    def stop(self, stream_id: int, code: int) -> None:
        self.stops.setdefault(stream_id, code)

    def manual(self, stream_id: int) -> None:
        self.granted.setdefault(stream_id, 0)

    def grant(self, stream_id: int, count: int) -> None:
        self.granted[stream_id] += count

    def open_stream(self, unidirectional: bool) -> int:
        if self.opened >= self.allowed:
            raise LinkClosed("the peer allows no further stream")
        self.opened += 1
        return self.opened * 4 - 1 if unidirectional else self.opened * 4 - 3

    def send_datagram(self, data: bytes) -> bool:
        self.datagrams.append(data)
        return True

    def close(self, code: int, reason: str = "") -> None:
        if self.closed is None:
            self.closed = code, reason
            self.gone.set()

    async def wait_closed(self) -> None:
        await self.gone.wait()


@dataclass
class Sink:
    """Takes an ephemeral stream."""

    stream: IncomingStream
    heard: bytes = b""
    end_of: list[str | int] = field(default_factory=list)

    def feed(self, data: bytes) -> None:
        self.heard += data

    def end(self) -> None:
        self.end_of.append("end")

    def reset(self, code: int) -> None:
        self.end_of.append(code)


class Ear:
    """A LanedReceiver that remembers everything in order."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.heard: dict[int, bytes] = defaultdict(bytes)
        self.sinks: list[Sink] = []
        self.takes_files = True

    def feed(self, lane: int, data: bytes) -> None:
        self.heard[lane] += data
        self.told.append(("feed", lane, data))

    def close(self, code: int, reason: str = "") -> None:
        self.told.append(("close", code))

    def lost(self, reason: str = "") -> None:
        self.told.append(("lost", reason))

    def lane_opened(self, lane: int) -> None:
        self.told.append(("opened", lane))

    def lane_closed(self, lane: int) -> None:
        self.told.append(("closed", lane))

    def writable(self, lane: int) -> None:
        self.told.append(("writable", lane))

    def datagram(self, data: bytes) -> None:
        self.told.append(("datagram", data))

    def confirmed(self) -> None:
        self.told.append("confirmed")

    def incoming(self, stream: IncomingStream) -> StreamSink | None:
        if not self.takes_files:
            return None
        self.sinks.append(Sink(stream))
        return self.sinks[-1]
