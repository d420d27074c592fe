"""The seam between a Connection and a transport. No transport and no message lives here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeGuard

from gateway.protocol.types import Lane as Lane  # noqa: PLC0414 (part of this seam)


class LinkClosed(Exception):
    """The peer or the network ended the link; nobody's fault, never logged as an error."""


class Receiver(Protocol):
    """What a Link tells: a Connection. All three are synchronous and never raise."""

    def feed(self, lane: int, data: bytes) -> None:
        """Bytes of the frame stream arrived on `lane` (0 where a transport has one lane)."""

    def close(self, code: int, reason: str = "") -> None:
        """The peer broke the transport's rules: end, saying `code` (1002 and the like, or of our table)."""

    def lost(self, reason: str = "") -> None:
        """End of file or a socket error. The link is of no more use; called at most once."""


class Link(Protocol):
    """A byte pipe to one peer. Knows bytes and close codes, never messages.

    Life: constructed from an accepted socket; `attach`; `open` (awaited by the reader task, under the
    Connection's deadline); bytes pushed to the receiver; `send` and `flush`; `say_goodbye`; `abort`.
    """

    transport: str
    """`tcp`, `websocket`, `quic` or `webtransport`."""
    address: str
    """The peer's IP address as text, without port; behind a trusted proxy the client's."""

    prefix: Callable[[int], bytes] | None
    """Gives what the transport writes in front of so many bytes of frames (a WebSocket header); None: nothing."""

    def attach(self, receiver: Receiver) -> None:
        """Say who is told. Before this nothing is read."""

    async def open(self) -> None:
        """Bring the link up (TLS, upgrade); returns when frames may flow both ways.

        Raises:
            LinkClosed: the peer went away or was refused in the transport's own words.
        """

    def send(self, data: bytes) -> bool:
        """Hand over bytes that `prefix` is already part of; never waits.

        Returns True when the socket took all of it. On False the link keeps the rest and the caller must
        not send again before `flush` has returned. A dead socket is not an error here: `lost` tells.
        """

    @property
    def unsent(self) -> int:
        """Bytes the link keeps because the socket would not take them."""

    async def flush(self) -> None:
        """Wait until the socket has taken everything.

        Raises:
            LinkClosed: it never will.
        """

    def pause(self) -> None:
        """Stop reading from the peer; idempotent."""

    def resume(self) -> None:
        """Read again; idempotent."""

    async def say_goodbye(self, code: int, reason: str) -> None:
        """Tell the peer why, in the transport's words (a close frame, close_notify, FIN), and wait for its
        answer where the transport has one. The caller holds a deadline. Never raises LinkClosed."""

    def abort(self) -> None:
        """Free the descriptor at once; idempotent. Nothing is told to the receiver afterwards."""


class IncomingStream(Protocol):
    """An ephemeral stream that the peer sends, without its lane byte."""

    def grant(self, count: int) -> None:
        """So many bytes were dealt with: as many more may come. Nothing is granted by itself."""

    def stop(self, code: int) -> None:
        """Read no more of it (STOP_SENDING); the sink hears nothing further. Idempotent."""


class StreamSink(Protocol):
    """Who takes an ephemeral stream. All three are synchronous and never raise."""

    def feed(self, data: bytes) -> None:
        """The next bytes, in order."""

    def end(self) -> None:
        """The peer sent all of it."""

    def reset(self, code: int) -> None:
        """The peer gave up, or the link is gone: nothing more comes."""


class OutgoingStream(Protocol):
    """An ephemeral stream towards the peer; its lane byte is sent already."""

    async def send(self, data: bytes) -> None:
        """Hand over bytes and wait until there is room for more.

        Raises:
            LinkClosed: the link is gone, or the peer stopped this stream.
        """

    def finish(self) -> None:
        """That was all of it (FIN)."""

    def reset(self, code: int) -> None:
        """Give up; idempotent."""


class LanedReceiver(Receiver, Protocol):
    """What a link with lanes tells beside. Synchronous; never raises."""

    def lane_opened(self, lane: int) -> None:
        """The peer opened its message lane: what belongs there goes there from now on."""

    def lane_closed(self, lane: int) -> None:
        """The message lane has ended; what belongs there goes by control again. (The end of control is `lost`.)"""

    def writable(self, lane: int) -> None:
        """After a `send_on` that returned False: there is room again."""

    def datagram(self, data: bytes) -> None:
        """One datagram: exactly one frame, or it is dropped."""

    def confirmed(self) -> None:
        """The handshake is complete: nothing that comes from now on can be a replay. Called at most once,
        after whatever came early was fed; not called when nothing came early."""

    def incoming(self, stream: IncomingStream) -> StreamSink | None:
        """The peer opened an ephemeral stream; None refuses it with 4304."""


class LanedLink(Link, Protocol):
    """A link of several streams: QUIC and WebTransport. `send`, `unsent` and `flush` mean the control lane.

    It is told apart by `lanes`. `feed(lane, data)` names the lane. `pause` and `resume` concern both lanes.
    """

    lanes: bool
    """True."""
    early: bool
    """True until the handshake completes: what is fed may be replayed 0-RTT data."""
    ticket: str
    """Names the TLS ticket by which the peer resumed, so that a session can be bound to it; empty without one."""
    parting: tuple[int, str]
    """Code and reason for which the Connection is being closed: what `abort` tells the peer where `say_goodbye` was not
    reached in time, because the peer reads nothing."""

    @property
    def max_datagram(self) -> int:
        """The longest frame that travels as a datagram now, in bytes; 0: none does."""

    def tickets(self) -> tuple[str, ...]:
        """Names of the TLS tickets issued on this connection so far: a later connection's `ticket` is one of them."""

    def send_on(self, lane: int, data: bytes) -> bool:
        """As `send`; after False the caller sends no more on this lane until `writable`."""

    def unsent_on(self, lane: int) -> int:
        """Bytes of this lane that the peer has not taken yet."""

    def send_datagram(self, frame: bytes) -> bool:
        """Hand over one frame as a datagram; False when it was dropped or is too long. It may still be lost."""

    def open_stream(self) -> OutgoingStream:
        """Open an ephemeral stream to the peer.

        Raises:
            LinkClosed: the link is gone, or the peer allows no further stream now.
        """


def has_lanes(link: Link) -> TypeGuard[LanedLink]:
    """Whether a link is one with lanes: it says so by `lanes`."""
    return getattr(link, "lanes", False)
