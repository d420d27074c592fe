"""The seam between a Connection and a transport. No transport and no message lives here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


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
