"""What a link is whose lanes are streams of one QUIC connection: the same for raw QUIC and for WebTransport."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

from gateway.core.link import Lane, LanedReceiver, LinkClosed, OutgoingStream, Receiver
from gateway.protocol.codes import Code
from gateway.transports.quic.streams import LaneStreams

LAST_BYTES: Final = 1.0
"""Seconds that a goodbye waits for the peer to acknowledge what was sent before; then it is said all the same."""


class LaneLink:
    """The part of a `LanedLink` that asks its `LaneStreams`, once there are any. How it comes up, and how it parts, its
    subclasses say."""

    __slots__ = ("__weakref__", "_lost", "_receiver", "_streams", "address", "parting")

    prefix: Callable[[int], bytes] | None = None
    lanes = True

    def __init__(self, address: str) -> None:
        self.address = address
        self.parting: tuple[int, str] = (Code.GOING_AWAY, "")
        """What `abort` says to the peer, if nothing was said before."""
        self._receiver: LanedReceiver | None = None
        self._streams: LaneStreams | None = None
        self._lost = ""
        """Why the link is of no more use; empty while it is."""

    def attach(self, receiver: Receiver) -> None:
        """Say who is told: a `LanedReceiver`, as whoever serves a link with `lanes` knows."""
        self._receiver = cast(LanedReceiver, receiver)

    def send(self, data: bytes) -> bool:
        """Queue bytes on the control lane."""
        return self.send_on(Lane.CONTROL, data)

    @property
    def unsent(self) -> int:
        """Bytes of the control lane that the peer has not acknowledged."""
        return self.unsent_on(Lane.CONTROL)

    async def flush(self) -> None:
        """Wait until the control lane has room again.

        Raises:
            LinkClosed: it never will.
        """
        if self._streams is None:
            raise LinkClosed(self._lost or "closed")
        await self._streams.room(Lane.CONTROL)

    def pause(self) -> None:
        """Grant nothing more on control and message."""
        if self._streams is not None:
            self._streams.pause()

    def resume(self) -> None:
        """Grant again."""
        if self._streams is not None:
            self._streams.resume()

    def send_on(self, lane: int, data: bytes) -> bool:
        """Queue bytes on a lane; False when it takes no more until `writable`."""
        return self._streams is None or self._streams.send_on(lane, data)

    def unsent_on(self, lane: int) -> int:
        """Bytes of a lane that the peer has not acknowledged."""
        return self._streams.unsent_on(lane) if self._streams is not None else 0

    def open_stream(self) -> OutgoingStream:
        """Open an ephemeral stream to the peer.

        Raises:
            LinkClosed: the link is gone, or no further stream may be opened now.
        """
        if self._streams is None:
            raise LinkClosed(self._lost or "closed")
        return self._streams.open_stream()
