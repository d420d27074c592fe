"""The seam between the client and a way to reach the server, and the plain ones: TCP, with and without TLS.

A transport carries the stream of frames and knows nothing of them; one with lanes (QUIC, WebTransport) carries
several, and datagrams beside. Another way to reach a server is another module with one opening function, and a
line in `dial`.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

import trio

from gateway.client.endpoint import Endpoint
from gateway.client.trust import Trust, Untrusted

RECEIVE_BYTES = 65_536
TLS_ALERT = b"\x15\x03"
"""How a TLS server answers plain text: the type and version of a record. As the length of a frame it is absurd."""


class TransportFailed(Exception):
    """The link could not be brought up, or broke.

    `code` is the close code where the transport told one; `final` says that trying again is of no use
    (an HTTP 403, say).
    """

    def __init__(self, message: str, *, code: int = 0, final: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.final = final

    def again(self) -> TransportFailed:
        """The same for another task: each raises one of its own."""
        return TransportFailed(str(self), code=self.code, final=self.final)


class Transport(Protocol):
    """An open link. One task sends, one receives."""

    async def send_all(self, data: bytes) -> None:
        """Raises TransportFailed."""

    async def receive_some(self) -> bytes:
        """Some bytes, or nothing at the end.

        Raises:
            TransportFailed: with the close code if the peer told one.
        """

    async def aclose(self) -> None:
        """Say goodbye in the transport's words and free it; raises nothing but trio.Cancelled, and then it is freed."""


class StreamRefused(Exception):
    """The other side wants no more of one stream (or gives no more); the link and its other streams go on."""

    def __init__(self, message: str, *, code: int = 0) -> None:
        super().__init__(message)
        self.code = code
        """Of the protocol's table, as far as the other side told one."""


class OutgoingStream(Protocol):
    """An ephemeral stream of ours; its lane byte is written already. One task sends."""

    async def send_all(self, data: bytes) -> None:
        """Hand over bytes and wait until there is room for more.

        Raises:
            StreamRefused: the server stopped this stream.
            TransportFailed: the link is gone.
        """

    async def finish(self) -> None:
        """That was all; returns when the server's transport has received everything.

        Raises:
            StreamRefused, TransportFailed: as `send_all`.
        """

    def reset(self, code: int) -> None:
        """Give up; idempotent, and nothing after `finish`."""


class IncomingStream(Protocol):
    """An ephemeral stream of the server, without its lane byte. One task receives."""

    async def receive_some(self) -> bytes:
        """The next bytes in order, nothing at the end. As many more may come as were taken here.

        Raises:
            StreamRefused: the server gave up.
            TransportFailed: the link is gone.
        """

    def stop(self, code: int) -> None:
        """Read no more of it; idempotent."""


class LanedTransport(Transport, Protocol):
    """A link of several streams. `send_all` is the control lane; `receive_some` is not used: `receive_from` is."""

    lanes: bool
    """True; a Transport without this attribute has one lane."""
    early_seq: int
    """The highest seq used by frames that were sent before the handshake was complete."""

    @property
    def resume_ticket(self) -> str:
        """What the server gave with the session ticket by which this link was opened; empty without one."""

    @property
    def max_datagram(self) -> int:
        """The longest frame that travels as a datagram now, in bytes; 0: none does."""

    async def send_on(self, lane: int, data: bytes) -> None:
        """Send on the control or the message lane; waits while too much of that lane is under way.

        Raises:
            TransportFailed.
        """

    async def receive_from(self) -> tuple[int, bytes]:
        """What comes next and on which lane; EPHEMERAL means a datagram. Ends like `receive_some`: empty bytes.

        Raises:
            TransportFailed: with the close code if the peer told one.
        """

    def unacknowledged(self, lane: int) -> int:
        """Bytes written on this lane that the server's transport has not confirmed."""

    def send_datagram(self, frame: bytes) -> bool:
        """Hand over one frame as a datagram; False when it was dropped or is too long. It may still be lost."""

    def open_stream(self) -> OutgoingStream:
        """A new ephemeral stream.

        Raises:
            StreamRefused: the server allows no further stream now.
            TransportFailed: the link is gone.
        """

    async def accept_stream(self) -> IncomingStream:
        """The next ephemeral stream that the server opened.

        Raises:
            TransportFailed: the link is gone.
        """

    async def migrate(self, local: tuple[str, int] | None = None) -> None:
        """Go on from another local address (any free one by default); nothing that was sent is lost.

        Raises:
            TransportFailed: that address cannot be had; the link goes on from the old one.
        """

    def remember(self, resume_ticket: str, user_id: int) -> None:
        """The login succeeded: keep what resumes this session for the next link."""


Dial = Callable[[Endpoint, trio.Nursery], Awaitable[Transport]]
"""Opens a link; what has to run beside it goes into the nursery and raises nothing. The caller holds a deadline.
Raises TransportFailed."""


class StreamTransport:
    """Any Trio stream."""

    def __init__(self, stream: trio.abc.Stream, *, plain: bool = False) -> None:
        """`plain`: it is TCP without TLS; a server that wants TLS hangs up then, and is worth a hint."""
        self._stream = stream
        self._unheard = plain

    async def send_all(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise TransportFailed(why(error)) from None

    async def receive_some(self) -> bytes:
        try:
            data = bytes(await self._stream.receive_some(RECEIVE_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise TransportFailed(self._hint(why(error))) from None
        if self._unheard and (not data or data.startswith(TLS_ALERT)):
            raise TransportFailed(self._hint("it hung up"))
        self._unheard = False
        return data

    def _hint(self, reason: str) -> str:
        return f"{reason} without a word; does the server speak TLS? then it is tcps://" if self._unheard else reason

    async def aclose(self) -> None:
        with suppress(trio.BrokenResourceError):
            await self._stream.aclose()


async def open_stream(
    endpoint: Endpoint, context: ssl.SSLContext | None, trust: Trust | None = None
) -> trio.abc.Stream:
    """A TCP connection, with TLS where the endpoint is a secure one. The handshake is complete on return.

    `trust` matters for what `context` cannot say: a pinned certificate.

    Raises:
        TransportFailed: nobody there, or a certificate that does not verify.
    """
    try:
        stream = await trio.open_tcp_stream(endpoint.host, endpoint.port)
    except OSError as error:
        raise TransportFailed(f"cannot connect to {endpoint.authority}: {why(error)}") from None
    if not endpoint.secure:
        return stream
    # A truncated stream cannot fool us, frames delimit themselves; so a missing close_notify is no error.
    secured = trio.SSLStream(
        stream, context or ssl.create_default_context(), server_hostname=endpoint.host, https_compatible=True
    )
    secure = False
    try:
        await secured.do_handshake()
        if trust is not None:
            trust.check(secured.getpeercert(True))
        secure = True
    except Untrusted as error:
        raise TransportFailed(f"TLS with {endpoint.authority} failed: {error}", final=True) from None
    except trio.BrokenResourceError as error:
        final = isinstance(error.__cause__, ssl.SSLCertVerificationError)
        raise TransportFailed(f"TLS with {endpoint.authority} failed: {why(error)}", final=final) from None
    finally:
        if not secure:
            await trio.aclose_forcefully(stream)
    return secured


async def open_tcp(endpoint: Endpoint, context: ssl.SSLContext | None, trust: Trust | None = None) -> Transport:
    """`tcp://` and `tcps://`: frames on the bare byte stream."""
    return StreamTransport(await open_stream(endpoint, context, trust), plain=not endpoint.secure)


def why(error: BaseException) -> str:
    """The innermost reason of a network error, in a few words."""
    if isinstance(error, BaseExceptionGroup):
        return why(error.exceptions[0])
    if error.__cause__ is not None:
        return why(error.__cause__)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not trusted ({error.verify_message})"
    if isinstance(error, OSError) and error.strerror:
        return os.strerror(error.errno) if error.errno is not None and error.errno > 0 else error.strerror
    return str(error) or type(error).__name__
